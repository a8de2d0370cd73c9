"""Mappings, compiled against the columns of a query, and applied to its rows block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dagster_retl.errors import ConfigurationError, SourceError
from dagster_retl.mapping.canonical import canonical_sql
from dagster_retl.mapping.columns import JSON, Columns, plain, readable, to_plain
from dagster_retl.mapping.computation import Computation, Computed, compute
from dagster_retl.mapping.constants import Constant, default_scalar, fill
from dagster_retl.mapping.expression import Expression, column_expression, parse_expression
from dagster_retl.mapping.sandbox import Sandbox
from dagster_retl.model.rows import FieldType
from dagster_retl.model.sync import FieldMapping

ERROR_FIELD = "_error_field"
ERROR = "_error"


@dataclass(frozen=True, slots=True)
class _Copied:
    """A column that goes on as it is, or in the same values of another type."""

    number: int
    arrow_type: pa.DataType


@dataclass(frozen=True, slots=True)
class _Field:
    """A field, where its value comes from, what replaces its nulls, and the columns that it reads."""

    type: FieldType
    origin: Constant | _Copied | Computation
    default: Any
    reads: tuple[int, ...]


class CompiledMapping:
    """A sync's mappings for one query. For one thread; close it, or use it in a `with`.

    fields: the destination fields in order, with their types. sources: the columns that each reads.
    """

    def __init__(self, columns: Columns, fields: Sequence[_Field], sandbox: Sandbox) -> None:
        self.fields: tuple[FieldType, ...] = tuple(each.type for each in fields)
        self.sources: Mapping[str, tuple[str, ...]] = {
            each.type.name: tuple(columns.names[number] for number in each.reads) for each in fields
        }
        self._columns = columns
        self._fields = fields
        self._sandbox = sandbox
        self._computations = [each.origin for each in fields if isinstance(each.origin, Computation)]
        self._inputs = _inputs(fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sandbox; a second time does nothing."""
        self._sandbox.close()

    def apply(self, block: pa.RecordBatch) -> pa.Table:
        """The mapped rows: a column for each field, then `_error_field` and `_error`.

        A row whose expression failed has null in that field; `_error_field` names the first such
        field and `_error` says why, without any value of the row. Both are null for other rows.
        Raises `SourceError` where the block does not have the columns that the mapping was made for.
        """
        self._require(block.schema)
        computed = self._compute(block)
        values = []
        failures = _Failures(block.num_rows)
        for each in self._fields:
            result = self._result(each, block, computed)
            values.append(_with_default(result, each.default))
            failures.add(each.type.name, result)
        arrays = [*values, failures.field, failures.reason]
        schema = pa.schema([*((each.name, each.arrow_type) for each in self.fields), *_ERRORS])
        return pa.Table.from_arrays(arrays, schema=schema)

    def _require(self, schema: pa.Schema) -> None:
        expected = self._columns.schema
        if schema.names != expected.names or schema.types != expected.types:
            raise SourceError(
                f"the columns of the query changed while it was read: {_differences(expected, schema)}",
                hint="Cast the column in the query, so that its type does not depend on the rows.",
            )

    def _compute(self, block: pa.RecordBatch) -> dict[str, Computed]:
        if not self._computations:
            return {}
        rows = _sandbox_rows(self._columns, self._inputs, block.columns, block.num_rows)
        results = compute(self._computations, rows, self._sandbox)
        return {each.destination: result for each, result in zip(self._computations, results, strict=True)}

    def _result(self, each: _Field, block: pa.RecordBatch, computed: Mapping[str, Computed]) -> Computed:
        if isinstance(each.origin, Constant):
            return Computed(each.origin.array(block.num_rows))
        if isinstance(each.origin, _Copied):
            return Computed(to_plain(block.column(each.origin.number), each.origin.arrow_type))
        return computed[each.type.name]


_ERRORS = ((ERROR_FIELD, pa.string()), (ERROR, pa.string()))


class _Failures:
    """The first failing field of each row, and why it failed."""

    def __init__(self, rows: int) -> None:
        self.field: Any = pa.nulls(rows, pa.string())
        self.reason: Any = pa.nulls(rows, pa.string())

    def add(self, name: str, result: Computed) -> None:
        if result.failing is None:
            return
        first = pc.and_(result.failing, pc.is_null(self.field))
        self.field = pc.if_else(first, name, self.field)
        self.reason = pc.if_else(first, result.reasons, self.reason)


