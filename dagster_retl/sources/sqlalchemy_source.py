"""Any other database that SQLAlchemy reaches: MySQL, MariaDB, Snowflake, BigQuery, SQL Server and more.

Rows are streamed where the driver can (`stream_results`), in a read-only transaction where the database
has one. Types are what the driver's cursor says, else what the first block shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

import pyarrow as pa
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Connection, CursorResult, Engine
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from dagster_retl.errors import ConfigurationError, SourceError
from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.base import (
    BLOCK_ROWS,
    Extract,
    Source,
    SourceSettings,
    in_local_time,
    missing_driver,
    require_columns,
)
from dagster_retl.sources.rows_to_arrow import infer, to_block

_SQLGLOT_NAMES = {"mariadb": "mysql", "mssql": "tsql", "awsathena": "athena", "clickhousedb": "clickhouse"}
_KNOWN_DIALECTS = frozenset(
    {"mysql", "snowflake", "bigquery", "databricks", "redshift", "oracle", "trino", "presto", "tsql", "athena"}
    | {"clickhouse", "duckdb", "hive", "spark", "teradata", "doris", "starrocks"}
)
_EXTRAS = {"mysql", "snowflake", "bigquery", "databricks", "redshift"}

_MYSQL_TYPES = {
    **dict.fromkeys((1, 2, 3, 8, 9, 13), pa.int64()),
    **dict.fromkeys((4, 5), pa.float64()),
    **dict.fromkeys((10, 14), pa.date32()),
    **dict.fromkeys((11, 245, 247, 248), pa.string()),
    7: pa.timestamp("us", "UTC"),
    12: pa.timestamp("us"),
    16: pa.binary(),
}
"""Field types of the MySQL protocol; TIMESTAMP (7) is a moment, as the session's zone is UTC, DATETIME (12) is not
(https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html)."""
_MYSQL_DECIMAL = 246

_PYTHON_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string(), bytearray: pa.binary()}
"""Type codes of drivers, such as pyodbc, that name types by Python's classes."""


def sqlglot_name(backend: str) -> str:
    """What sqlglot calls the SQL of a SQLAlchemy backend; empty for those that it does not know."""
    name = _SQLGLOT_NAMES.get(backend, backend)
    return name if name in _KNOWN_DIALECTS else ""


class SQLAlchemySource(Source):
    """A database behind a SQLAlchemy URL."""

    def __init__(self, url: URL, settings: SourceSettings, redact: Redactor) -> None:
        super().__init__(settings)
        self._url = url
        self._redact = redact
        backend = url.get_backend_name()
        self.dialect = sqlglot_name(backend)
        if settings.statement_timeout is not None and self.dialect != "mysql":
            raise ConfigurationError(
                f"warehouse {settings.name!r}: `statement_timeout` is not supported for {backend}",
                hint="Set the driver's own option in `connect_args`.",
            )
        self._engine = self._create_engine()

    @contextmanager
    def read(self, sql: str, *, block_rows: int = BLOCK_ROWS) -> Iterator[Extract]:
        with self._connection() as connection:
            with self._errors():
                stream = self._start(connection, sql, block_rows)
            try:
                require_columns(stream.names)
                with self._errors():
                    schema = _schema(stream.names, self._described(stream.result), stream.first)
                blocks = self._blocks(stream, schema)
                yield in_local_time(Extract(schema, blocks), self.settings.timezone)
            finally:
                self._stop(stream, connection)

    def check(self) -> None:
        with self._connection() as connection, self._errors():
            connection.exec_driver_sql("SELECT 1 FROM dual" if self.dialect == "oracle" else "SELECT 1")

    def close(self) -> None:
        self._engine.dispose()

    def _start(self, connection: Connection, sql: str, block_rows: int) -> _Stream:
        is_mysql = self.dialect == "mysql"
        thread = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar() if is_mysql else None
        streaming = connection.execution_options(stream_results=True, no_parameters=True)
        return _Stream(streaming.exec_driver_sql(self._tagged(sql)), block_rows, thread)

    def _stop(self, stream: _Stream, connection: Connection) -> None:
        """End a query whose rows were not all read: closing alone would read them to the end."""
        if stream.exhausted:
            return
        if stream.thread is None:
            connection.invalidate()
            return
        with self._errors(), self._engine.connect() as other:
            other.exec_driver_sql(f"KILL QUERY {stream.thread}")
        with suppress(DBAPIError):  # the killed query's own error
            stream.result.close()

    def _blocks(self, stream: _Stream, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with self._errors():
            for rows in stream:
                yield to_block(rows, schema)

    def _described(self, result: CursorResult[Any]) -> list[pa.DataType | None]:
        description = result.cursor.description if result.cursor is not None else ()
        type_of = _mysql_type if self.dialect == "mysql" else _python_type
        return [type_of(*column[1:6]) for column in description or ()]

    def _tagged(self, sql: str) -> str:
        tag = (self.settings.query_tag or "").replace("*", "")
        return f"/* {tag} */ {sql}" if tag else sql

    def _create_engine(self) -> Engine:
        name = self.settings.name
        try:
            return create_engine(self._url, connect_args=dict(self.settings.connect_args), poolclass=NullPool)
        except NoSuchModuleError as error:
            backend = self._url.get_backend_name()
            raise missing_driver(name, self._url.drivername, backend if backend in _EXTRAS else None) from error
        except ModuleNotFoundError as error:
            extra = self.dialect if self.dialect in _EXTRAS else None
            raise missing_driver(name, error.name or self._url.drivername, extra) from error
        except (SQLAlchemyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"warehouse {name!r}: {self._redact(error)}") from error

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self) -> Connection:
        engine = self._engine
        try:
            connection = engine.connect()
            for statement in _session_settings(engine, self.settings):
                connection.exec_driver_sql(statement)
        except SQLAlchemyError as error:
            hint = "Check host, port, database, user and password in its `url`, and that the server is up."
            raise self.unavailable(self._redact(_original(error)), hint) from error
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._translated(error) from error

    def _translated(self, error: SQLAlchemyError) -> SourceError:
        message = self._redact(_original(error))
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return self.unavailable(message, "The connection was lost: run the sync again.")
        return self.refused(message)


