"""Why an expression failed for a row, without the row's values.

What DuckDB says of a failure quotes the value, which may be personal data, and dead letters and logs
are read by many. So nothing of its message is passed on but what is known to be safe: the kind of the
error, a reason from this list, and the name of a type.
"""

from __future__ import annotations

import re

import duckdb

_KIND = re.compile(r"([A-Z][A-Za-z ]* Error): (.*)", re.DOTALL)
_CONTEXT = "\n\nLINE "

_TYPE = r"([A-Z][A-Z0-9]*(?:\(\d+, ?\d+\))?)"
_FROM = r"(?: when casting from source column .*)?\Z"

_REASONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), reason)
    for pattern, reason in (
        (r"Could not convert string .* to " + _TYPE + _FROM, "could not convert string to {}"),
        (r"Could not cast value .* to " + _TYPE + _FROM, "the value does not fit {}"),
        (r"Type .* out of range for the destination type " + _TYPE + _FROM, "the value is out of range for {}"),
        (r"(?:Type|Unimplemented type) .* can't be cast", "the value cannot be cast to the type"),
        (r"invalid (date|timestamp) field format", "the text is not a {}"),
        (r"(date|time|timestamp) field value out of range", "the text is not a {}, or is out of range"),
        (r"(Date|Time|Timestamp|Interval) (?:value .*)?out of range", "{} out of range"),
        (r"Overflow in (negation|addition|subtraction|multiplication|division|left shift)", "overflow in {}"),
        (r"Value out of range", "value out of range"),
        (r"Division by zero", "division by zero"),
        (r"Could not parse string", "the text does not have the format that is asked for"),
        (r"Malformed JSON", "malformed JSON"),
        (r"Map keys must be unique", "map keys must be unique"),
        (r"Cannot cast array of size", "the list does not have the size of the type"),
        (r"extract specifier", "no such part of a date"),
        (r"Unknown TimeZone", "unknown time zone"),
        (r"Invalid (?:input for hex digit|hex escape)", "invalid hexadecimal text"),
        (r"Could not decode string .* as base64", "invalid base64 text"),
        (r"(?:Failure in decode|Invalid UTF8)", "invalid UTF-8"),
    )
)

GENERIC = "the expression cannot be computed for this row"


def explain(error: duckdb.Error) -> str:
    """What went wrong, without any value of the row: `Conversion Error: could not convert string to INT32`."""
    match = _KIND.match(str(error).rsplit(_CONTEXT, 1)[0])
    if match is None:
        return GENERIC
    kind, message = match.groups()
    for pattern, reason in _REASONS:
        if found := pattern.match(message):
            return f"{kind}: {reason.format(*found.groups())}"
    return f"{kind}: {GENERIC}"
