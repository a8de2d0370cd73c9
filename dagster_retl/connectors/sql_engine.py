"""Postgres, MySQL, MariaDB and SQLite through a SQLAlchemy engine."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Inspector
from sqlalchemy.exc import DBAPIError, NoSuchTableError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.sql import sqltypes

from dagster_retl.connectors.sql_database import Change, Database, configuration_fault, missing_record
from dagster_retl.connectors.sql_dialects import parameters, statement
from dagster_retl.connectors.sql_errors import Phase, failure
from dagster_retl.connectors.sql_keys import read_unique_keys
from dagster_retl.connectors.sql_tables import Column, Table, TableName
from dagster_retl.connectors.sql_types import ColumnType, Kind
from dagster_retl.connectors.sql_urls import public_identity
from dagster_retl.errors import ConfigurationError, DestinationError, ErrorCode
from dagster_retl.model.rows import Operation

_KINDS: tuple[tuple[type[Any], Kind], ...] = (
    (sqltypes.Boolean, Kind.BOOLEAN),
    (sqltypes.Integer, Kind.INTEGER),
    (sqltypes.Float, Kind.FLOAT),
    (sqltypes.Numeric, Kind.DECIMAL),
    (sqltypes.JSON, Kind.JSON),
    (sqltypes.Uuid, Kind.UUID),
    (sqltypes.ARRAY, Kind.ARRAY),
    (sqltypes.DateTime, Kind.TIMESTAMP),
    (sqltypes.Date, Kind.DATE),
    (sqltypes.Time, Kind.TIME),
    (sqltypes.String, Kind.TEXT),
    (sqltypes._Binary, Kind.BYTES),  # noqa: SLF001 - the one base of BLOB, BYTEA and VARBINARY
)


def column_type(reflected: Any, dialect: sa.Dialect) -> ColumnType:
    """A reflected type as ours; a domain is the type below it."""
    below = getattr(reflected, "data_type", None)
    if isinstance(below, sa.types.TypeEngine):
        return column_type(below, dialect)
    kind = next((kind for family, kind in _KINDS if isinstance(reflected, family)), Kind.OTHER)
    if kind is Kind.TIMESTAMP and reflected.timezone:
        kind = Kind.TIMESTAMP_TZ
    name = "unknown" if isinstance(reflected, sqltypes.NullType) else reflected.compile(dialect=dialect)
    item = column_type(reflected.item_type, dialect) if kind is Kind.ARRAY else None
    return ColumnType(kind, name, item)


def _column(reflected: Mapping[str, Any], dialect: sa.Dialect, row_id: str | None) -> Column:
    identity = reflected.get("identity") or {}
    filled = reflected.get("default") is not None or reflected.get("autoincrement") is True or bool(identity)
    return Column(
        name=str(reflected["name"]),
        type=column_type(reflected["type"], dialect),
        nullable=bool(reflected["nullable"]),
        filled=filled or reflected["name"] == row_id,
        computed="computed" in reflected or bool(identity.get("always")),
    )


def _row_id(columns: Sequence[Mapping[str, Any]]) -> str | None:
    """SQLite fills a primary key of one INTEGER column by itself: https://www.sqlite.org/lang_createtable.html#rowid."""
    keys = [column for column in columns if column.get("primary_key")]
    return str(keys[0]["name"]) if len(keys) == 1 and isinstance(keys[0]["type"], sa.INTEGER) else None


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
    """psycopg warns of the end of a pipeline whenever a statement in it is refused: once for each refused batch."""
    return not str(record.msg).startswith("error ignored terminating")


logging.getLogger("psycopg").addFilter(_worth_logging)

_FAILURES = (DBAPIError, PoolTimeoutError)
_SYSTEM_SCHEMAS = ("information_schema", "performance_schema", "mysql", "sys")


