"""Postgres, MySQL, MariaDB and SQLite through a SQLAlchemy engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Inspector
from sqlalchemy.exc import DBAPIError, NoSuchTableError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dagster_retl.connectors.sql_database import Change, Database, configuration_fault, missing_record
from dagster_retl.connectors.sql_dialects import parameters, statement
from dagster_retl.connectors.sql_errors import Phase, failure
from dagster_retl.connectors.sql_keys import read_unique_keys
from dagster_retl.connectors.sql_reflection import row_id_column, table_column
from dagster_retl.connectors.sql_sessions import make_engine
from dagster_retl.connectors.sql_tables import Table, TableName
from dagster_retl.connectors.sql_urls import public_identity
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Operation

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
        row_id = row_id_column(reflected) if self.dialect == "sqlite" else None
        columns = [table_column(column, connection.dialect, row_id) for column in reflected]
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
