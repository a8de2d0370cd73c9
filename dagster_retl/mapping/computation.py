"""Computing expressions over a block of rows, so that a row that fails is a row and not the block.

A block is computed plainly first, which is fast. Only when that fails, each expression is computed
again under DuckDB's `TRY`, inside a struct that tells a failure (no struct) from a null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dagster_retl.errors import ConfigurationError
from dagster_retl.mapping.columns import JSON, json_array
from dagster_retl.mapping.failures import GENERIC, explain
from dagster_retl.mapping.sandbox import MEMORY_LIMIT, Sandbox

_EXPLAINED_ROWS = 20
"""So many failing rows of a block are computed one by one, to hear why; the others mostly fail for the same reason."""

_ROW_ERRORS = (
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
)
"""What a value can be guilty of."""


@dataclass(frozen=True, slots=True)
class Computation:
    """An expression of a field: `sql` in a type that goes on (`mapping.canonical`), `arrow_type` what it gives."""

    destination: str
    sql: str
    arrow_type: pa.DataType

    @property
    def stored_type(self) -> pa.DataType:
        """The type in the sandbox, where JSON is text."""
        return pa.string() if self.arrow_type.equals(JSON) else self.arrow_type

    def typed(self, values: Any) -> Any:
        """The values of the sandbox with the type of the field."""
        if not self.arrow_type.equals(JSON):
            return values
        return pa.chunked_array([json_array(chunk) for chunk in values.chunks], JSON)


@dataclass(frozen=True, slots=True)
class Computed:
    """failing: true for the rows whose expression failed (their value is null), None without any.

    reasons: why, for those rows.
    """

    values: Any
    failing: Any = None
    reasons: Any = None


def compute(computations: Sequence[Computation], rows: pa.Table, sandbox: Sandbox) -> list[Computed]:
    """The values of each expression for the rows, and the rows where it failed.

    Raises `ConfigurationError` for expressions that take more memory than the sandbox has.
    """
    try:
        return _together(computations, rows, sandbox)
    except duckdb.OutOfMemoryException as error:
        names = ", ".join(repr(each.destination) for each in computations)
        raise ConfigurationError(
            f"the expressions of {names} need more memory than {MEMORY_LIMIT} for {rows.num_rows} rows",
            hint="Compute what is so large in the source query.",
        ) from error


def _together(computations: Sequence[Computation], rows: pa.Table, sandbox: Sandbox) -> list[Computed]:
    try:
        table = sandbox.evaluate([each.sql for each in computations], rows)
    except _ROW_ERRORS:
        return [_one(each, rows, sandbox) for each in computations]
    return [Computed(each.typed(column)) for each, column in zip(computations, table.columns, strict=True)]


def _one(computation: Computation, rows: pa.Table, sandbox: Sandbox) -> Computed:
    try:
        return Computed(computation.typed(sandbox.evaluate([computation.sql], rows).column(0)))
    except _ROW_ERRORS:
        tried = _tried(computation, rows, sandbox)
    failing = pc.is_null(tried)
    values = computation.typed(pc.struct_field(tried, "v"))
    return Computed(values, failing, _reasons(computation, rows, failing, sandbox))


def _tried(computation: Computation, rows: pa.Table, sandbox: Sandbox) -> Any:
    """A struct for each row that can be computed, null for each that fails."""
    try:
        return sandbox.evaluate([f"TRY(struct_pack(v := {computation.sql}\n))"], rows).column(0)
    except _ROW_ERRORS:
        # Some errors (an unknown time zone) are not for TRY to catch: narrow them down to their rows.
        if rows.num_rows == 1:
            return pa.chunked_array([pa.nulls(1, pa.struct([("v", computation.stored_type)]))])
    half = rows.num_rows // 2
    parts = [_tried(computation, part, sandbox) for part in (rows.slice(0, half), rows.slice(half))]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks])


def _reasons(computation: Computation, rows: pa.Table, failing: Any, sandbox: Sandbox) -> Any:
    """A reason for each failing row: its own for the first, and for the rest if those all agree."""
    numbers = np.flatnonzero(failing.to_numpy())
    heard = {int(number): _reason(computation, rows.slice(number, 1), sandbox) for number in numbers[:_EXPLAINED_ROWS]}
    distinct = set(heard.values())
    common = distinct.pop() if len(distinct) == 1 else GENERIC
    return pa.array([heard.get(number, common) for number in range(rows.num_rows)], pa.string())


def _reason(computation: Computation, row: pa.Table, sandbox: Sandbox) -> str:
    try:
        sandbox.evaluate([computation.sql], row)
    except _ROW_ERRORS as error:
        return explain(error)
    return GENERIC
