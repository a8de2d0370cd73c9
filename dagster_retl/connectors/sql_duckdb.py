"""DuckDB through its own client: one connection, one writer.

A statement takes a whole column as one list (`unnest(?::BIGINT[])`): row by row DuckDB is a
hundred times slower. The casts are the column's own types, as an INSERT of text would apply them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from dagster_retl.connectors.sql_database import Change, Database, missing_record
from dagster_retl.connectors.sql_errors import Phase, failure
from dagster_retl.connectors.sql_keys import unique_keys_of
from dagster_retl.connectors.sql_tables import Column, Table, TableName
from dagster_retl.connectors.sql_types import ColumnType, Kind
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Operation

_KINDS: Mapping[str, Kind] = {
    "BOOLEAN": Kind.BOOLEAN,
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"), Kind.INTEGER),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"), Kind.INTEGER),
    **dict.fromkeys(("FLOAT", "DOUBLE"), Kind.FLOAT),
    **dict.fromkeys(("DECIMAL",), Kind.DECIMAL),
    **dict.fromkeys(("VARCHAR", "ENUM"), Kind.TEXT),
    "BLOB": Kind.BYTES,
    "DATE": Kind.DATE,
    "TIME": Kind.TIME,
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), Kind.TIMESTAMP),
    "TIMESTAMP WITH TIME ZONE": Kind.TIMESTAMP_TZ,
    "JSON": Kind.JSON,
    "UUID": Kind.UUID,
}

_COLUMNS = """
SELECT c.column_name, c.data_type, c.is_nullable, c.column_default IS NOT NULL, i.is_generated = 'ALWAYS'
FROM duckdb_columns() c JOIN information_schema.columns i
  ON i.table_catalog = c.database_name AND i.table_schema = c.schema_name
  AND i.table_name = c.table_name AND i.column_name = c.column_name
