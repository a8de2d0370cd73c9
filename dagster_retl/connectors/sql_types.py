"""What a column holds, and how an exact Python value becomes one that the column takes unchanged.

A value either fits, or is refused with `CoercionError`: nothing is truncated or rounded here
(a database still applies its own rule for the scale of a decimal). Messages name types, not values.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson

Coercion = Callable[[Any], Any]


class CoercionError(ValueError):
    """A value that does not fit its column."""


class Kind(StrEnum):
    """Families of column types that take the same Python values."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMP_TZ = "timestamp with time zone"
    JSON = "json"
    UUID = "uuid"
    ARRAY = "array"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type: its family, the database's own name for it, and an array's items."""

    kind: Kind
    name: str
    item: ColumnType | None = None


def _refuse(value: Any, wanted: str) -> CoercionError:
    return CoercionError(f"a value of type {type(value).__name__} does not fit {wanted}")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, Decimal)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise _refuse(value, "a boolean")


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (Decimal, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value.strip()):
        return int(value)
    raise _refuse(value, "a whole number")


def _decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int):
        return Decimal(int(value))
    if isinstance(value, (float, str)):
        try:
            return Decimal(repr(value) if isinstance(value, float) else value.strip())
        except InvalidOperation:
            raise _refuse(value, "a decimal number") from None
    raise _refuse(value, "a decimal number")


def _float(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, (int, Decimal, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            raise _refuse(value, "a floating-point number") from None
    raise _refuse(value, "a floating-point number")


def _text(value: Any) -> str:
    if isinstance(value, str):
        if not value.isascii():
            _require_unicode(value)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, UUID)):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (dict, list, tuple)):
        return json_text(value)
    raise _refuse(value, "text")


def _require_unicode(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CoercionError("the text holds half of a surrogate pair, which is no Unicode character") from None


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise CoercionError("the text is not base64, which stands for binary data") from None
    raise _refuse(value, "binary data")


def _parsed(parse: Callable[[str], Any], value: str, wanted: str) -> Any:
    try:
        return parse(value.strip())
    except ValueError:
        raise CoercionError(f"the text is not {wanted} in ISO 8601") from None


def _date(value: Any) -> date:
    if isinstance(value, str):
        value = _parsed(datetime.fromisoformat, value, "a date")
    if isinstance(value, datetime):
        if value.time() != time():
            raise CoercionError("a timestamp with a time of day does not fit a date")
        return value.date()
    if isinstance(value, date):
        return value
    raise _refuse(value, "a date")


def _time(value: Any) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, str):
        parsed: time = _parsed(time.fromisoformat, value, "a time")
        return parsed
    raise _refuse(value, "a time of day")


def _timestamp_tz(value: Any) -> datetime:
    if isinstance(value, str):
        value = _parsed(datetime.fromisoformat, value, "a timestamp")
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise _refuse(value, "a timestamp")


def _timestamp(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value
    return _timestamp_tz(value).astimezone(UTC).replace(tzinfo=None)


def _json_default(value: Any) -> Any:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise TypeError
        return orjson.Fragment(str(value))
    raise TypeError


def json_text(value: Any) -> str:
    """JSON text. A str is taken as JSON text already, as SQL's own casts do."""
    try:
        if isinstance(value, str):
            orjson.loads(value)
            return value
        return orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONDecodeError:
        raise CoercionError("the text is not JSON") from None
    except orjson.JSONEncodeError:
        raise _refuse(value, "JSON") from None


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, str):
        try:
            return UUID(value.strip())
        except ValueError:
            raise CoercionError("the text is not a UUID") from None
    raise _refuse(value, "a UUID")


def _other(value: Any) -> Any:
    return json_text(value) if isinstance(value, (dict, list, tuple)) else value


_COERCIONS: Mapping[Kind, Coercion] = {
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _integer,
    Kind.DECIMAL: _decimal,
    Kind.FLOAT: _float,
    Kind.TEXT: _text,
    Kind.BYTES: _bytes,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMP_TZ: _timestamp_tz,
    Kind.JSON: json_text,
    Kind.UUID: _uuid,
    Kind.OTHER: _other,
}


def _items(item: Coercion) -> Coercion:
    def coerce(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _refuse(value, "an array")
        return [coerce(one) if isinstance(one, (list, tuple)) else None if one is None else item(one) for one in value]

    return coerce


def coercion(column_type: ColumnType) -> Coercion:
    """The function that makes a value fit the column, raising `CoercionError` when it does not; never given None."""
    if column_type.kind is Kind.ARRAY:
        return _items(coercion(column_type.item) if column_type.item else _other)
    return _COERCIONS[column_type.kind]
