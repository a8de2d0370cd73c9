"""The wire: a mapped row as the JSON object that a destination reads, written by DuckDB.

Numbers keep all their digits, text is escaped by `to_json`, times are ISO 8601 in UTC, bytes are
base64, lists and structs hold values by the same rules, maps are objects. What JSON cannot say (NaN,
infinite, a year outside 1 to 9999, JSON text that is not JSON) makes a row unsendable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import types as kinds

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.rows import FieldType, WireForm
from dagster_retl.model.sql_text import (
    date_text,
    decimal_text,
    identifier,
    is_bytes,
    is_list,
    is_span,
    is_text,
    literal,
    spaced_timestamp_text,
    time_text,
    timestamp_text,
)

_FIRST_MICROSECOND = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LAST_MICROSECOND = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z

_USUAL = WireForm()


def json_sql(fields: Sequence[FieldType], form: WireForm) -> str:
    """A DuckDB expression of type VARCHAR over columns named as `fields`: the row as a JSON object.

    NULL for a row that `unsendable_sql` names a field of. Raises `ConfigurationError` where one field
    is both a value and an object (`a` and `a.b`), or has a type without JSON form.
    """
    tree = _tree(fields, form)
    whole = _object(tree, form)
    unsendable = unsendable_sql(fields, form)
    return f"CASE WHEN ({unsendable}) IS NULL THEN {whole} END" if unsendable else whole


def unsendable_sql(fields: Sequence[FieldType], form: WireForm = _USUAL) -> str | None:
    """A DuckDB expression of type VARCHAR: the first field whose value has no JSON form, or NULL.

    None where no field can hold such a value. `form` is the one that `json_sql` is given.
    """
    tests = [(each.name, _unsendable(each.arrow_type, identifier(each.name), form, 0)) for each in fields]
    branches = [f"WHEN {test} THEN {literal(name)}" for name, test in tests if test]
    return f"CASE {' '.join(branches)} END" if branches else None


@dataclass(slots=True)
class _Branch:
    """An object of the document: its members by name, fields and objects, in order."""

    members: dict[str, FieldType | _Branch] = field(default_factory=dict)


def _tree(fields: Sequence[FieldType], form: WireForm) -> _Branch:
    root = _Branch()
    for each in fields:
        path = each.name.split(".") if form.nest else [each.name]
        _plant(root, path if all(path) else [each.name], each)
    return root


def _plant(root: _Branch, path: Sequence[str], leaf: FieldType) -> None:
    branch = root
    for name in path[:-1]:
        below = branch.members.setdefault(name, _Branch())
        if not isinstance(below, _Branch):
            raise _conflict(below.name, leaf.name)
        branch = below
    if path[-1] in branch.members:
        raise _conflict(leaf.name, f"{leaf.name}.…")
    branch.members[path[-1]] = leaf


def _conflict(value: str, nested: str) -> ConfigurationError:
    return ConfigurationError(
        f"fields {value!r} and {nested!r} cannot both be sent: {value!r} would be a value and an object at once",
        hint="Map one of them, or rename it.",
    )


def _object(branch: _Branch, form: WireForm) -> str:
    """SQL for an object. Members that are omitted when null take their comma with them."""
    members = [(name, *_member(member, form)) for name, member in branch.members.items()]
    if all(optional for _, _, optional in members):
        texts = [f"(',' || {_label(name)} || {text})" for name, text, _ in members]
        return f"'{{' || substr(concat({', '.join(texts)}), 2) || '}}'"
    return f"concat('{{', {', '.join(_separated(members))}, '}}')"


def _separated(members: Sequence[tuple[str, str, bool]]) -> list[str]:
    """Members with commas: before the first that is always there, they bring one after them; then before."""
    parts = []
    leading = True
    for name, text, optional in members:
        if optional:
            parts.append(f"({_label(name)} || {text} || ',')" if leading else f"(',' || {_label(name)} || {text})")
        else:
            parts += [_label(name) if leading else _label(name, comma=True), text]
            leading = False
    return parts


def _label(name: str, *, comma: bool = False) -> str:
    return literal(("," if comma else "") + json.dumps(name, ensure_ascii=False) + ":")


def _member(member: FieldType | _Branch, form: WireForm) -> tuple[str, bool]:
    """SQL for the value of a member, and whether it may be absent (then it is NULL)."""
    if isinstance(member, _Branch):
        optional = all(_member(below, form)[1] for below in member.members.values())
        text = _object(member, form)
        return (f"nullif({text}, '{{}}')" if optional else text), optional
    text = _json(member.arrow_type, identifier(member.name), form, 0)
    return (text, True) if member.omit_null else (f"coalesce({text}, 'null')", False)


def _json(kind: Any, value: str, form: WireForm, depth: int) -> str:
    """SQL for a value as JSON; NULL for a null. `depth` keeps the names of lambdas apart."""
    kind = _plain_type(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return f"{value}::VARCHAR"
    for matches, encode in _ENCODERS:
        if matches(kind):
            return encode(kind, value, form, depth)
    raise ConfigurationError(f"a value of type {kind} has no JSON form", hint="Cast it to another type in the mapping.")


def _plain_type(kind: Any) -> Any:
    """The type without what changes nothing on the wire: encodings, and extension types other than JSON."""
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name != "arrow.json":
        named = {"arrow.uuid": pa.string(), "arrow.bool8": pa.bool_()}
        return named.get(kind.extension_name) or _plain_type(kind.storage_type)
    return kind


def _as_written(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return f"{value}::VARCHAR"


def _null(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return "NULL::VARCHAR"


def _string(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return f"to_json({value}::VARCHAR)::VARCHAR"


def _quoted(text: str) -> str:
    return f"'\"' || {text} || '\"'"


def _decimal(kind: Any, value: str, form: WireForm, depth: int) -> str:
    text = decimal_text(kind, value)
    return _quoted(text) if form.decimal == "string" else text


def _timestamp(kind: Any, value: str, form: WireForm, depth: int) -> str:
    if form.timestamp == "rfc3339":
        return _quoted(timestamp_text(kind, value))
    if form.timestamp == "spaced":
        return _quoted(spaced_timestamp_text(kind, value))
    unit = 1_000 if form.timestamp == "epoch_ms" else 1_000_000
    epoch, unit = _epoch(kind, value), unit * (1_000 if kind.unit == "ns" else 1)
    # DuckDB's // rounds towards zero; a moment before 1970 belongs to the unit that began before it.
    return f"(({epoch} - (({epoch} % {unit}) + {unit}) % {unit}) // {unit})::VARCHAR"


def _epoch(kind: Any, value: str) -> str:
    """SQL for nanoseconds (unit `ns`) or microseconds since 1970; NULL for infinite."""
    if kind.unit == "ns":
        return f"epoch_ns({value})"
    return f"epoch_us({value}::TIMESTAMP)" if kind.tz is None else f"epoch_us({value})"


def _date(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return _quoted(date_text(value))


def _time(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return _quoted(time_text(kind, value))


def _binary(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return _quoted(f"base64({value})")


def _list(kind: Any, value: str, form: WireForm, depth: int) -> str:
    item = f"e{depth}"
    texts = f"list_transform({value}, lambda {item}: {_element(kind.value_type, item, form, depth + 1)})"
    return f"CASE WHEN {value} IS NOT NULL THEN '[' || {_joined(texts)} || ']' END"


def _struct(kind: Any, value: str, form: WireForm, depth: int) -> str:
    parts = []
    for number, member in enumerate(kind):
        part = f"struct_extract({value}, {literal(member.name)})"
        parts += [_label(member.name, comma=number > 0), _element(member.type, part, form, depth)]
    return f"CASE WHEN {value} IS NOT NULL THEN concat('{{', {', '.join([*parts, literal('}')])}) END"


def _map(kind: Any, value: str, form: WireForm, depth: int) -> str:
    item = f"e{depth}"
    key = f"to_json({_key_text(kind.key_type, f'{item}.key')})::VARCHAR"
    content = _element(kind.item_type, f"{item}.value", form, depth + 1)
    texts = f"list_transform(map_entries({value}), lambda {item}: {key} || ':' || {content})"
    return f"CASE WHEN {value} IS NOT NULL THEN '{{' || {_joined(texts)} || '}}' END"


def _key_text(kind: Any, value: str) -> str:
    if kinds.is_timestamp(kind):
        return timestamp_text(kind, value)
    return decimal_text(kind, value) if kinds.is_decimal(kind) else f"{value}::VARCHAR"


def _element(kind: Any, value: str, form: WireForm, depth: int) -> str:
    return f"coalesce({_json(kind, value, form, depth)}, 'null')"


def _joined(texts: str) -> str:
    return f"coalesce(list_aggregate({texts}, 'string_agg', ','), '')"


_ENCODERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str, WireForm, int], str]], ...] = (
    (is_text, _string),
    (kinds.is_integer, _as_written),
    (kinds.is_boolean, _as_written),
    (kinds.is_floating, _as_written),
    (kinds.is_decimal, _decimal),
    (kinds.is_timestamp, _timestamp),
    (kinds.is_date, _date),
    (kinds.is_time, _time),
    (is_bytes, _binary),
    (kinds.is_null, _null),
    (is_span, _string),
    (is_list, _list),
    (kinds.is_struct, _struct),
    (kinds.is_map, _map),
)


def _unsendable(kind: Any, value: str, form: WireForm, depth: int) -> str | None:
    """SQL that is true where a value, at any depth, has no JSON form; None where it always has one."""
    kind = _plain_type(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return _not_json(value)
    if kinds.is_floating(kind):
        return f"NOT isfinite({value})"
    if kinds.is_date(kind):
        return f"{value} NOT BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
    if kinds.is_timestamp(kind):
        return _timeless(kind, value, form)
    return _unsendable_inside(kind, value, form, depth)


def _not_json(value: str) -> str:
    """DuckDB takes NaN and Infinity for JSON: outside strings, no other word holds these letters."""
    bare = f"regexp_replace({value}::VARCHAR, '\"(\\\\.|[^\"\\\\])*\"', '', 'g')"
    return f"(NOT json_valid({value}::VARCHAR) OR regexp_matches({bare}, '(?i)nan|inf'))"


def _timeless(kind: Any, value: str, form: WireForm) -> str:
    epoch = _epoch(kind, value)
    if kind.unit == "ns" or form.timestamp.startswith("epoch"):  # nanoseconds reach from 1677 to 2262
        return f"({epoch} IS NULL AND {value} IS NOT NULL)"
    between = f"{epoch} BETWEEN {_FIRST_MICROSECOND} AND {_LAST_MICROSECOND}"
    return f"({value} IS NOT NULL AND NOT coalesce({between}, false))"


def _unsendable_inside(kind: Any, value: str, form: WireForm, depth: int) -> str | None:
    item = f"e{depth}"
    if is_list(kind):
        return _any(_unsendable(kind.value_type, item, form, depth + 1), value, item)
    if kinds.is_map(kind):
        tests = [
            _unsendable(kind.key_type, f"{item}.key", form, depth + 1),
            _unsendable(kind.item_type, f"{item}.value", form, depth + 1),
        ]
        return _any(_or(tests), f"map_entries({value})", item)
    if kinds.is_struct(kind):
        parts = [(member.type, f"struct_extract({value}, {literal(member.name)})") for member in kind]
        return _or([_unsendable(part, name, form, depth) for part, name in parts])
    return None


def _any(test: str | None, values: str, item: str) -> str | None:
    return f"len(list_filter({values}, lambda {item}: {test})) > 0" if test else None


def _or(tests: Sequence[str | None]) -> str | None:
    real = [f"coalesce({test}, false)" for test in tests if test]
    return f"({' OR '.join(real)})" if real else None
