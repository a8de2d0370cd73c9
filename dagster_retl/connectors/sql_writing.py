"""A batch into a table: set-wise while it can be, halved around the rows that the database refuses.

Every piece is a transaction of its own, so that a refused one has changed nothing, in databases
without savepoints too, and constraints that are only checked at COMMIT find their row as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_retl.connectors.sql_database import Change, Database
from dagster_retl.connectors.sql_drivers import adaptation
from dagster_retl.connectors.sql_tables import Column, Table
from dagster_retl.connectors.sql_types import Coercion, CoercionError, coercion
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault, Operation, Row, RowResult

_ISOLATED = (Action.REJECT, Action.SPLIT)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A row whose values are what the driver takes; `columns` names them."""

    key: str
    columns: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """How the values of one field reach its column."""

    field: str
    column: str
    fit: Coercion
    adapt: Coercion

    def take(self, value: Any) -> Any:
        if value is None:
            return None
        try:
            return self.adapt(self.fit(value))
        except CoercionError as error:
            raise CoercionError(f"field {self.field!r}: {error}") from None


def _cell(field: str, column: Column, dialect: str) -> _Cell:
    return _Cell(field, column.name, coercion(column.type), adaptation(dialect, column.type))


def _require_writable(table: Table, column: Column) -> None:
    if column.computed:
        message = f"column {column.name!r} of table {str(table.name)!r} is computed by the database"
        raise DestinationError(message, code=ErrorCode.SCHEMA_DRIFT, hint="Remove it from the mappings.")


class BatchWriter:
    """One batch on its way into one table. `write` answers every row exactly once."""

    def __init__(self, database: Database, table: Table, batch: Batch) -> None:
        self._database = database
        self._table = table
        self._batch = batch
        self._operation = batch.operation
        self._keys = tuple(table.column(field).name for field in batch.key_fields)
        self._cells: dict[str, _Cell] = {}
        self._faults: dict[str, Fault] = {}
        self._accepted: set[str] = set()

    def write(self) -> list[RowResult]:
        """Write all rows. Raises `DestinationError` only while no row was accepted."""
        prepared = [ready for row in self._batch.rows if (ready := self._prepare(row))]
        self._deliver(prepared)
        return [RowResult(row.key, self._faults.get(row.key)) for row in self._batch.rows]

    def _prepare(self, row: Row) -> _Prepared | None:
        given = self._given(row)
        try:
            cells = [self._cell(field) for field in given]
            values = tuple(cell.take(value) for cell, value in zip(cells, given.values(), strict=True))
        except CoercionError as error:
            self._faults[row.key] = Fault(ErrorCode.TYPE_COERCION, str(error))
            return None
        return _Prepared(row.key, tuple(cell.column for cell in cells), values)

    def _given(self, row: Row) -> Mapping[str, Any]:
        if self._operation is Operation.DELETE:  # of a removed row only the key is left
            return {field: row.values.get(field, value) for field, value in row.key_values.items()}
        return {**row.key_values, **row.values}

    def _cell(self, field: str) -> _Cell:
        if field not in self._cells:
            column = self._table.column(field)
            if self._operation in (Operation.INSERT, Operation.UPSERT) or column.name not in self._keys:
                _require_writable(self._table, column)
            self._cells[field] = _cell(field, column, self._database.dialect)
        return self._cells[field]

    def _deliver(self, rows: Sequence[_Prepared]) -> None:
        pending = [rows] if rows else []
        while pending:
            piece = pending.pop()
            try:
                self._apply(piece)
            except DestinationError as error:
                if ACTIONS[error.code] not in _ISOLATED:
                    self._interrupt(error, piece, pending)
                    return
                pending += self._isolate(piece, error)
            else:
                self._accepted.update(row.key for row in piece)

    def _isolate(self, piece: Sequence[_Prepared], error: DestinationError) -> list[Sequence[_Prepared]]:
        if len(piece) == 1:
            self._faults[piece[0].key] = Fault(error.code, error.message, error.vendor_code)
            return []
        middle = len(piece) // 2
        return [piece[middle:], piece[:middle]]

    def _interrupt(
        self, error: DestinationError, piece: Sequence[_Prepared], pending: Sequence[Sequence[_Prepared]]
    ) -> None:
        """The database went away in the middle: what was committed stays answered."""
        if not self._accepted:
            raise error
        code = ErrorCode.UNKNOWN_OUTCOME if error.ambiguous else error.code
        self._faults |= {row.key: Fault(code, error.message, error.vendor_code) for row in piece}
        waiting = [row for rows in pending for row in rows]
        self._faults |= {row.key: Fault(error.code, error.message, error.vendor_code) for row in waiting}

    def _apply(self, piece: Sequence[_Prepared]) -> None:
        try:
            self._database.apply(self._changes(piece, creating=False))
        except DestinationError as error:
            if not (len(piece) == 1 and self._operation is Operation.UPSERT and error.code is ErrorCode.NOT_FOUND):
                raise
            # The record does not exist: let the database say whether it can be created from these fields.
            self._database.apply(self._changes(piece, creating=True))

    def _changes(self, piece: Sequence[_Prepared], *, creating: bool) -> list[Change]:
        groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
        for row in piece:
            groups[row.columns].append(row.values)
        return [
            Change(self._table, self._operation_for(columns, creating), columns, self._keys, rows)
            for columns, rows in groups.items()
        ]

    def _operation_for(self, columns: Sequence[str], creating: bool) -> Operation:
        """An upsert that leaves out a required column can only update.

        An INSERT … ON CONFLICT is refused for the missing column even where the record exists.
        """
        partial = self._operation is Operation.UPSERT and not self._table.required.issubset(columns)
        return Operation.UPDATE if partial and not creating else self._operation
