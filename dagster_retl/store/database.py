"""The database behind the store: SQLite or Postgres, its connections, transactions and clock.

SQLite: one file in WAL mode, `synchronous=FULL` (a commit survives a power cut), a patient busy
timeout, `BEGIN IMMEDIATE` for writes, so that a writer waits at its start and never fails in the
middle. Postgres: everything in the schema `retl` of the database that the URL names.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from dagster_retl.errors import ConfigurationError, ErrorCode, StoreError
from dagster_retl.store.clock import from_text
from dagster_retl.store.schema import metadata

SCHEMA = "retl"
"""The store's own schema on Postgres."""

_BUSY_TIMEOUT = 60.0  # seconds that a SQLite connection waits for another one's write
_IDLE_TRANSACTION_TIMEOUT = 60_000  # milliseconds; see `_prepare_postgres`
_BEGIN = "retl_begin"
_EXAMPLES = "Write sqlite:///path/to/retl.db or postgresql://user:password@host/database."

# A database that has gone without a word is noticed within half a minute (libpq's defaults: hours).
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES
_KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}

# https://www.postgresql.org/docs/current/wal-async-commit.html
_WAIT_FOR_NO_DISK = text("SET LOCAL synchronous_commit TO off")

_POSTGRES_CLOCK = text("""SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""")


class Database:
    """Connections to the store's database, safe to share between threads.

    Raises `ConfigurationError` for a URL that no store can have, `StoreError` for a database that
    cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.display = self.url.set(query={}).render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.sqlite else _postgres_engine(self.url)
        self._writer = self.engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        # On SQLite how a commit reaches the disk is a setting of the connection.
        self._volatile = _sqlite_engine(self.url, synchronous="NORMAL") if self.sqlite else self.engine

    def begin(self) -> AbstractContextManager[Connection]:
        """A write transaction: committed at the end of the block, rolled back when it raises."""
        return self._writer.begin()

    @contextmanager
    def begin_volatile(self) -> Iterator[Connection]:
        """A write transaction that does not wait for the disk: for what a power cut may take back."""
        with self._volatile.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}).begin() as conn:
            if not self.sqlite:
                conn.execute(_WAIT_FOR_NO_DISK)
            yield conn

    def read(self) -> AbstractContextManager[Connection]:
        """A connection for reading: on SQLite, one consistent view that blocks nobody."""
        return self.engine.connect()

    def writing(self, conn: Connection | None) -> AbstractContextManager[Connection]:
        """The caller's transaction, or one of its own."""
        return self.begin() if conn is None else nullcontext(conn)

    def reading(self, conn: Connection | None) -> AbstractContextManager[Connection]:
        """The caller's transaction, or a connection of its own."""
        return self.read() if conn is None else nullcontext(conn)

    def now(self, conn: Connection | None = None) -> datetime:
        """The store's clock in UTC: the server's on Postgres, the host's on SQLite."""
        if self.sqlite:
            return datetime.now(UTC)
        with self.reading(conn) as reader:
            return from_text(str(reader.scalar(_POSTGRES_CLOCK)))

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Turn what the driver says about a database that cannot be used into a `StoreError`."""
        try:
            yield
        except DBAPIError as error:
            raise StoreError(
                f"the store {self.display} cannot be used: {error.orig}",
                hint="Check that the database is running and that its user may connect and create a schema."
                if not self.sqlite
                else "Check that the file is a SQLite database and that its folder is writable.",
                code=ErrorCode.INTERNAL,
            ) from error

    def is_missing(self) -> bool:
        """Whether there is no file yet; a database on a server is there."""
        return self.sqlite and not Path(str(self.url.database)).exists()

    def prepare(self) -> None:
        """Create what the database needs before it has tables: on SQLite, the folder and WAL mode."""
        if self.sqlite:
            _create_folder(Path(str(self.url.database)))
            with self.reachable(), self.engine.connect() as conn:
                _use_wal(conn.connection.dbapi_connection)

    def compact(self) -> bool:
        """Write the database anew without what was deleted. It waits for others; false: one of them read for too long.

        SQLite leaves deleted rows in free pages and in its log (https://www.sqlite.org/lang_vacuum.html),
        Postgres until a vacuum (its own write-ahead log and backups are its administrator's).
        """
        if not self.sqlite:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.exec_driver_sql(f"VACUUM {', '.join(metadata.tables)}")
            return True
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("VACUUM")
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.close()
        return not busy

    def close(self) -> None:
        """Close the pooled connections; connections in use are closed when they come back."""
        self.engine.dispose()
        self._volatile.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the driver's message may quote the URL, password included
        raise ConfigurationError("the URL of the store cannot be read", hint=_EXAMPLES) from None
    if parsed.drivername == "postgres" or parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise ConfigurationError(f"a store cannot be kept in {parsed.drivername!r}", hint=_EXAMPLES)
    if parsed.database in (None, "", ":memory:") or str(parsed.database).startswith("file:"):
        raise ConfigurationError(
            "the store needs a file: several processes share it, which an in-memory database cannot do", hint=_EXAMPLES
        )
    return parsed


def _sqlite_engine(url: URL, *, synchronous: str = "FULL") -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT})
    event.listen(engine, "connect", partial(_prepare_sqlite, synchronous=synchronous))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object, *, synchronous: str) -> None:
    # The driver must not open transactions by itself (it would do so late, and deferred):
    # https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#pysqlite-serializable
    connection.isolation_level = None
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(conn: Connection) -> None:
    conn.exec_driver_sql(conn.get_execution_options().get(_BEGIN, "BEGIN"))


def _create_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the store's folder {file.parent} cannot be created: {error.strerror}",
            hint="Choose another `store` in retl.yaml, or make the folder writable.",
        ) from error


def _use_wal(connection: Any) -> None:
    """Switch the file to write-ahead logging, once; it stays so.

    The switch needs the file for itself for a moment and does not use the busy timeout, so that
    several processes that create one store have to try again.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreError(
                    f"the store's file cannot be opened for writing: {error}",
                    hint="Check that the file and its folder are writable, and the disk is not full.",
                    code=ErrorCode.INTERNAL,
                ) from error
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if mode != "wal":
            raise StoreError(
                f"the store's file system cannot do write-ahead logging (SQLite answered {mode!r})",
                hint="Keep the store on a local disk, or use Postgres.",
                code=ErrorCode.CONFIGURATION,
            )
        return


def _postgres_engine(url: URL) -> Engine:
    settings = {name: value for name, value in _KEEPALIVE.items() if name not in url.query}
    try:
        engine = create_engine(url, pool_pre_ping=True, connect_args=settings)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "a store on Postgres needs psycopg, which is not installed",
            hint="Install it with: pip install 'dagster-retl[postgres]'",
        ) from error
    event.listen(engine, "connect", _prepare_postgres, insert=True)
    event.listen(engine, "do_executemany", _execute_many)
    return engine


def _execute_many(cursor: Any, statement: str, parameters: Any, _context: object) -> bool:
    """What psycopg sends in a pipeline leaves the server's clock for idle transactions stopped: start it again."""
    cursor.executemany(statement, parameters)
    cursor.connection.execute("SELECT 1")
    return True


def _prepare_postgres(connection: Any, _record: object) -> None:
    connection.autocommit = True
    connection.execute(f"SET search_path TO {SCHEMA}")
    # A process that is paused inside a transaction would keep its lease's row locked for as long
    # as it sleeps; the server ends the transaction, so that the next run can take over.
    connection.execute(f"SET idle_in_transaction_session_timeout TO {_IDLE_TRANSACTION_TIMEOUT}")
    connection.autocommit = False
