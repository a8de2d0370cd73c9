"""What the sql connector needs of any database: tables, and changes applied in one transaction."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dagster_retl.connectors.sql_tables import Table, TableName, candidates, no_table
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Operation


@dataclass(frozen=True, slots=True)
class Change:
    """One operation on rows that fill the same columns.

    columns: what `rows` hold, in order; keys: which of them find the record (update, delete,
    upsert). Values are already what the driver takes.
    """

    table: Table
    operation: Operation
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    @property
    def payload(self) -> tuple[str, ...]:
        """The columns that are not keys."""
        return tuple(name for name in self.columns if name not in self.keys)

    @property
    def countable(self) -> bool:
        """Whether the number of changed records tells that every row found one: each finds at most one."""
        return self.table.unique_within(self.keys)

    def one_by_one(self) -> list[Change]:
        """The same change, a row at a time."""
        return [Change(self.table, self.operation, self.columns, self.keys, [row]) for row in self.rows]


def missing_record(change: Change) -> DestinationError:
    """The error for an update that found fewer records than it has rows."""
    message = f"table {str(change.table.name)!r} has no record with this {', '.join(change.keys)}"
    return DestinationError(message, code=ErrorCode.NOT_FOUND)


def configuration_fault(message: str, hint: str) -> DestinationError:
    """The error for a table that does not allow what the sync asks for."""
    return DestinationError(message, code=ErrorCode.CONFIGURATION, hint=hint)


class Database(ABC):
    """A database that tables are read from and changes are written to. Safe for threads.

    All methods raise `DestinationError` only. dialect: `postgresql`, `mysql`, `mariadb`, `sqlite`
    or `duckdb`. where: its public identity, without user and password.
    """

    def __init__(self, *, dialect: str, where: str, schema: str | None) -> None:
        self.dialect = dialect
        self.where = where
        self.schema = schema
        self._tables: dict[str, Table] = {}
        self._lock = threading.RLock()

    @abstractmethod
    def ping(self) -> None:
        """Connect and ask something."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """Every table that can be written to."""

    @abstractmethod
    def table_names(self) -> list[TableName]:
        """The names of those tables."""

    @abstractmethod
    def read_table(self, name: TableName) -> Table | None:
        """The table as it is now; None when there is none of that name."""

    @abstractmethod
    def apply(self, changes: Sequence[Change]) -> None:
        """Apply all changes in one transaction, or none of them.

        Raises the error of the first statement that failed; `ambiguous` when the outcome of COMMIT
        is unknown; `NOT_FOUND` when an update found fewer records than it has rows.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    @abstractmethod
    def quote(self, name: str) -> str:
        """An identifier, quoted for the dialect."""

    def table(self, object_name: str, *, fresh: bool = False) -> Table:
        """The table that an object name means, read once. Raises `SCHEMA_DRIFT` when there is none."""
        with self._lock:
            if fresh or object_name not in self._tables:
                self._tables[object_name] = self._find(object_name)
            return self._tables[object_name]

    def forget(self, object_name: str) -> None:
        """Read this table again at the next use: it differs from what was read."""
        with self._lock:
            self._tables.pop(object_name, None)

    def _find(self, object_name: str) -> Table:
        for name in candidates(object_name, self.schema):
            table = self.read_table(name)
            if table is not None:
                return table
        raise no_table(object_name, map(self.object_name, self.table_names()), self.where)

    def object_name(self, name: TableName) -> str:
        """What a sync calls a table: without its schema, where that is the configured one."""
        return name.name if name.schema == self.schema else str(name)

    def upsert_obstacle(self, table: Table, keys: Sequence[str]) -> DestinationError | None:
        """Why rows cannot be upserted by these columns; None when they can."""
        if table.identified_by(keys):
            return None
        message = f"an upsert into {str(table.name)!r} needs a unique index on its key ({', '.join(keys)})"
        return configuration_fault(message, f"Add it with: {self.unique_index_ddl(table.name, keys)}")

    def quoted_table(self, name: TableName) -> str:
        """A table's full name for SQL."""
        parts = [name.schema, name.name] if name.schema else [name.name]
        return ".".join(self.quote(part) for part in parts)

    def unique_index_ddl(self, name: TableName, keys: Sequence[str]) -> str:
        """The statement that lets an upsert rest on these columns."""
        index = self.quote("_".join([name.name, *keys, "key"])[:60])
        columns = ", ".join(self.quote(key) for key in keys)
        return f"CREATE UNIQUE INDEX {index} ON {self.quoted_table(name)} ({columns});"
