"""SQL that DuckDB reads: names, literals, and values as text, by Arrow type.

Mapping, wire, keys and fingerprints write the same values for different readers; what they share
is here. Every expression is NULL where its value is null, and means the same in any session (none
of it looks at the session's time zone).
"""

from __future__ import annotations

from typing import Any

from pyarrow import types as kinds

MAX_DIGITS = 38
"""The digits that a DuckDB DECIMAL can hold."""


def identifier(name: str) -> str:
    """A quoted identifier, whatever characters the name holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted string constant."""
    return "'" + text.replace("'", "''") + "'"


def is_text(kind: Any) -> bool:
    """Any of Arrow's string types."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def is_bytes(kind: Any) -> bool:
    """Any of Arrow's binary types."""
    return bool(
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_fixed_size_binary(kind)
        or kinds.is_binary_view(kind)
    )


def is_list(kind: Any) -> bool:
    """Any of Arrow's list types."""
    return bool(
        kinds.is_list(kind)
        or kinds.is_large_list(kind)
        or kinds.is_fixed_size_list(kind)
        or kinds.is_list_view(kind)
        or kinds.is_large_list_view(kind)
    )


def is_span(kind: Any) -> bool:
    """A length of time."""
    return bool(kinds.is_duration(kind) or kinds.is_interval(kind))


def decimal_text(kind: Any, value: str) -> str:
    """The plain digits of a decimal: `-0.50`, always with a digit before the point.

    DuckDB writes 0.5 of type DECIMAL(1,1) as `.5`, and of any wider type as `0.5`.
    """
    if kind.precision > kind.scale:
        return f"{value}::VARCHAR"
    if kind.precision < MAX_DIGITS:
        return f"{value}::DECIMAL({kind.precision + 1},{kind.scale})::VARCHAR"
    return f"regexp_replace({value}::VARCHAR, '^(-?)\\.', '\\10.')"


def _utc(kind: Any, value: str) -> str:
    """A timestamp as one without zone, in UTC."""
    if kind.unit == "ns":
        return f"make_timestamp_ns(epoch_ns({value}))"
    return f"{value}::TIMESTAMP" if kind.tz is None else f"make_timestamp(epoch_us({value}))"


def spaced_timestamp_text(kind: Any, value: str) -> str:
    """`2025-03-27 17:00:00 +00:00`, in UTC, without the fraction of a second."""
    return f"strftime({_utc(kind, value)}, '%Y-%m-%d %H:%M:%S +00:00')"


def timestamp_text(kind: Any, value: str) -> str:
    """RFC 3339 in UTC, as Python's `isoformat`: `2025-03-27T17:00:00Z`, with a fraction of six digits
    when it is not zero, and of nine when six do not hold it. Without zone it is taken as UTC.
    """
    utc = _utc(kind, value)
    if kind.unit == "ns":
        epoch, second = f"epoch_ns({value})", 1_000_000_000
        # `strftime` of DuckDB 2.0 writes behind the text for %n.
        nanos = f"WHEN {epoch} % 1000 <> 0 THEN rpad(replace({utc}::VARCHAR, ' ', 'T'), 29, '0') || 'Z' "
    else:
        epoch, second, nanos = f"epoch_us({utc})", 1_000_000, ""
    whole = "%Y-%m-%dT%H:%M:%S"
    return (
        f"CASE WHEN {epoch} % {second} = 0 THEN strftime({utc}, '{whole}Z') {nanos}"
        f"ELSE strftime({utc}, '{whole}.%fZ') END"
    )


def time_text(kind: Any, value: str) -> str:
    """ISO 8601, as Python's `isoformat`: `12:30:00`, with a fraction of six digits when it is not zero."""
    text = f"{value}::VARCHAR"  # as few digits as it takes
    if kind.unit == "ns":
        return f"CASE WHEN contains({text}, '.') AND strlen({text}) < 15 THEN rpad({text}, 15, '0') ELSE {text} END"
    return f"CASE WHEN contains({text}, '.') THEN rpad({text}, 15, '0') ELSE {text} END"


def date_text(value: str) -> str:
    """ISO 8601: `2025-03-27`."""
    return f"{value}::VARCHAR"
