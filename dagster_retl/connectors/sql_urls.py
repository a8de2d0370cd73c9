"""Database URLs: which driver one means, and what of it may be shown."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mariadb+pymysql": "mariadb+pymysql",
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "duckdb": "duckdb",
}
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
FILE_DIALECTS = ("sqlite", "duckdb")
"""Databases that are a file, with one writer at a time."""


def parse_url(text: str) -> URL:
    """The URL with the driver that this connector uses. Raises `ValueError`, without the URL, when it is none."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL, such as postgresql://user:password@host:5432/database") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        known = ", ".join(f"{name}://" for name in ("postgresql", "mysql", "mariadb", "sqlite", "duckdb"))
        raise ValueError(f"begins with {url.drivername!r}; the sql connector writes to {known}")
    url = url.set(drivername=driver)
    if url.get_backend_name() in FILE_DIALECTS and url.database in (None, "", ":memory:"):
        raise ValueError("names no file: a database in memory would vanish with the run")
    return url


def _host(url: URL) -> str:
    host = url.host or url.query.get("host") or url.query.get("unix_socket") or "localhost"
    return host if isinstance(host, str) else ",".join(host)


def public_identity(url: URL) -> str:
    """`dialect://host:port/database`, without user and password; a file as its absolute path."""
    backend = url.get_backend_name()
    if backend in FILE_DIALECTS:
        return f"{backend}://{Path(url.database or '').resolve()}"
    return f"{backend}://{_host(url)}:{url.port or _PORTS[backend]}/{url.database or ''}"


def public_name(url: URL) -> str:
    """A short name for people: the database and where it is."""
    if url.get_backend_name() in FILE_DIALECTS:
        return Path(url.database or "").name
    return f"{url.database or url.username or 'default'} on {_host(url)}"
