"""Keys: the text by which a row is known in the diff, the snapshot, the ledger and dead letters.

A key looks like a JSON array of one text for each key field (only quotes and backslashes are
escaped); it is compared, never parsed. Numbers are compared by value (42 = 42.0 =
"42"), so a number is written as its plain digits; a text stays what it is ("42.0" is not 42). It is
trimmed and lower-cased where the destination does so (`KeyForm`). A row without a key (NULL) has a
key field that is null, empty, NaN or infinite.

Lower case is that of single characters (Unicode's simple mapping): `ẞ` becomes `ß`, `ß` stays and
is not `ss`, a final `Σ` becomes `σ`, `İ` becomes `i`. Blanks at the ends are all that Python's
`str.strip` takes away, no-break spaces among them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
from pyarrow import types as kinds

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.rows import FieldType, KeyForm
from dagster_retl.model.sql_text import (
    date_text,
    decimal_text,
    identifier,
    is_bytes,
    is_text,
    literal,
    time_text,
    timestamp_text,
)

_BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What `str.isspace` is true of."""

_EXACT_DIGITS = 15
"""A JSON number of more digits may lose some of them in a reader that knows only 64-bit floats."""


def key_sql(fields: Sequence[FieldType], form: KeyForm) -> str:
    """A DuckDB expression of type VARCHAR: the key of a row, NULL for a row without one.

    It runs over columns named as `fields`; those with `key` make the key, in order. Raises
    `ConfigurationError` where no field is a key, or one has a type that cannot be a key (a list,
    a struct, JSON, a length of time).
    """
    texts = [_quoted(f"nullif({_text(field, form)}, '')") for field in _keys(fields)]
    return f"('[' || {_joined(texts)} || ']')"


def record_keys_sql(fields: Sequence[FieldType]) -> str:
    """A DuckDB expression of type VARCHAR: a JSON object of the key fields, for people and for `key_of`.

    Values are as sent (text is neither trimmed nor lower-cased), timestamps always as RFC 3339;
    decimals of more than 15 digits are text, so that no reader of JSON loses any.
    """
    members = [
        f"{literal(json.dumps(field.name, ensure_ascii=False) + ':')} || {_json(field)}" for field in _keys(fields)
    ]
    return f"('{{' || {_joined(members)} || '}}')"


def key_of(values: Mapping[str, Any], key_fields: Sequence[str], form: KeyForm) -> str | None:
    """The key of a row given as Python values (or as its `record_keys`): what `key_sql` says of it.

    None where a key field is missing, null, empty, NaN or infinite. Raises `ConfigurationError`
    for a value that cannot be a key.
    """
    texts = [_python_text(values.get(name), form) for name in key_fields]
    if not texts or not all(texts):
        return None
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts if text)
    return "[" + ",".join(f'"{text}"' for text in quoted) + "]"


def _keys(fields: Sequence[FieldType]) -> list[FieldType]:
    keys = [field for field in fields if field.key]
    if not keys:
        raise ConfigurationError("no field is a key", hint="Mark a field with `key: true`.")
    return keys


def _quoted(text: str) -> str:
    """SQL for a text between quotes. Not `to_json`: keys are kept, and how it escapes is its version's business."""
    return f"('\"' || replace(replace({text}, '\\', '\\\\'), '\"', '\\\"') || '\"')"


def _joined(parts: Sequence[str]) -> str:
    return " || ',' || ".join(parts)


def _text(field: FieldType, form: KeyForm) -> str:
    """SQL for the text of a key field."""
    kind, value = _scalar(field), identifier(field.name)
    if is_text(kind):
        trimmed = f"trim({value}::VARCHAR, {literal(_BLANKS)})" if form.trim else f"{value}::VARCHAR"
        return f"lower({trimmed})" if form.ignore_case else trimmed
    if kinds.is_decimal(kind) and kind.scale > 0:
        return f"rtrim(rtrim({decimal_text(kind, value)}, '0'), '.')"
    if kinds.is_floating(kind):
        return _float_text(value)
    return _plain_text(kind, value)


