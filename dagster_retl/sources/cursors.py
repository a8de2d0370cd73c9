"""Cursors: the values of a column that grows with each change of a row, exact from the source and back to it.

A value is kept as text: `2025-03-27T17:00:00.123456` for times (in UTC, where they have a zone), `2025-03-27`,
plain digits, or the text itself. What a source is asked for may lie a little below what is meant, never above:
a row that is read once more costs nothing, one that is not read is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from pyarrow import types as kinds
from sqlglot import exp

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.units import format_step
from dagster_retl.sources.base import is_local_time

_EXACT = Context(prec=200)
_DAY = timedelta(days=1)


class CursorKind(StrEnum):
    """How the values of a cursor compare. The words are stored."""

    MOMENT = "moment"
    """Timestamps with zone."""
    LOCAL = "local"
    """Timestamps without zone; in UTC where the warehouse has a `timezone` of its own."""
    DATE = "date"
    NUMBER = "number"
    """Integers and decimals."""
    TEXT = "text"
    """Compared byte by byte, as UTF-8."""


def kind_of(column: pa.Field) -> CursorKind:
    """The kind of a column of a query. Raises `ConfigurationError` for a type that cannot be a cursor."""
    kind = column.type
    while kinds.is_dictionary(kind):
        kind = kind.value_type
    if kinds.is_timestamp(kind):
        return CursorKind.LOCAL if kind.tz is None or is_local_time(column) else CursorKind.MOMENT
    for matches, cursor_kind in _KINDS:
        if matches(kind):
            return cursor_kind
    raise ConfigurationError(
        f"column {column.name!r} is of type {kind}, which cannot be a watermark",
        hint="Use a timestamp, a date, an integer, a decimal or text: cast the column in the query.",
    )


def check_step(kind: CursorKind, step: timedelta | Decimal) -> None:
    """Raises `ConfigurationError` where nothing can lie this step below a cursor."""
    if step and (kind is CursorKind.TEXT or isinstance(step, timedelta) == (kind is CursorKind.NUMBER)):
        raise ConfigurationError(
            f"`lookback` cannot be {format_step(step)} where the watermark is a {kind}",
            hint="It is a duration (1h) for times, a number (100) for numbers, and nothing for text.",
        )


_KINDS = (
    (kinds.is_date, CursorKind.DATE),
    (kinds.is_integer, CursorKind.NUMBER),
    (kinds.is_decimal, CursorKind.NUMBER),
    (kinds.is_string, CursorKind.TEXT),
    (kinds.is_large_string, CursorKind.TEXT),
    (kinds.is_string_view, CursorKind.TEXT),
    (kinds.is_null, CursorKind.TEXT),
)


@dataclass(frozen=True, slots=True)
class CursorValue:
    """A value of a cursor; `text` as the module says."""

    kind: CursorKind
    text: str

    @property
    def order(self) -> Any:
        """What values of one kind compare by."""
        return _ORDER[self.kind](self.text)

    def less(self, step: timedelta | Decimal) -> CursorValue | None:
        """The value so far below this one, or a little less; None: below all there are. See `check_step`."""
        if not step:
            return self
        try:
            return CursorValue(self.kind, _LESS[self.kind](self.text, step))
        except OverflowError:
            return None

    def literal(self, dialect: str, timezone: str | None) -> str:
        """SQL for the value, in sqlglot's dialect; timezone: of the warehouse (`SourceSettings`)."""
        if self.kind is CursorKind.NUMBER:
            return self.text
        if self.kind is CursorKind.TEXT:
            return exp.Literal.string(self.text).sql(dialect)
        text = self._local(timezone) if self.kind is CursorKind.LOCAL and timezone else self.text
        return _cast(text.replace("T", " "), self.kind, dialect)

    def _local(self, timezone: str) -> str:
        """The first local time that may stand for this moment: a clock that was set within a day was slower before."""
        moment = datetime.fromisoformat(self.text).replace(tzinfo=UTC)
        zone = ZoneInfo(timezone)
        try:
            offsets = [each.astimezone(zone).utcoffset() or timedelta() for each in (moment - _DAY, moment)]
            return (moment.replace(tzinfo=None) + min(offsets)).isoformat()
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC).isoformat().removesuffix("+00:00")


def _cast(text: str, kind: CursorKind, dialect: str) -> str:
    if dialect == "mysql" and kind is not CursorKind.DATE:  # its session's zone is UTC; a bare DATETIME has no fraction
        return f"CAST({exp.Literal.string(text).sql(dialect)} AS DATETIME(6))"
    zone = "+00:00" if kind is CursorKind.MOMENT else ""
    sql_type = {CursorKind.MOMENT: "TIMESTAMPTZ", CursorKind.LOCAL: "TIMESTAMP", CursorKind.DATE: "DATE"}[kind]
    return exp.cast(exp.Literal.string(text + zone), sql_type).sql(dialect)


def _earlier(text: str, step: timedelta) -> str:
    return (datetime.fromisoformat(text) - step).isoformat()


def _days_earlier(text: str, step: timedelta) -> str:
    return (datetime.fromisoformat(text) - step).date().isoformat()


def _smaller(text: str, step: Decimal) -> str:
    """With no more decimals than the value itself, so that integers are compared with an integer."""
    value = Decimal(text)
    difference = _EXACT.subtract(value, step)
    return format(difference.quantize(Decimal((0, (1,), int(value.as_tuple().exponent))), ROUND_FLOOR, _EXACT), "f")


_LESS: dict[CursorKind, Any] = {
    CursorKind.MOMENT: _earlier,
    CursorKind.LOCAL: _earlier,
    CursorKind.DATE: _days_earlier,
    CursorKind.NUMBER: _smaller,
}
_ORDER: dict[CursorKind, Any] = {
    CursorKind.MOMENT: datetime.fromisoformat,
    CursorKind.LOCAL: datetime.fromisoformat,
    CursorKind.DATE: date.fromisoformat,
    CursorKind.NUMBER: Decimal,
    CursorKind.TEXT: str.encode,
}