def compile_mapping(mappings: Sequence[FieldMapping], columns: pa.Schema) -> CompiledMapping:
    """Compile mappings against the columns of a query.

    Raises `SourceError` (`SOURCE_COLUMN_MISSING`) for a column that the query does not have, and
    `ConfigurationError` for an expression that may not run, an ambiguous column, a constant or
    default that cannot be a value of its field, or fields that differ by case only.
    """
    _require_names([mapping.destination for mapping in mappings])
    known = Columns(columns)
    sandbox = Sandbox()
    try:
        fields = [_Compiler(known, sandbox).field(mapping) for mapping in mappings]
        return CompiledMapping(known, fields, sandbox)
    except BaseException:
        sandbox.close()
        raise


def _require_names(names: Sequence[str]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        if name in (ERROR_FIELD, ERROR):
            raise ConfigurationError(f"no field can be named {name!r}", hint="Give the destination field another name.")
        other = folded.setdefault(name.casefold(), name)
        if other is not name:
            raise ConfigurationError(
                f"fields {other!r} and {name!r} differ by case only", hint="Map one of them, or rename it."
            )


@dataclass(frozen=True, slots=True)
class _Compiler:
    columns: Columns
    sandbox: Sandbox

    def field(self, mapping: FieldMapping) -> _Field:
        origin, reads = self._origin(mapping)
        default = None
        if mapping.default is not None:
            default = default_scalar(mapping.default, origin.arrow_type, mapping.destination)
        kind = FieldType(mapping.destination, origin.arrow_type, mapping.key, mapping.on_null == "omit")
        return _Field(kind, origin, default, reads)

    def _origin(self, mapping: FieldMapping) -> tuple[Constant | _Copied | Computation, tuple[int, ...]]:
        if mapping.source is None:
            return Constant(mapping.value, mapping.destination), ()
        expression = self._expression(mapping.source, mapping.destination)
        if expression.bare:
            number = expression.columns[0]
            kind = plain(self.columns.schema.field(number).type)
            if kind is not None:
                return _Copied(number, kind), expression.columns
        return self._computation(expression, mapping.destination), expression.columns

    def _expression(self, source: str, destination: str) -> Expression:
        number = self.columns.find(source)
        if number is not None:
            return column_expression(number, self.columns)
        return parse_expression(source, destination, self.columns, self.sandbox)

    def _computation(self, expression: Expression, destination: str) -> Computation:
        empty = [pa.array([], kind) for kind in self.columns.schema.types]
        try:
            rows = _sandbox_rows(self.columns, expression.columns, empty, 0)
            sql, is_json = canonical_sql(expression.sql, self.sandbox.types([expression.sql], rows)[0])
            kind = self.sandbox.evaluate([sql], rows).schema.field(0).type
        except (duckdb.Error, pa.ArrowException) as error:
            reads = ", ".join(
                f"{self.columns.names[number]} {self.columns.schema.field(number).type}"
                for number in expression.columns
            )
            raise ConfigurationError(
                f"field {destination!r}: its source cannot be computed: {str(error).partition('LINE 1:')[0].strip()}",
                hint=f"It reads {reads}." if reads else None,
            ) from error
        return Computation(destination, sql, JSON if is_json else kind)


def _inputs(fields: Sequence[_Field]) -> tuple[int, ...]:
    """The columns that expressions read."""
    numbers = {number for each in fields if isinstance(each.origin, Computation) for number in each.reads}
    return tuple(sorted(numbers))


def _sandbox_rows(columns: Columns, numbers: Sequence[int], values: Sequence[Any], rows: int) -> pa.Table:
    """The columns that expressions read, under their aliases and in types that DuckDB takes.

    An expression of constants reads none; it needs as many rows all the same.
    """
    arrays = [readable(values[number]) for number in numbers]
    names = [columns.aliases[number] for number in numbers]
    if not arrays:
        return pa.table({"row": pa.nulls(rows, pa.int8())})
    return pa.Table.from_arrays(arrays, names=names)


def _with_default(result: Computed, default: Any) -> Any:
    if default is None:
        return result.values
    filled = fill(result.values, default)
    return filled if result.failing is None else pc.if_else(result.failing, pa.scalar(None, filled.type), filled)


def _differences(expected: pa.Schema, found: pa.Schema) -> str:
    before, after = ([f"{each.name} {each.type}" for each in schema] for schema in (expected, found))
    return f"{[each for each in before if each not in after]} became {[each for each in after if each not in before]}"
