"""From a warehouse's URL to its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.locations import check_url, resolve_database_url
from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.base import Source, SourceSettings, missing_driver
from dagster_retl.sources.connection_secrets import connection_secrets
from dagster_retl.sources.duckdb_source import DuckDBSource
from dagster_retl.sources.sqlalchemy_source import SQLAlchemySource, sqlglot_name
from dagster_retl.sources.sqlite_source import SQLiteSource


def open_source(
    url: str,
    *,
    name: str,
    base: Path,
    connect_args: Mapping[str, Any] | None = None,
    timezone: str | None = None,
    statement_timeout: float | None = None,
    query_tag: str | None = None,
) -> Source:
    """The source behind a SQLAlchemy URL. Nothing is opened before it is used.

    base: the folder of retl.yaml, from where relative files of DuckDB and SQLite are found. The other
    settings: see `SourceSettings`. Raises `ConfigurationError` for a URL that cannot be read and for a
    driver that is not installed.
    """
    settings = SourceSettings(name, connect_args or {}, timezone, statement_timeout, query_tag)
    try:
        parsed = check_url(resolve_database_url(url, base))
    except ValueError as error:
        raise ConfigurationError(f"warehouse {name!r}: {error}") from None
    return _source(parsed, settings, Redactor(connection_secrets(parsed, settings.connect_args)))


def dialect_of(url: str) -> str:
    """The SQL behind a warehouse's URL, as sqlglot calls it; nothing is opened."""
    backend = check_url(url).get_backend_name()
    return _NATIVE.get(backend) or sqlglot_name(backend)


_NATIVE = {
    "duckdb": "duckdb",
    "motherduck": "duckdb",
    "postgresql": "postgres",
    "postgres": "postgres",
    "sqlite": "sqlite",
}


def _source(url: URL, settings: SourceSettings, redact: Redactor) -> Source:
    match url.get_backend_name():
        case "duckdb" | "motherduck":
            config = {**url.query, **settings.connect_args}
            return DuckDBSource(_duckdb_path(url), replace(settings, connect_args=config), redact)
        case "postgresql" | "postgres":
            return _postgres(url.set(drivername="postgresql+psycopg"), settings, redact)
        case "sqlite":
            return SQLiteSource(url.database or ":memory:", settings, redact)
        case _:
            return SQLAlchemySource(url, settings, redact)


def _postgres(url: URL, settings: SourceSettings, redact: Redactor) -> Source:
    if find_spec("psycopg") is None:
        raise missing_driver(settings.name, "psycopg", "postgres")
    from dagster_retl.sources.postgres_source import PostgresSource  # noqa: PLC0415 its driver is an extra

    return PostgresSource(url, settings, redact)


def _duckdb_path(url: URL) -> str:
    path = url.database or ":memory:"
    return f"md:{path}" if url.get_backend_name() == "motherduck" else path
