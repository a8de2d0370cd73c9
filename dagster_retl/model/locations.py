"""Where things are kept: URLs and paths as people write them, resolved against the folder of retl.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_DATABASES = frozenset({"sqlite", "duckdb"})
_NOT_A_PATH = re.compile(r":memory:|file:|md:|motherduck:")


def check_url(text: str) -> URL:
    """The parsed database URL. Raises `ValueError` that does not quote it, as it may hold a password."""
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(
            "expected a database URL, such as duckdb:///warehouse.duckdb or postgresql://user@host/database"
        ) from None


def check_timezone(name: str) -> str:
    """The name, when it is an IANA time zone. Raises `ValueError`."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone, such as 'Europe/Paris'") from error
    return name


def display_url(text: str) -> str:
    """A database URL without its password, nor the values of its parameters, which may be tokens."""
    url = check_url(text)
    masked = url.set(query=dict.fromkeys(url.query, "***"))
    return masked.render_as_string(hide_password=True)


def resolve_database_url(text: str, base: Path) -> str:
    """The URL with the file of a SQLite or DuckDB database made absolute; others as they are."""
    url = check_url(text)
    database = url.database
    if url.get_backend_name() not in _FILE_DATABASES or not database or _NOT_A_PATH.match(database):
        return text
    return url.set(database=str(base / database)).render_as_string(hide_password=False)


def resolve_path(text: str, base: Path) -> str:
    """A path made absolute; a URL (`s3://…`, `gs://…`) as it is."""
    return text if _SCHEME.match(text) else str(base / text)
