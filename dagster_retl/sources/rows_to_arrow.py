"""Rows of a database driver as Arrow, with a schema that is fixed before the first block.

Drivers say little about types. What they say is believed; otherwise the first block decides. A later
value that does not fit fails the read with the column's name: it is never rounded and never dropped.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from dagster_retl.errors import SourceError

_MAX_DIGITS = 38
_INT64 = range(-(2**63), 2**63)

_BY_CLASS: tuple[tuple[type, pa.DataType], ...] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (str, pa.string()),
    (bytes, pa.binary()),
    (bytearray, pa.binary()),
    (memoryview, pa.binary()),
    (dt.datetime, pa.timestamp("us")),
    (dt.date, pa.date32()),
    (dt.time, pa.time64("us")),
)


_EXACT_CLASSES: dict[int, tuple[type, ...]] = {
    pa.int64().id: (int,),
    pa.float64().id: (float, int),
    pa.decimal128(1).id: (Decimal, int),
    pa.date32().id: (dt.date,),
    pa.time64("us").id: (dt.time,),
    pa.timestamp("us").id: (dt.datetime,),
}
"""The Python classes that Arrow turns into these types without loss, or refuses."""


_WITHOUT_ZONE = (pa.timestamp("us"), pa.time64("us"))


def infer(values: Iterable[Any]) -> pa.DataType:
    """The type that holds all these values exactly; text where there is none, or where all are null."""
    present = [value for value in values if value is not None]
    kinds = {_class_type(value) for value in present}
    if kinds == {pa.decimal128(_MAX_DIGITS)}:
        return decimal_of(present)
    if len(kinds) != 1:
        return pa.string()
    kind = kinds.pop()
    return pa.string() if kind == pa.int64() and any(value not in _INT64 for value in present) else kind


def _class_type(value: Any) -> pa.DataType:
    if isinstance(value, Decimal):
        return pa.decimal128(_MAX_DIGITS)
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return pa.timestamp("us", "UTC")
    return next((kind for known, kind in _BY_CLASS if isinstance(value, known)), pa.string())


def decimal_of(values: Sequence[Decimal]) -> pa.DataType:
    """A decimal of 38 digits that holds all values; text where there is none (NaN, more digits)."""
    if not all(value.is_finite() for value in values):
        return pa.string()
    scale = max(max(0, -int(value.as_tuple().exponent)) for value in values)
    whole = max(value.adjusted() + 1 for value in values)
    return pa.decimal128(_MAX_DIGITS, scale) if max(whole, 0) + scale <= _MAX_DIGITS else pa.string()


def text_of(value: Any) -> str | None:
    """A value as text: JSON for containers, `HH:MM:SS` for durations, the shortest exact form for numbers."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8")
    if isinstance(value, (dict, list, tuple)):
        return orjson.dumps(value, default=str).decode()
    if isinstance(value, dt.timedelta):
        return _clock(value)
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


def _clock(value: dt.timedelta) -> str:
    sign = "-" if value < dt.timedelta(0) else ""
    seconds, fraction = divmod(abs(value), dt.timedelta(seconds=1))
    clock = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{clock}.{fraction.microseconds:06}" if fraction else clock


def _binary(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else bytes(value)


def _boolean(value: Any) -> bool | None:
    return bool(value) if value in (0, 1) else value


def _converter(kind: pa.DataType) -> Callable[[Any], Any] | None:
    if pa.types.is_string(kind):
        return text_of
    if pa.types.is_binary(kind):
        return _binary
    return _boolean if pa.types.is_boolean(kind) else None


def _refuse_lossy(values: Sequence[Any], kind: pa.DataType) -> None:
    """Refuse what Arrow would silently cut: the fraction of a number, the time of a date, the zone of a time."""
    allowed = _EXACT_CLASSES.get(kind.id, (object,))
    for found in set(map(type, values)) - {type(None)}:
        if not issubclass(found, allowed) or (found is dt.datetime and pa.types.is_date32(kind)):
            raise TypeError(f"a value of type {found.__name__}")
    if pa.types.is_float64(kind) and any(isinstance(value, int) and int(float(value)) != value for value in values):
        raise ValueError("an integer that a double cannot hold")
    if kind in _WITHOUT_ZONE and any(value is not None and value.tzinfo is not None for value in values):
        raise TypeError("a value with a time zone")


def to_array(name: str, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values of a column as Arrow. Raises `SourceError` for a value that does not fit `kind`."""
    convert = _converter(kind)
    try:
        if convert is None:
            _refuse_lossy(values, kind)
        return pa.array(map(convert, values) if convert else values, kind, size=len(values))
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise SourceError(
            f"column {name!r} was taken for {kind}, and a later value does not fit: {error}",
            hint="Cast the column in the query, to one type for all rows.",
        ) from error


def to_block(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as a block of `schema`."""
    columns = zip(*rows, strict=True)
    arrays = [to_array(field.name, values, field.type) for field, values in zip(schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