class EngineDatabase(Database):
    """A database behind a SQLAlchemy engine."""

    def __init__(
        self, url: URL, *, schema: str | None, concurrency: int, timeout: float, connect_args: Mapping[str, Any]
    ) -> None:
        super().__init__(dialect=url.get_backend_name(), where=public_identity(url), schema=schema)
        self._engine = make_engine(url, concurrency=concurrency, timeout=timeout, connect_args=connect_args)

    def close(self) -> None:
        self._engine.dispose()

    def quote(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote_identifier(name)

    def _connect(self) -> sa.Connection:
        try:
            return self._engine.connect()
        except _FAILURES as error:
            raise failure(error, Phase.CONNECT, self.where) from None

    def _ask(self, question: Callable[[sa.Connection], Any]) -> Any:
        with self._connect() as connection:
            try:
                return question(connection)
            except _FAILURES as error:
                raise failure(error, Phase.EXECUTE, self.where) from None

    def ping(self) -> None:
        # A constant would not make SQLite look into its file.
        question = sa.text("SELECT count(*) FROM sqlite_master" if self.dialect == "sqlite" else "SELECT 1")
        self._ask(lambda connection: connection.execute(question).scalar())

    def table_names(self) -> list[TableName]:
        names: list[TableName] = self._ask(self._read_names)
        return names

    def _read_names(self, connection: sa.Connection) -> list[TableName]:
        inspector = sa.inspect(connection)
        schemas: list[str | None] = [self.schema]
        if self.dialect == "postgresql":
            default = self.schema or inspector.default_schema_name
            schemas += [name for name in inspector.get_schema_names() if name != default and _is_own(name)]
        return [TableName(schema, name) for schema in schemas for name in sorted(inspector.get_table_names(schema))]

    def tables(self) -> list[Table]:
        return [table for name in self.table_names() if (table := self.read_table(name))]

    def read_table(self, name: TableName) -> Table | None:
        table: Table | None = self._ask(lambda connection: self._read(connection, name))
        return table

    def _read(self, connection: sa.Connection, name: TableName) -> Table | None:
        inspector: Inspector = sa.inspect(connection)
        try:
            reflected = inspector.get_columns(name.name, schema=name.schema)
        except NoSuchTableError:
            return None
        row_id = _row_id(reflected) if self.dialect == "sqlite" else None
        columns = [_column(column, connection.dialect, row_id) for column in reflected]
        keys = read_unique_keys(connection, name, self.quoted_table(name))
        return Table(name, {column.name: column for column in columns}, keys)

    def upsert_obstacle(self, table: Table, keys: Sequence[str]) -> DestinationError | None:
        nullable = [key for key in keys if table.columns[key].nullable]
        if self.dialect not in ("mysql", "mariadb") or not nullable or len(table.unique_keys) < 2:
            return super().upsert_obstacle(table, keys)
        name = str(table.name)
        message = f"an upsert into {name!r} could overwrite the wrong record: it has other unique keys as well"
        hint = f"Make the key column {nullable[0]!r} NOT NULL; then a row that meets another record is refused."
        return super().upsert_obstacle(table, keys) or configuration_fault(message, hint)

    def apply(self, changes: Sequence[Change]) -> None:
        with self._connect() as connection:
            try:
                for change in changes:
                    self._execute(connection, change)
            except _FAILURES as error:
                raise _explained(failure(error, Phase.EXECUTE, self.where), changes) from None
            try:
                connection.commit()
            except _FAILURES as error:
                raise failure(error, Phase.COMMIT, self.where) from None

    def _execute(self, connection: sa.Connection, change: Change) -> None:
        if change.operation is not Operation.UPDATE:
            connection.execute(statement(change, self.dialect), parameters(change))
            return
        for part in [change] if change.countable else change.one_by_one():
            result = connection.execute(statement(part, self.dialect), parameters(part))
            if result.rowcount < len(part.rows):
                raise missing_record(part)


def _explained(error: DestinationError, changes: Sequence[Change]) -> DestinationError:
    """What the guard of an upsert on MySQL means when it refuses a row (`sql_dialects`)."""
    change = changes[-1]
    guarded = change.operation is Operation.UPSERT and error.vendor_code == "1048"
    if not guarded or not any(f"'{key}'" in error.message for key in change.keys):
        return error
    message = "another record has the same value in a unique key of the table"
    return DestinationError(message, code=ErrorCode.CONFLICT, vendor_code="1062")


def _is_own(schema: str) -> bool:
    return schema not in _SYSTEM_SCHEMAS and not schema.startswith("pg_")