WHERE c.database_name = current_database() AND c.schema_name = ? AND c.table_name = ?
ORDER BY c.column_index
"""
_CONSTRAINTS = """
SELECT 'constraint ' || constraint_index, unnest(constraint_column_names), true, false, false
FROM duckdb_constraints() WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE')
AND database_name = current_database() AND schema_name = ? AND table_name = ?
"""
_INDEXES = """
SELECT index_name, expressions FROM duckdb_indexes() WHERE is_unique
AND database_name = current_database() AND schema_name = ? AND table_name = ?
"""
_TABLES = """
SELECT schema_name, table_name FROM duckdb_tables()
WHERE database_name = current_database() AND NOT internal AND NOT temporary ORDER BY ALL
"""
_DEFAULT_SCHEMA = "main"


def column_type(name: str) -> ColumnType:
    """The type that `duckdb_columns()` names."""
    if name.endswith("]"):
        return ColumnType(Kind.ARRAY, name, column_type(name[: name.rindex("[")]))
    return ColumnType(_KINDS.get(name.partition("(")[0], Kind.OTHER), name)


def quote(name: str) -> str:
    """An identifier for DuckDB, always quoted."""
    return '"' + name.replace('"', '""') + '"'


def _sequence(change: Change) -> str:
    types = change.table.columns
    return ", ".join(f"unnest(?::{types[name].type.name}[]) AS {quote(name)}" for name in change.columns)


def _matching(change: Change) -> str:
    return " AND ".join(f"target.{quote(key)} = given.{quote(key)}" for key in change.keys)


def _on_conflict(change: Change) -> str:
    keys = ", ".join(quote(key) for key in change.keys)
    values = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in change.payload)
    return f" ON CONFLICT ({keys}) DO UPDATE SET {values}" if values else f" ON CONFLICT ({keys}) DO NOTHING"


def statement(change: Change, target: str) -> str:
    """The statement that applies all rows of a change to the table named `target` in SQL."""
    given = f"(SELECT {_sequence(change)}) AS given"
    if change.operation is Operation.DELETE:
        return f"DELETE FROM {target} AS target USING {given} WHERE {_matching(change)}"
    if change.operation is Operation.UPDATE:
        names = change.payload or change.keys[:1]
        values = ", ".join(f"{quote(name)} = given.{quote(name)}" for name in names)
        return f"UPDATE {target} AS target SET {values} FROM {given} WHERE {_matching(change)}"
    columns = ", ".join(quote(name) for name in change.columns)
    insert = f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {given}"
    return insert + _on_conflict(change) if change.operation is Operation.UPSERT else insert


class DuckDatabase(Database):
    """A DuckDB file, opened at the first use and held until `close`."""

    def __init__(self, path: str, *, where: str, schema: str | None, config: Mapping[str, Any]) -> None:
        super().__init__(dialect="duckdb", where=where, schema=schema)
        self._path = path
        self._config = dict(config)
        self._connection: duckdb.DuckDBPyConnection | None = None

    def quote(self, name: str) -> str:
        return quote(name)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._require_file()
            try:
                self._connection = duckdb.connect(self._path, config=self._config)
                self._connection.execute("SET TimeZone = 'UTC'")
            except duckdb.Error as error:
                raise failure(error, Phase.CONNECT, self.where) from None
        return self._connection

    def _require_file(self) -> None:
        """DuckDB would make a new empty database of a mistyped path."""
        if not self._path.startswith("md:") and not Path(self._path).is_file():
            hint = "Create the database and its tables first; relative paths start at the working directory."
            message = f"cannot connect to {self.where}: there is no such file"
            raise DestinationError(message, code=ErrorCode.DESTINATION_DOWN, hint=hint)

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            connection = self._open()
            try:
                return connection.execute(sql, list(values)).fetchall()
            except duckdb.Error as error:
                raise failure(error, Phase.EXECUTE, self.where) from None

    def ping(self) -> None:
        self._query("SELECT 1")

    def table_names(self) -> list[TableName]:
        unnamed = None if self.schema else _DEFAULT_SCHEMA
        return [TableName(None if schema == unnamed else schema, name) for schema, name in self._query(_TABLES)]

    def tables(self) -> list[Table]:
        return [table for name in self.table_names() if (table := self.read_table(name))]

    def read_table(self, name: TableName) -> Table | None:
        place = [name.schema or _DEFAULT_SCHEMA, name.name]
        columns = [
            Column(column, column_type(kind), nullable=nullable, filled=filled, computed=computed)
            for column, kind, nullable, filled, computed in self._query(_COLUMNS, place)
        ]
        by_name = {column.name: column for column in columns}
        return Table(name, by_name, unique_keys_of(self._unique_rows(place, by_name))) if columns else None

    def _unique_rows(self, place: Sequence[str], columns: Mapping[str, Column]) -> list[tuple[Any, ...]]:
        rows = self._query(_CONSTRAINTS, place)
        for index, expressions in self._query(_INDEXES, place):
            names = [part.strip().strip('"') for part in expressions.strip("[]").split(",")]
            rows += [(index, name, name in columns, False, False) for name in names]
        return rows

    def apply(self, changes: Sequence[Change]) -> None:
        with self._lock, self._transaction() as connection:
            for change in changes:
                self._execute(connection, change)

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = self._open()
        phase = Phase.EXECUTE
        try:
            connection.begin()
            yield connection
            phase = Phase.COMMIT
            connection.commit()
        except duckdb.Error as error:
            self._abandon(connection)
            raise failure(error, phase, self.where) from None
        except BaseException:
            self._abandon(connection)
            raise

    def _abandon(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Roll back; a connection that cannot even do that is closed, which rolls back too."""
        try:
            connection.rollback()
        except duckdb.Error:
            self.close()

    def _execute(self, connection: duckdb.DuckDBPyConnection, change: Change) -> None:
        parts = change.one_by_one() if change.operation is Operation.UPDATE and not change.countable else [change]
        target = self.quoted_table(change.table.name)
        for part in parts:
            values = [list(column) for column in zip(*part.rows, strict=True)]
            counted = connection.execute(statement(part, target), values).fetchone()
            if part.operation is Operation.UPDATE and counted is not None and counted[0] < len(part.rows):
                raise missing_record(part)
