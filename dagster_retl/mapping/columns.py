"""Columns of the query: finding them by name, and giving their values the types that go on.

What leaves the mapping has few types, each of which DuckDB, Parquet and Arrow hold exactly: no
dictionary, large or view types, no 128-bit integers (DuckDB writes them to Parquet as floats), no
time zone but UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from dagster_retl.errors import ConfigurationError, ErrorCode, SourceError
from dagster_retl.model.sql_text import MAX_DIGITS, is_bytes, is_text

JSON = pa.json_(pa.string())
"""JSON text, which goes into the document as it is."""

_LISTED = 20


class Columns:
    """The columns of a query result, by name; `names` are as the query gives them."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.names: tuple[str, ...] = tuple(schema.names)
        self.aliases = _aliases(self.names)

    def find(self, name: str) -> int | None:
        """The number of the column of this name, exactly so or else ignoring case; None without one.

        Raises `ConfigurationError` where several columns would do.
        """
        exact = [number for number, column in enumerate(self.names) if column == name]
        folded = name.casefold()
        found = exact or [number for number, column in enumerate(self.names) if column.casefold() == folded]
        if len(found) > 1:
            raise ConfigurationError(
                f"{name!r} could be any of the columns {', '.join(repr(self.names[each]) for each in found)}",
                hint="Give the columns different names in the query (`SELECT … AS …`).",
            )
        return found[0] if found else None

    def missing(self, name: str, destination: str) -> SourceError:
        """The error for a name that is no column, with the columns that there are."""
        close = get_close_matches(name, self.names, n=3, cutoff=0.6)
        close = close or [column for column in self.names if column.casefold().replace("_", "") == _squeezed(name)]
        guess = f"Did you mean {' or '.join(repr(each) for each in close)}? " if close else ""
        return SourceError(
            f"field {destination!r}: the query has no column {name!r}",
            code=ErrorCode.SOURCE_COLUMN_MISSING,
            hint=guess + self.listing(),
        )

    def listing(self) -> str:
        """The columns in a sentence."""
        more = f" and {len(self.names) - _LISTED} more" if len(self.names) > _LISTED else ""
        return f"Columns: {', '.join(self.names[:_LISTED])}{more}." if self.names else "The query has no columns."


def _squeezed(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def _aliases(names: Sequence[str]) -> tuple[str, ...]:
    """A name for each column in the sandbox, where names that differ by case only would be one."""
    taken: set[str] = set()
    aliases = []
    for number, name in enumerate(names):
        alias = name or "column"
        while alias.casefold() in taken:
            alias += f"#{number}"
        taken.add(alias.casefold())
        aliases.append(alias)
    return tuple(aliases)


def plain(kind: Any) -> pa.DataType | None:
    """The type that a column goes on with when Arrow alone can see to it without fail, else None."""
    if kinds.is_dictionary(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_extension(kind)
    for matches, becomes in _PLAIN:
        if matches(kind):
            return becomes(kind)
    return None


def _plain_extension(kind: Any) -> pa.DataType | None:
    if kind.extension_name == "arrow.json":
        return JSON
    return plain(kind.storage_type) if kind.extension_name == "arrow.opaque" else None


def _plain_decimal(kind: Any) -> pa.DataType | None:
    if kind.precision > MAX_DIGITS:
        return pa.string()
    return pa.decimal128(kind.precision, kind.scale) if 0 <= kind.scale <= kind.precision else None


def _plain_timestamp(kind: Any) -> pa.DataType | None:
    if kind.unit not in ("us", "ns"):
        return None
    return pa.timestamp(kind.unit, None if kind.tz is None else "UTC")


def _same(kind: Any) -> pa.DataType:
    return kind


_PLAIN: tuple[tuple[Callable[[Any], bool], Callable[[Any], pa.DataType | None]], ...] = (
    (is_text, lambda _: pa.string()),
    (is_bytes, lambda _: pa.binary()),
    (kinds.is_null, lambda _: pa.string()),
    (kinds.is_float16, lambda _: pa.float32()),
    (kinds.is_boolean, _same),
    (kinds.is_integer, _same),
    (kinds.is_floating, _same),
    (kinds.is_date32, _same),
    (kinds.is_time64, _same),
    (kinds.is_decimal, _plain_decimal),
    (kinds.is_timestamp, _plain_timestamp),
)


def to_plain(values: Any, target: pa.DataType) -> Any:
    """An array as the type that `plain` gave for its own."""
    kind = values.type
    if kind.equals(target):
        return values
    if isinstance(kind, pa.BaseExtensionType):
        return _from_extension(values, target)
    if kinds.is_dictionary(kind):
        return to_plain(values.dictionary_decode(), target)
    if kinds.is_decimal256(kind) and kinds.is_string(target):
        return pa.array([None if each is None else format(each, "f") for each in values.to_pylist()], target)
    if kinds.is_fixed_size_binary(kind) or kinds.is_binary_view(kind):
        return pc.cast(values, pa.binary())
    return pc.cast(values, target)


def readable(values: Any) -> Any:
    """An array in a type that DuckDB takes."""
    kind = plain(values.type)
    return values if kind is None else to_plain(values, kind)


def _from_extension(values: Any, target: pa.DataType) -> Any:
    if target.equals(JSON):
        return json_array(to_plain(values.storage, pa.string()))
    return to_plain(values.storage, target)


def json_array(texts: Any) -> Any:
    """Strings that hold JSON, as JSON."""
    return pa.ExtensionArray.from_storage(JSON, texts)
