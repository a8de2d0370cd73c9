"""The units that people write in settings: durations (`1h30m`), shares (`10%`), sizes (`300MB`), steps (`100`)."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (604_800, 86_400, 3_600, 60, 1)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

DURATION_PATTERN = r"^(?=\d)(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"
SIZE_PATTERN = r"^\d+(\.\d+)?\s*[KMGTkmgt]?i?[Bb]$"
SHARE_PATTERN = r"^\s*0*(100(\.0+)?|\d{1,2}(\.\d+)?)\s*%\s*$"


def parse_share(value: object) -> object:
    """`10%` and `0.1` are the same share."""
    if isinstance(value, str) and (match := _PERCENT.match(value)):
        return float(match.group(1)) / 100
    return value


def parse_duration(value: object) -> timedelta:
    """`1h30m` as a `timedelta`; units w, d, h, m and s, each at most once, in that order.

    Raises `ValueError`; a number without a unit is one of the mistakes.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not any(match.groups()):
        raise ValueError("expected a duration such as 24h, 90d or 1h30m")
    seconds = sum(int(count or 0) * unit for count, unit in zip(match.groups(), _SECONDS, strict=True))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError("this duration is too long") from None


def parse_duration_or_zero(value: object) -> timedelta:
    """A duration; `0` needs no unit."""
    return timedelta() if value in (0, "0") and value is not False else parse_duration(value)


def parse_seconds(value: object) -> object:
    """A number of seconds, or a duration (`5m`), in seconds."""
    if isinstance(value, timedelta) or (isinstance(value, str) and _DURATION.fullmatch(value.strip())):
        return parse_duration(value).total_seconds()
    return value


def parse_step(value: object) -> timedelta | Decimal:
    """A distance between times (`1h30m`) or between numbers (`100`).

    Raises `ValueError` for anything else, negative numbers among them.
    """
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return Decimal(value.strip())
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}, or a number that is not negative") from None


def parse_size(value: object) -> object:
    """`300MB` (10^6) or `300MiB` (2^20) in bytes; a whole number is bytes already.

    Raises `ValueError` for text that is neither.
    """
    if not isinstance(value, str) or value.strip().isdecimal():
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("expected a size such as 300MB, 512MiB or 2GB")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix.upper()])


def format_duration(value: timedelta) -> str:
    """A duration as people write it: `90d`, `1h30m`."""
    rest, parts = int(value.total_seconds()), []
    for letter, unit in zip("dhms", _SECONDS[1:], strict=True):
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts) or "0s"


def format_step(value: timedelta | Decimal) -> str:
    """A step as people write it."""
    return format_duration(value) if isinstance(value, timedelta) else format(value, "f")


def _text_or(pattern: str, example: str, *others: dict[str, Any]) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern, "examples": [example]}
    return WithJsonSchema({"anyOf": [text, *others]} if others else text)


_AS_WRITTEN = PlainSerializer(format_duration, return_type=str, when_used="json")

Duration = Annotated[timedelta, BeforeValidator(parse_duration), _AS_WRITTEN, _text_or(DURATION_PATTERN, "24h")]
DurationOrZero = Annotated[
    timedelta,
    BeforeValidator(parse_duration_or_zero),
    _AS_WRITTEN,
    _text_or(DURATION_PATTERN, "14d", {"const": 0}),
]
Share = Annotated[
    float,
    Field(ge=0, le=1),
    BeforeValidator(parse_share),
    _text_or(SHARE_PATTERN, "10%", {"type": "number", "minimum": 0, "maximum": 1}),
]
ByteSize = Annotated[
    int, BeforeValidator(parse_size), _text_or(SIZE_PATTERN, "300MB", {"type": "integer", "minimum": 0})
]
Step = Annotated[
    timedelta | Decimal,
    BeforeValidator(parse_step),
    PlainSerializer(format_step, return_type=str, when_used="json"),
    _text_or(DURATION_PATTERN, "1h", {"type": "number", "minimum": 0}),
]
Seconds = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(parse_seconds),
    _text_or(DURATION_PATTERN, "5m", {"type": "number", "exclusiveMinimum": 0}),
]
