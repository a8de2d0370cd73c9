"""Engines whose sessions are exact (UTC, strict, foreign keys on), bounded in time, and show no values."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL

from dagster_retl.errors import ConfigurationError


def _postgres_options(timeout: float) -> dict[str, Any]:
    milliseconds = math.ceil(timeout * 1000)
    return {
        "connect_timeout": math.ceil(timeout),
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": milliseconds,
        "application_name": "dagster-retl",
    }


def _mysql_options(timeout: float) -> dict[str, Any]:
    seconds = math.ceil(timeout)
    return {"connect_timeout": seconds, "read_timeout": seconds, "write_timeout": seconds, "charset": "utf8mb4"}


def _session_statements(dialect: str, timeout: float) -> list[str]:
    """What makes every session exact (UTC, nothing truncated) and bounded in time."""
    if dialect == "postgresql":
        # Locks are given up first, so that a held lock is told from a slow statement.
        return [
            f"SET lock_timeout = {math.ceil(timeout * 500)}",
            f"SET statement_timeout = {math.ceil(timeout * 1000)}",
            "SET TimeZone = 'UTC'",
        ]
    if dialect == "sqlite":
        return ["PRAGMA foreign_keys = ON"]
    return [
        "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')",
        "SET SESSION time_zone = '+00:00'",
        f"SET SESSION innodb_lock_wait_timeout = {max(1, int(timeout / 2))}",
    ]


def _on_connect(dialect: str, timeout: float) -> Callable[[Any, Any], None]:
    statements = _session_statements(dialect, timeout)

    def prepare(connection: Any, record: Any) -> None:
        with closing(connection.cursor()) as cursor:
            for text in statements:
                cursor.execute(text)
        connection.commit()

    return prepare


def _sqlite_opener(path: str, options: Mapping[str, Any]) -> Callable[[], sqlite3.Connection]:
    """`mode=rw`: a mistyped path is an error, not a new empty database."""
    uri = Path(path).resolve().as_uri() + "?mode=rw"
    return lambda: sqlite3.connect(uri, uri=True, check_same_thread=False, **options)


def make_engine(url: URL, *, concurrency: int, timeout: float, connect_args: Mapping[str, Any]) -> sa.Engine:
    """An engine with a connection for each writing thread. Nothing is connected yet."""
    dialect = url.get_backend_name()
    options: dict[str, Any] = {}
    if dialect == "sqlite":
        options["creator"] = _sqlite_opener(url.database or "", {"timeout": timeout} | dict(connect_args))
    else:
        defaults = _postgres_options(timeout) if dialect == "postgresql" else _mysql_options(timeout)
        options["connect_args"] = {k: v for k, v in defaults.items() if k not in url.query} | dict(connect_args)
    try:
        engine = sa.create_engine(
            url,
            poolclass=sa.QueuePool,
            pool_size=concurrency,
            max_overflow=2,
            pool_timeout=timeout,
            pool_pre_ping=dialect != "sqlite",
            pool_recycle=1800,
            hide_parameters=True,
            **options,
        )
    except ModuleNotFoundError as error:
        extra = "postgres" if dialect == "postgresql" else "mysql"
        hint = f"Install it with: pip install 'dagster-retl[{extra}]'"
        raise ConfigurationError(f"the driver {error.name!r} for {dialect} is not installed", hint=hint) from None
    event.listen(engine, "connect", _on_connect(dialect, timeout))
    return engine


def _worth_logging(record: logging.LogRecord) -> bool:
    """Psycopg warns of the end of a pipeline whenever a statement in it is refused: once for each refused batch."""
    return not str(record.msg).startswith("error ignored terminating")


logging.getLogger("psycopg").addFilter(_worth_logging)
