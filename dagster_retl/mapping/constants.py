"""What people write into a mapping as a value: constants, and defaults in the type of their field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from dagster_retl.errors import ConfigurationError
from dagster_retl.mapping.columns import JSON, json_array
from dagster_retl.model.sql_text import MAX_DIGITS, is_text

_INT64 = range(-(2**63), 2**63)


class Constant:
    """A value that every row has. Lists and mappings are JSON; text stays text, whatever it looks like."""

    def __init__(self, value: Any, destination: str) -> None:
        self._is_json = isinstance(value, list | tuple | Mapping)
        try:
            self._scalar = pa.scalar(_json_text(value)) if self._is_json else _scalar(value)
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise ConfigurationError(
                f"field {destination!r}: its constant cannot be sent: {error}",
                hint="A constant is text, a number, true, false, null, a date, or a list or mapping of these.",
            ) from error

    @property
    def arrow_type(self) -> pa.DataType:
        return JSON if self._is_json else self._scalar.type

    def array(self, rows: int) -> Any:
        """The value, once for each row."""
        values = pa.repeat(self._scalar, rows)
        return json_array(values) if self._is_json else values


def _scalar(value: Any) -> Any:
    match value:
        case None | bool():
            return pa.scalar(value, pa.string() if value is None else pa.bool_())
        case int() if value not in _INT64:
            return pa.scalar(Decimal(value), pa.decimal128(MAX_DIGITS, 0))
        case float():
            return pa.scalar(float(_finite(value)))
        case datetime():
            return pa.scalar(value, pa.timestamp("us", None if value.tzinfo is None else "UTC"))
        case int() | str() | bytes() | Decimal() | date() | time():
            return pa.scalar(value)
    raise TypeError(f"a {type(value).__name__} has no place in a row")


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("it is not a finite number")
    return number


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, default=_as_text)


def _as_text(value: Any) -> str:
    """A value as text that casts to the type of any field that it fits."""
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case str() | int() | float():
            return str(value)
        case Decimal():
            return format(value, "f")
        case date() | time():
            return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no place in a row")


def default_scalar(value: Any, kind: Any, destination: str) -> Any:
    """A default in the type of its field. Raises `ConfigurationError` where it cannot be one, exactly."""
    try:
        if kind.equals(JSON):
            return pa.scalar(_json_text(value))
        if isinstance(value, list | tuple | Mapping):
            return pa.scalar(value, kind)
        return _cast(value, kind)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise ConfigurationError(
            f"field {destination!r}: its default {value!r} is not a value of its type, {kind}",
            hint="Write a default of that type, or cast the source to another.",
        ) from error


def _cast(value: Any, kind: Any) -> Any:
    if isinstance(value, bytes):
        return pa.scalar(value).cast(kind)
    text = _as_text(value)
    if kinds.is_time(kind):
        return pa.scalar(time.fromisoformat(text), kind)
    if kinds.is_timestamp(kind) and kind.tz is not None:
        moment = datetime.fromisoformat(text)
        text = text if moment.tzinfo is not None else f"{moment.isoformat()}Z"
    return pa.scalar(text) if is_text(kind) else pa.scalar(text).cast(kind)


def fill(values: Any, default: Any) -> Any:
    """The values, with the default for the nulls."""
    if isinstance(values.type, pa.BaseExtensionType):
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        return pa.chunked_array([json_array(pc.coalesce(each.storage, default)) for each in chunks], values.type)
    return pc.coalesce(values, default)
