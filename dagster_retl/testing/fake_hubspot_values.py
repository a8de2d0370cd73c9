"""Property values as a fake HubSpot checks and keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

import orjson

from dagster_retl.testing.fake_hubspot_rules import LONGEST_TEXT, HubSpotProblemError, ObjectType, Property

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[a-z]{2,}", re.IGNORECASE)
_DAY_MS = 86_400_000


class BadValueError(ValueError):
    """A value that a property does not take. code: HubSpot's word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def require_known(kind: ObjectType, properties: Mapping[str, object], *, besides: str = "") -> None:
    """Raise for properties that do not exist or cannot be written: the same for every input.

    besides: a property that may be repeated though it cannot be written.
    """
    known = kind.properties
    wrong = [
        (name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist') for name in properties if name not in known
    ]
    if not wrong:
        wrong = [
            (name, "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
            for name in properties
            if (known[name].read_only or known[name].calculated) and name != besides
        ]
    if wrong:
        raise _bad_values(wrong)


def checked(kind: ObjectType, properties: Mapping[str, object]) -> dict[str, str]:
    """The properties as they are kept. Raises `HubSpotProblemError` for values that are not taken."""
    kept: dict[str, str] = {}
    wrong: list[tuple[str, str, str]] = []
    for name, value in properties.items():
        if not isinstance(value, str):
            raise HubSpotProblemError(400, f"Invalid input JSON: Cannot deserialize value of {name} as text")
        try:
            kept[name] = _kept(kind.properties[name], value)
        except BadValueError as error:
            wrong.append((name, error.code, str(error)))
    if wrong:
        raise _bad_values(wrong)
    return kept


def _bad_values(wrong: list[tuple[str, str, str]]) -> HubSpotProblemError:
    listed = [{"isValid": False, "message": text, "error": code, "name": name} for name, code, text in wrong]
    errors = [{"message": text, "code": code, "context": {"propertyName": [name]}} for name, code, text in wrong]
    return HubSpotProblemError(400, f"Property values were not valid: {orjson.dumps(listed).decode()}", errors=errors)


def _kept(known: Property, value: str) -> str:
    if not value:
        return ""
    if len(value) > LONGEST_TEXT:
        raise BadValueError("VALUE_TOO_LONG", f"{known.name} is longer than {LONGEST_TEXT} characters")
    if known.name == "email":
        return _email(value)
    if known.type in ("bool", "enumeration"):
        return _options(known, value)
    return _CHECKS.get(known.type, str)(value)


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value.strip()):
        raise BadValueError("INVALID_EMAIL", f"Email address {value} is invalid")
    return value.strip().lower()


def _number(value: str) -> str:
    try:
        finite = Decimal(value).is_finite()
    except InvalidOperation:
        finite = False
    if not finite or value != value.strip():
        raise BadValueError("INVALID_NUMBER", f"{value} was not a valid number.")
    return value


def _date(value: str) -> str:
    if value.lstrip("-").isdigit():
        if int(value) % _DAY_MS:
            raise BadValueError("INVALID_DATE", f"{value} is at {_moment(int(value)):%H:%M:%S} UTC, not midnight!")
        return _moment(int(value)).date().isoformat()
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError as error:
        raise BadValueError("INVALID_DATE", f"{value} was not a valid date.") from error


def _datetime(value: str) -> str:
    if value.lstrip("-").isdigit():
        return _written(_moment(int(value)))
    try:
        read = datetime.fromisoformat(value)
    except ValueError as error:
        raise BadValueError("INVALID_LONG", f"{value} was not a valid long.") from error
    return _written(read if read.tzinfo else read.replace(tzinfo=UTC))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _options(known: Property, value: str) -> str:
    several = known.field_type == "checkbox"
    for each in value.split(";") if several else [value]:
        if known.options and each not in known.options:
            allowed = ", ".join(known.options)
            raise BadValueError("INVALID_OPTION", f"{each} was not one of the allowed options: [{allowed}]")
    return value


_CHECKS: Mapping[str, Callable[[str], str]] = {"number": _number, "date": _date, "datetime": _datetime}


def addresses_of(properties: Mapping[str, str | None]) -> Iterator[str]:
    """All email addresses of a contact."""
    yield from filter(None, [properties.get("email"), *(properties.get("hs_additional_emails") or "").split(";")])