def _plain_text(kind: Any, value: str) -> str:
    """SQL for the text of a type that has one, whatever the form."""
    if kinds.is_timestamp(kind):
        return timestamp_text(kind, value)
    if kinds.is_time(kind):
        return time_text(kind, value)
    if kinds.is_date(kind):
        return date_text(value)
    if is_bytes(kind):
        return f"base64({value})"
    return f"{value}::VARCHAR"


def _float_text(value: str) -> str:
    """SQL for the plain digits of a float: the shortest that read back as it, without exponent."""
    shortest = f"({value} + 0)::VARCHAR"  # -0.0 + 0 is 0.0
    digits = f"replace(replace(split_part({shortest}, 'e', 1), '.', ''), '-', '')"
    exponent = f"split_part({shortest}, 'e', 2)::INTEGER"
    sign = f"CASE WHEN starts_with({shortest}, '-') THEN '-' ELSE '' END"
    return (
        f"CASE WHEN NOT isfinite({value}) THEN NULL "
        f"WHEN NOT contains({shortest}, 'e') THEN regexp_replace({shortest}, '\\.0$', '') "
        f"WHEN {exponent} < 0 THEN {sign} || '0.' || repeat('0', -({exponent}) - 1) || {digits} "
        f"ELSE {sign} || rpad({digits}, {exponent} + 1, '0') END"
    )


def _json(field: FieldType) -> str:
    """SQL for the value of a key field as JSON, `null` for a null."""
    kind, value = _scalar(field), identifier(field.name)
    exact = KeyForm()
    if kinds.is_decimal(kind) and kind.precision > _EXACT_DIGITS:
        return f"coalesce('\"' || {_text(field, exact)} || '\"', 'null')"
    if kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind) or kinds.is_floating(kind):
        return f"coalesce({_text(field, exact)}, 'null')"
    return f"coalesce(to_json({value if is_text(kind) else _text(field, exact)})::VARCHAR, 'null')"


def _scalar(field: FieldType) -> Any:
    """The type of a key field, without the wrapping of extension and dictionary types."""
    kind = field.arrow_type
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid":
        return pa.string()
    if not any(matches(kind) for matches in _KEY_TYPES):
        raise ConfigurationError(
            f"field {field.name!r} cannot be a key: its type is {kind}",
            hint="A key is text, a number, a date, a time, a boolean or bytes: cast it in the mapping.",
        )
    return kind


_KEY_TYPES = (
    is_text,
    is_bytes,
    kinds.is_integer,
    kinds.is_decimal,
    kinds.is_floating,
    kinds.is_boolean,
    kinds.is_temporal,
    kinds.is_null,
)


def _python_text(value: Any, form: KeyForm) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _folded(value, form)
    for kind, text in _PYTHON_TEXTS:
        if isinstance(value, kind):
            return text(value)
    raise ConfigurationError(
        f"a value of type {type(value).__name__} cannot be a key",
        hint="A key is text, a number, a date, a time, a boolean or bytes.",
    )


def _folded(text: str, form: KeyForm) -> str:
    trimmed = text.strip(_BLANKS) if form.trim else text
    return "".join(map(_lower, trimmed)) if form.ignore_case else trimmed


def _lower(char: str) -> str:
    """Unicode's simple mapping, which never lengthens a text: only `İ` has another full one."""
    return "i" if char == "İ" else char.lower()


def _digits(number: float | Decimal) -> str | None:
    """The plain digits of a number, None for NaN and the infinities. An `int` is taken exactly."""
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if not exact.is_finite():
        return None
    if not exact:
        return "0"
    text = format(exact, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _moment(value: datetime) -> str:
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


_PYTHON_TEXTS: tuple[tuple[Any, Callable[[Any], str | None]], ...] = (
    (bool, lambda value: str(value).lower()),
    ((int, float, Decimal), _digits),
    (datetime, _moment),
    ((date, time), lambda value: value.isoformat()),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (UUID, str),
)
"""The first that fits counts: a `bool` is an `int` too, a `datetime` is a `date`."""
