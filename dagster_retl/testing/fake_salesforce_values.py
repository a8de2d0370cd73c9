"""Which values the fields of a fake Salesforce org take, and in which words it refuses others."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from dagster_retl.testing.fake_salesforce_schema import NUMBERS, TEXTS, FakeField
from dagster_retl.testing.messages import Reply

_DIGITS = 18
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:?\d{2})")
_RECORD_ID = re.compile(r"[0-9A-Za-z]{15}([0-9A-Za-z]{3})?")


class RowRefusedError(Exception):
    """A row that is not taken. fields: those that are to blame."""

    def __init__(self, code: str, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = fields

    def entry(self) -> dict[str, Any]:
        """The row's entry in an answer of Collections; it has no id."""
        error = {"statusCode": self.code, "message": self.message, "fields": list(self.fields)}
        return {"success": False, "errors": [error]}

    def line(self) -> str:
        """The row's `sf__Error` in a job's results."""
        return f"{self.code}:{self.message}:{','.join(self.fields)} --"


class RequestRefusedError(Exception):
    """A request that is not taken."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def reply(self) -> Reply:
        return Reply.json([{"message": self.message, "errorCode": self.code}], self.status)


class MisfitError(Exception):
    """A value that is not of its field's type; what becomes of it depends on how it came."""

    def __init__(self, field: FakeField, value: Any) -> None:
        super().__init__(f"{value!r} is no {field.kind}")
        self.field = field
        self.value = value


def accept(field: FakeField, value: Any) -> Any:
    """The value as the field keeps it. Raises `MisfitError`, and `RowRefusedError` for one of the right type."""
    if value is None or value == "":
        return _nothing(field)
    if field.kind in TEXTS:
        return _text(field, value)
    return _number(field, value) if field.kind in NUMBERS else _OTHERS[field.kind](field, value)


def _nothing(field: FakeField) -> None:
    if field.kind == "boolean":
        message = f"{field.shown_label}: value not of required type: "
        raise RowRefusedError("INVALID_TYPE_ON_FIELD_IN_RECORD", message, (field.name,))
    if not field.nillable:
        raise missing([field])


def missing(fields: list[FakeField]) -> RowRefusedError:
    """The refusal of a record without what it needs."""
    names = [field.name for field in fields]
    return RowRefusedError("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(names)}]", tuple(names))


def _text(field: FakeField, value: Any) -> str:
    if isinstance(value, (list, dict, bool)):
        raise MisfitError(field, value)
    text = str(value)
    if len(text) > field.length:
        message = f"{field.shown_label}: data value too large: {text[:100]} (max length={field.length})"
        raise RowRefusedError("STRING_TOO_LONG", message, (field.name,))
    if field.kind == "email" and not _EMAIL.fullmatch(text):
        raise RowRefusedError(
            "INVALID_EMAIL_ADDRESS", f"{field.shown_label}: invalid email address: {text}", (field.name,)
        )
    if field.kind == "reference" and not _RECORD_ID.fullmatch(text):
        raise RowRefusedError("MALFORMED_ID", f"{field.shown_label}: id value of incorrect type: {text}", (field.name,))
    chosen = text.split(";") if field.kind == "multipicklist" else [text]
    if field.restricted and not set(chosen) <= set(field.picklist):
        message = f"{field.shown_label}: bad value for restricted picklist field: {text}"
        raise RowRefusedError("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, (field.name,))
    return text


def _number(field: FakeField, value: Any) -> Any:
    if isinstance(value, (bool, list, dict)):
        raise MisfitError(field, value)
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise MisfitError(field, value) from error
    if field.kind == "int" and number != number.to_integral_value():
        raise MisfitError(field, value)
    if len(number.normalize().as_tuple().digits) > _DIGITS:
        message = f"{field.shown_label}: value outside of valid range on numeric field: {number}"
        raise RowRefusedError("NUMBER_OUTSIDE_VALID_RANGE", message, (field.name,))
    return value if not isinstance(value, str) else int(number) if number == number.to_integral_value() else number


def _boolean(field: FakeField, value: Any) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise MisfitError(field, value)


def _date(field: FakeField, value: Any) -> str:
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value).isoformat()
    except ValueError as error:
        raise MisfitError(field, value) from error
    raise MisfitError(field, value)


def _datetime(field: FakeField, value: Any) -> str:
    try:
        if isinstance(value, str) and _DATETIME.fullmatch(value):
            datetime.fromisoformat(value)
            return value
    except ValueError as error:
        raise MisfitError(field, value) from error
    raise MisfitError(field, value)


_OTHERS: Mapping[str, Callable[[FakeField, Any], Any]] = {"boolean": _boolean, "date": _date, "datetime": _datetime}


def shown(field: FakeField, value: Any) -> Any:
    """A value as it is read again: moments are in UTC, with milliseconds; decimals are JSON numbers."""
    if isinstance(value, Decimal):
        return float(value)
    if field.kind == "datetime" and isinstance(value, str):
        moment = datetime.fromisoformat(value).astimezone(UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}+0000"
    return value


def same(field: FakeField, one: Any, other: Any) -> bool:
    """Whether two values of a field are equal; text is compared without case, unless the field minds it."""
    known = comparable(field, one)
    return known is not None and known == comparable(field, other)


def comparable(field: FakeField, value: Any) -> Hashable | None:
    """What equal values of a field have in common; None for no value."""
    if value is None:
        return None
    if field.kind in NUMBERS:
        return Decimal(str(value))
    if field.kind in ("id", "reference"):
        return str(value)[:15]
    if field.kind in TEXTS:
        return str(value) if field.case_sensitive else str(value).casefold()
    return cast(Hashable, value)
