"""How each type of Postgres is read: its Arrow type, and the SQL that makes it arrive exactly.

The same plan serves both drivers, so that their extracts are equal. What Arrow has no exact type for
is cast to text by the server, in the server's own spelling. Type modifiers: a numeric's precision and
scale stand in 16 bits each, the scale signed in 11 (https://www.postgresql.org/docs/current/datatype-numeric.html).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

_NUMERIC, _NUMERIC_ARRAY, _MONEY, _OID, _INET = 1700, 1231, 790, 26, 869
_MAX_DIGITS = 38
"""Digits of a decimal that Arrow's decimal128 and DuckDB hold."""

_NATIVE = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    25: pa.string(),
    700: pa.float32(),
    701: pa.float64(),
    1042: pa.string(),
    1043: pa.string(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
_NATIVE_ARRAYS = {
    1000: 16,
    1001: 17,
    1005: 21,
    1007: 23,
    1009: 25,
    1014: 1042,
    1015: 1043,
    1016: 20,
    1021: 700,
    1022: 701,
    1115: 1114,
    1182: 1082,
    1183: 1083,
    1185: 1184,
}
KNOWN_TYPES = frozenset({*_NATIVE, *_NATIVE_ARRAYS, _NUMERIC, _NUMERIC_ARRAY, _MONEY, _OID, _INET})
"""Object ids of the types that are planned for here; of others only the catalog knows whether they are arrays."""


@dataclass(frozen=True, slots=True)
class PostgresColumn:
    """A column of a query.

    cast: SQL that makes it arrive exactly, `{}` being the column. arrow_type: what it becomes. text: it
    arrives as decimal text. measured: a numeric without precision or scale, whose digits the data decides.
    array: of one dimension, or the server refuses it.
    """

    name: str
    cast: str
    arrow_type: pa.DataType
    text: bool = False
    measured: bool = False
    array: bool = False

    def expression(self, place: int) -> str:
        column = f"c{place}"
        value = _one_dimension(column, self.name) if self.array else column
        return f"{self.cast.format(value)} AS {quoted(self.name)}"


_CAST: dict[int, Callable[[str], PostgresColumn]] = {
    _OID: lambda name: PostgresColumn(name, "{}::int8", pa.int64()),
    _INET: lambda name: PostgresColumn(name, "abbrev({})", pa.string()),  # ::text would add /32 to an address
    _MONEY: lambda name: PostgresColumn(name, "{}::numeric::text", pa.string(), text=True, measured=True),
}


def _as_text(name: str) -> PostgresColumn:
    return PostgresColumn(name, "{}::text", pa.string())


def quoted(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def column_of(name: str, oid: int, modifier: int, *, is_array: bool) -> PostgresColumn:
    """The plan for a column of type `oid` with type modifier `modifier`."""
    if oid in _NATIVE:
        return PostgresColumn(name, "{}", _NATIVE[oid])
    if oid in _NATIVE_ARRAYS:
        return PostgresColumn(name, "{}", pa.list_(_NATIVE[_NATIVE_ARRAYS[oid]]), array=True)
    if oid == _NUMERIC:
        known = _decimal(modifier)
        return PostgresColumn(name, "{}::text", known or pa.string(), text=True, measured=known is None)
    if oid == _NUMERIC_ARRAY:
        known = _decimal(modifier)
        return PostgresColumn(name, "{}::text[]", pa.list_(known or pa.string()), text=known is not None, array=True)
    if is_array:
        return PostgresColumn(name, "{}::text[]", pa.list_(pa.string()), array=True)
    return _CAST.get(oid, _as_text)(name)


def _decimal(modifier: int) -> pa.DataType | None:
    """`numeric(p, s)` as Arrow's; None where neither is declared, or where it is wider than 38 digits."""
    if modifier < 0:
        return None
    precision = (modifier - 4) >> 16 & 0xFFFF
    scale = ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    digits = max(precision, scale, precision - scale)  # the scale may be negative, or exceed the precision
    return pa.decimal128(digits, max(scale, 0)) if digits <= _MAX_DIGITS else None


def decimal_for(whole_digits: int, scale: int) -> pa.DataType | None:
    """The decimal that holds so many digits before and after the point; None when there is none."""
    return pa.decimal128(_MAX_DIGITS, scale) if whole_digits + scale <= _MAX_DIGITS else None


def select(columns: Sequence[PostgresColumn], sql: str) -> str:
    """The query, every column cast as planned."""
    if all(column.cast == "{}" and not column.array for column in columns):
        return sql
    return f"SELECT {', '.join(c.expression(i) for i, c in enumerate(columns))} FROM {_source(columns, sql)}"


def measure(columns: Sequence[PostgresColumn], sql: str) -> str:
    """A query for, of each measured column, the longest scale and the digits of the largest whole part."""
    parts = []
    for i, column in enumerate(columns):
        if column.measured:
            value = f"c{i}::numeric"
            finite = f"FILTER (WHERE scale({value}) IS NOT NULL)"  # NaN and infinity have no scale
            parts += [
                f"coalesce(max(scale({value})), 0) AS s{i}",
                f"coalesce(length(max(trunc(abs({value}))) {finite} ::text), 0) AS w{i}",
            ]
    return f"SELECT {', '.join(parts)} FROM {_source(columns, sql)}"


def _source(columns: Sequence[PostgresColumn], sql: str) -> str:
    return f"(\n{sql}\n) AS retl_query({', '.join(f'c{i}' for i in range(len(columns)))})"


def _one_dimension(column: str, name: str) -> str:
    """The array itself, or an error that names it: ADBC would flatten an array of several dimensions.

    A type cannot say the number of dimensions, and SQL has no RAISE: the message is a number that is none.
    """
    message = f"column {name} holds an array of several dimensions: cast it to text or JSON".replace("'", "''")
    lower = f"(array_ndims({column}) || ' {message}')::int"
    return f"(CASE WHEN array_ndims({column}) > 1 THEN ({column})[{lower}:1] ELSE {column} END)"