class _Stream:
    """The rows of a running query, in parts. `thread`: MySQL's id of the connection, to stop the query by."""

    def __init__(self, result: CursorResult[Any], part_rows: int, thread: int | None) -> None:
        self.result = result
        self.thread = thread
        self.exhausted = False
        self.names = list(result.keys())
        self._parts = result.partitions(part_rows)
        self.first: Sequence[Any] = next(self._parts, [])

    def __iter__(self) -> Iterator[Sequence[Any]]:
        if self.first:
            yield self.first
            yield from self._parts
        self.exhausted = True


def _original(error: SQLAlchemyError) -> BaseException:
    """The driver's own error: SQLAlchemy's repeats the statement."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _session_settings(engine: Engine, settings: SourceSettings) -> list[str]:
    if engine.dialect.name == "oracle":
        return ["SET TRANSACTION READ ONLY"]
    if engine.dialect.name not in ("mysql", "mariadb"):
        return []
    statements = ["SET SESSION TRANSACTION READ ONLY", "SET SESSION time_zone = '+00:00'"]
    if settings.statement_timeout is not None:
        is_mariadb = getattr(engine.dialect, "is_mariadb", False)
        limit = "max_statement_time" if is_mariadb else "max_execution_time"
        value = settings.statement_timeout if is_mariadb else round(settings.statement_timeout * 1000)
        statements.append(f"SET SESSION {limit} = {value}")
    return statements


def _schema(names: list[str], described: list[pa.DataType | None], first: Sequence[Any]) -> pa.Schema:
    columns = list(zip(*first, strict=True)) or [()] * len(names)
    kinds = described or [None] * len(names)
    return pa.schema(
        [
            (name, infer(values) if kind is None else kind)
            for name, kind, values in zip(names, kinds, columns, strict=True)
        ]
    )


def _mysql_type(code: Any, _shown: Any, length: Any, _precision: Any, scale: Any) -> pa.DataType | None:
    if code == _MYSQL_DECIMAL:
        digits = length - 1 - (1 if scale else 0)  # the length counts sign and point
        return pa.decimal128(38, scale) if digits <= 38 else pa.string()
    return _MYSQL_TYPES.get(code)


def _python_type(code: Any, _shown: Any, _length: Any, precision: Any, scale: Any) -> pa.DataType | None:
    if code is Decimal and isinstance(precision, int) and isinstance(scale, int):
        return pa.decimal128(38, scale) if scale >= 0 and precision <= 38 else pa.string()
    return _PYTHON_TYPES.get(code) if isinstance(code, type) else None
