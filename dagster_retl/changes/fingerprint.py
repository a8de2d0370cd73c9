"""Fingerprints: 128 bits that stand for what a row would send.

The fingerprint is the MD5 of a canonical text of the mapped row, computed by DuckDB and kept as a
UUID. It is kept for years, so the text is ours, and versioned: it never rests on DuckDB's `hash()`
or on the JSON that some version of it writes. The text of version 1 is

    1:<MD5 of the field names>:<value of each field, in order of the names>

where every value is a code that tells where it ends, so that no two rows share a text:

    N  O                    null; null of a field that is omitted when null (it sends something else)
    T  F                    booleans
    42.n  -0.5n             integers and decimals, one family: the digits without trailing zeros
    1.5f  nanf              floats, widened to 64 bits; -0.0 is 0.0
    5s<5 bytes>             text, after its length in UTF-8 (UUIDs and intervals too)
    7j<7 bytes>             JSON text
    x<hex>;                 bytes
    19000d                  dates, in days since 1970
    60000000t               times, in microseconds
    <µs>u  <µs>z            timestamps without and with zone, in microseconds since 1970
    2l<a><b>                lists, after their length
    {<name><value>...}      structs, in order of the names, each written as text
    2m<key><value>...       maps, sorted

Nanoseconds, where there are any, follow the microseconds as `.<ns>`; an infinite timestamp is
`infinity`. The type is part of the value and not of the field: a column that was empty, and so had
no type of its own, does not change every row when its first value comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types as kinds

from dagster_retl.errors import ConfigurationError, StoreError
from dagster_retl.model.rows import FieldType
from dagster_retl.model.sql_text import decimal_text, identifier, is_bytes, is_list, is_span, is_text, literal

FINGERPRINT_VERSION = 1
"""The canonical text that new fingerprints are made of."""


def fingerprint_sql(fields: Sequence[FieldType], version: int = FINGERPRINT_VERSION) -> str:
    """A DuckDB expression of type UUID over columns named as `fields`, in any order.

    `version` is that of the snapshot to compare with. Raises `StoreError` for a version that this
    release does not know, `ConfigurationError` for a type that has no canonical text.
    """
    # md5_number takes half the time of md5; the UUID is the digest's bytes from last to first.
    return f"md5_number({canonical_sql(fields, version)})::UUID"


def canonical_sql(fields: Sequence[FieldType], version: int = FINGERPRINT_VERSION) -> str:
    """A DuckDB expression of type VARCHAR: the text whose MD5 is the fingerprint."""
    if version != FINGERPRINT_VERSION:
        raise StoreError(
            f"the snapshot holds fingerprints of version {version}; this release knows version {FINGERPRINT_VERSION}",
            hint="use the release that wrote the snapshot, or a later one",
        )
    ordered = sorted(fields, key=lambda field: field.name)
    header = f"{version}:{_names_digest(ordered)}:"
    return f"concat({', '.join([literal(header), *map(_field, ordered)])})"


def _names_digest(fields: Sequence[FieldType]) -> str:
    text = "".join(_text_code(field.name) for field in fields)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _text_code(text: str) -> str:
    return f"{len(text.encode())}s{text}"


def _field(field: FieldType) -> str:
    null = "O" if field.omit_null else "N"
    return f"coalesce({_code(field.arrow_type, identifier(field.name), 0)}, '{null}')"


def _code(kind: Any, value: str, depth: int) -> str:
    """SQL for the code of a value; NULL for a null. `depth` keeps the names of lambdas apart."""
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(kind, value, depth)
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return _code(kind.value_type, value, depth)
    for matches, encode in _SCALARS:
        if matches(kind):
            return encode(kind, value)
    for matches, encode_nested in _NESTED:
        if matches(kind):
            return encode_nested(kind, value, depth)
    raise ConfigurationError(
        f"a value of type {kind} cannot be compared from run to run", hint="cast it to another type in the mapping"
    )


def _extension(kind: Any, value: str, depth: int) -> str:
    if kind.extension_name == "arrow.json":
        return _measured(value, "j")
    if kind.extension_name == "arrow.uuid":
        return _measured(value, "s")
    if kind.extension_name == "arrow.bool8":
        return _boolean(kind, value)
    return _code(kind.storage_type, value, depth)


def _measured(value: str, tag: str) -> str:
    text = f"{value}::VARCHAR"
    return f"strlen({text})::VARCHAR || '{tag}' || {text}"


def _null(kind: Any, value: str) -> str:
    return "NULL::VARCHAR"


def _boolean(kind: Any, value: str) -> str:
    return f"CASE {value} WHEN true THEN 'T' WHEN false THEN 'F' END"


def _integer(kind: Any, value: str) -> str:
    return f"{value}::VARCHAR || '.n'"


def _decimal(kind: Any, value: str) -> str:
    if kind.scale == 0:
        return _integer(kind, value)
    return f"rtrim({decimal_text(kind, value)}, '0') || 'n'"


def _float(kind: Any, value: str) -> str:
    number = f"({value}::DOUBLE + 0.0::DOUBLE)::VARCHAR"  # -0.0 + 0.0 is 0.0
    return f"CASE WHEN isnan({value}) THEN 'nanf' ELSE {number} || 'f' END"


def _string(kind: Any, value: str) -> str:
    return _measured(value, "s")


def _binary(kind: Any, value: str) -> str:
    return f"'x' || hex({value}) || ';'"


def _date(kind: Any, value: str) -> str:
    return f"({value} - DATE '1970-01-01')::VARCHAR || 'd'"


def _time(kind: Any, value: str) -> str:
    micros = _split_nanos(f"epoch_ns({value})") if kind.unit == "ns" else f"epoch_us({value})::VARCHAR"
    return f"{micros} || 't'"


def _timestamp(kind: Any, value: str) -> str:
    if kind.unit == "ns":
        micros = _split_nanos(f"epoch_ns({value})")
    elif kind.tz is None:
        micros = f"epoch_us({value}::TIMESTAMP)::VARCHAR"
    else:
        micros = f"epoch_us({value})::VARCHAR"
    # An infinite timestamp has no epoch, and must not look like a null.
    return f"coalesce({micros}, {value}::VARCHAR) || '{'u' if kind.tz is None else 'z'}'"


def _split_nanos(nanos: str) -> str:
    rest = f"{nanos} % 1000"
    return f"(({nanos} // 1000)::VARCHAR || CASE WHEN {rest} = 0 THEN '' ELSE '.' || ({rest})::VARCHAR END)"


def _element(kind: Any, value: str, depth: int) -> str:
    return f"coalesce({_code(kind, value, depth)}, 'N')"


def _joined(codes: str) -> str:
    return f"coalesce(list_aggregate({codes}, 'string_agg', ''), '')"


def _list(kind: Any, value: str, depth: int) -> str:
    item = f"e{depth}"
    codes = f"list_transform({value}, lambda {item}: {_element(kind.value_type, item, depth + 1)})"
    return f"len({value})::VARCHAR || 'l' || {_joined(codes)}"


def _map(kind: Any, value: str, depth: int) -> str:
    item = f"e{depth}"
    key = _element(kind.key_type, f"{item}.key", depth + 1)
    content = _element(kind.item_type, f"{item}.value", depth + 1)
    codes = f"list_sort(list_transform(map_entries({value}), lambda {item}: {key} || {content}))"
    return f"cardinality({value})::VARCHAR || 'm' || {_joined(codes)}"


def _struct(kind: Any, value: str, depth: int) -> str:
    parts = [literal("{")]
    for member in sorted(kind, key=lambda member: member.name):
        parts.append(literal(_text_code(member.name)))
        parts.append(_element(member.type, f"struct_extract({value}, {literal(member.name)})", depth))
    return f"CASE WHEN {value} IS NOT NULL THEN concat({', '.join(parts)}, '}}') END"


_SCALARS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], str]], ...] = (
    (is_text, _string),
    (kinds.is_integer, _integer),
    (kinds.is_decimal, _decimal),
    (kinds.is_timestamp, _timestamp),
    (kinds.is_boolean, _boolean),
    (kinds.is_date, _date),
    (kinds.is_floating, _float),
    (kinds.is_time, _time),
    (is_bytes, _binary),
    (kinds.is_null, _null),
    (is_span, _string),
)

_NESTED: tuple[tuple[Callable[[Any], bool], Callable[[Any, str, int], str]], ...] = (
    (is_list, _list),
    (kinds.is_struct, _struct),
    (kinds.is_map, _map),
)
