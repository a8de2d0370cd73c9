"""The types of values that expressions compute, brought down to those that go on (`mapping.columns`)."""

from __future__ import annotations

from typing import Any

from dagster_retl.model.sql_text import identifier

_KEPT = frozenset(
    [
        "boolean",
        "tinyint",
        "smallint",
        "integer",
        "bigint",
        "utinyint",
        "usmallint",
        "uinteger",
        "ubigint",
        "float",
        "double",
        "decimal",
        "varchar",
        "blob",
        "date",
        "time",
        "time_ns",
        "timestamp",
        "timestamp_ns",
    ]
) | {"timestamp with time zone", "timestamptz_ns"}

_CHANGED = {
    "hugeint": "DECIMAL(38,0)",
    "uhugeint": "DECIMAL(38,0)",
    "timestamp_s": "TIMESTAMP",
    "timestamp_ms": "TIMESTAMP",
}
"""A 128-bit integer beyond 38 digits is a row's failure, as any number out of range is."""


def canonical_sql(sql: str, kind: Any) -> tuple[str, bool]:
    """SQL for the value of `sql`, of DuckDB type `kind`, in a type that goes on; and whether it is JSON text.

    UUIDs, intervals, bits, enums and times with an offset become text. A value with JSON in it is JSON.
    """
    if str(kind) == "JSON":
        return f"CAST({sql}\n AS VARCHAR)", True
    if _holds_json(kind):
        return f"to_json({sql}\n)::VARCHAR", True
    target = _target(kind)
    return (sql if target == str(kind) else f"CAST({sql}\n AS {target})"), False


def _holds_json(kind: Any) -> bool:
    if str(kind) in ("JSON", "VARIANT"):
        return True
    return kind.id in ("list", "array", "struct", "map") and any(_holds_json(each) for each in _members(kind))


def _members(kind: Any) -> list[Any]:
    """The types inside a list, array, struct or map."""
    return [member for name, member in kind.children if not (kind.id == "array" and name == "size")]


def _target(kind: Any) -> str:
    """The type, as DuckDB writes it, that a value of type `kind` goes on with."""
    if kind.id in _KEPT:
        return str(kind)
    if kind.id in ("list", "array"):
        return f"{_target(_members(kind)[0])}[]"
    if kind.id == "map":
        key, value = _members(kind)
        return f"MAP({_target(key)}, {_target(value)})"
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{identifier(name)} {_target(member)}' for name, member in kind.children)})"
    return _CHANGED.get(kind.id, "VARCHAR")
