"""Parquet: rows as typed columns.

The types are those of the sender's columns, where it keeps rows so. Otherwise they follow from the values: integers of
64 bits, decimals of 38 digits (76 where they need more), microseconds, structs, lists and maps. What Parquet has no
type for, and columns whose values are of several kinds, are text, as in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as kinds

from dagster_retl.connectors.files_csv import parse, text_of
from dagster_retl.connectors.files_rows import OPERATION, column_names, require_free
from dagster_retl.model.rows import Batch

_DIGITS = (38, 76)
"""How many a decimal may have: of 128 bits, and of 256."""


def parquet(batch: Batch, codec: str, *, operation_column: bool) -> bytes:
    """A file of all rows of a batch. Raises `DestinationError` as `require_free` does."""
    table = _from_columns(batch) if batch.columns is not None else _from_values(batch)
    if operation_column:
        require_free(batch, table.column_names)
        operations = pa.array([batch.operation.value] * table.num_rows, pa.string())
        table = table.add_column(0, OPERATION, operations)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=codec)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _from_columns(batch: Batch) -> pa.Table:
    columns = {
        name: column if _storable(column.type) else _texts(batch, name)
        for name, column in zip(batch.columns.column_names, batch.columns.columns, strict=True)
    }
    return pa.table(columns)


def _storable(kind: Any) -> bool:
    """Whether Parquet has a type for it that other programs read."""
    if isinstance(kind, pa.BaseExtensionType):
        return _storable(kind.storage_type)
    if kinds.is_nested(kind):
        parts = [kind.field(number) for number in range(kind.num_fields)]
        return bool(parts) and not kinds.is_union(kind) and all(_storable(part.type) for part in parts)
    return not (kinds.is_null(kind) or kinds.is_duration(kind) or kinds.is_interval(kind))


def _from_values(batch: Batch) -> pa.Table:
    rows = [row.values for row in batch.rows]
    return pa.table({name: _column(batch, name, [row.get(name) for row in rows]) for name in column_names(batch, rows)})


def _column(batch: Batch, name: str, values: Sequence[Any]) -> Any:
    try:
        return _array(values, _type(values) or pa.string())
    except _NoTypeError:
        return _texts(batch, name)


def _texts(batch: Batch, name: str) -> Any:
    values = [parse(document).get(name) for document in batch.documents]
    return pa.array([None if value is None else text_of(value) for value in values], pa.string())


def _array(values: Sequence[Any], kind: Any) -> Any:
    if isinstance(kind, pa.UuidType):
        stored = [value and value.bytes for value in values]
        return pa.ExtensionArray.from_storage(kind, pa.array(stored, kind.storage_type))
    return pa.array(values, kind)


class _NoTypeError(Exception):
    """There is no type that all values are of."""


def _type(values: Sequence[Any]) -> Any:
    """The Arrow type of values; None where all of them are null. Raises `_NoTypeError`."""
    present = [value for value in values if value is not None]
    families = {_family(value) for value in present}
    if families == {int, Decimal}:
        families = {Decimal}
    if len(families) > 1:
        raise _NoTypeError
    return next((_TYPES[family](present) for family in families), None)


def _family(value: Any) -> type:
    """The first type that a value is of. Raises `_NoTypeError`."""
    for family in _TYPES:
        if isinstance(value, family):
            return family
    raise _NoTypeError


def _always(kind: Any) -> Callable[[Sequence[Any]], Any]:
    return lambda values: kind


def _of_integers(values: Sequence[int]) -> Any:
    if all(-(2**63) <= value < 2**63 for value in values):
        return pa.int64()
    return _of_numbers(values)


def _of_numbers(values: Sequence[Decimal | int]) -> Any:
    """Integers and decimals: the places of all that have most of them."""
    parts = [Decimal(value).as_tuple() for value in values]
    exponents = [part.exponent for part in parts if isinstance(part.exponent, int)]
    if len(exponents) < len(parts):  # NaN, infinite
        raise _NoTypeError
    scale = max(0, *(-exponent for exponent in exponents))
    digits = scale + max(len(part.digits) + exponent for part, exponent in zip(parts, exponents, strict=True))
    precision = next((most for most in _DIGITS if max(digits, scale) <= most), None)
    if precision is None:
        raise _NoTypeError
    return (pa.decimal128 if precision == _DIGITS[0] else pa.decimal256)(precision, scale)


def _of_times(values: Sequence[datetime]) -> Any:
    zoned = {value.tzinfo is not None for value in values}
    if len(zoned) > 1:
        raise _NoTypeError
    unit = "ns" if any(getattr(value, "nanosecond", 0) for value in values) else "us"  # pandas' have nanoseconds
    return pa.timestamp(unit, tz="UTC" if zoned == {True} else None)


def _of_structs(values: Sequence[Mapping[str, Any]]) -> Any:
    names = dict.fromkeys(chain.from_iterable(values))
    if not names:  # Parquet has no struct without parts
        raise _NoTypeError
    return pa.struct([(name, _part([value.get(name) for value in values])) for name in names])


def _of_lists(values: Sequence[Sequence[Any]]) -> Any:
    """A list of pairs is what pyarrow makes of a map."""
    items = list(chain.from_iterable(values))
    if items and all(isinstance(item, tuple) for item in items):
        return pa.map_(_part([key for key, _ in items]), _part([value for _, value in items]))
    return pa.list_(_part(items))


def _part(values: Sequence[Any]) -> Any:
    kind = _type(values)
    if isinstance(kind, pa.UuidType):  # inside of others, it cannot be made of Python's
        raise _NoTypeError
    return kind or pa.string()


_TYPES: Mapping[type, Callable[[Any], Any]] = {
    bool: _always(pa.bool_()),
    int: _of_integers,
    Decimal: _of_numbers,
    float: _always(pa.float64()),
    str: _always(pa.string()),
    bytes: _always(pa.binary()),
    datetime: _of_times,
    date: _always(pa.date32()),
    time: _always(pa.time64("us")),
    UUID: _always(pa.uuid()),
    dict: _of_structs,
    list: _of_lists,
}
"""In this order: a `bool` is an `int`, too, and a `datetime` is a `date`."""
