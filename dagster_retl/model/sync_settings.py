"""The parts of a sync's definition that are settings of their own: when it runs, what stops it, what is checked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from croniter import croniter
from pydantic import Field, field_validator, model_validator

from dagster_retl.model.definition import Definition
from dagster_retl.model.locations import check_timezone
from dagster_retl.model.units import Duration, Share, Step


class Schedule(Definition):
    """When a sync runs by itself: `cron` with an expression and an IANA time zone, `manual`, or `on_upstream`."""

    type: Literal["cron", "manual", "on_upstream"] = "manual"
    """What starts a run."""
    expression: str | None = None
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    """IANA time zone of the expression."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value in ("manual", "on_upstream"):
                return {"type": value}
            return {"type": "cron", "expression": value}
        return value

    @field_validator("expression")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None and (len(value.split()) != 5 or not croniter.is_valid(value)):
            raise ValueError(f"{value!r} is not a cron expression of five fields, such as '15 */4 * * *'")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        return check_timezone(value)

    @model_validator(mode="after")
    def _cron_has_expression(self) -> Self:
        if (self.type == "cron") != (self.expression is not None):
            raise ValueError("a cron schedule needs an `expression`; other schedules have none")
        return self


class Guards(Definition):
    """Shares (0 to 1) above which a run stops before it writes.

    deletes: keys removed, of those in the snapshot (and more than 10 of them; all of them always).
    shrink: rows fewer than in the last run, where removals are computed. failures: refused rows,
    above which the failure-rate check is an error.
    """

    deletes: Share = 0.10
    """Keys removed, of those in the snapshot."""
    shrink: Share = 0.50
    """Rows fewer than in the last run."""
    failures: Share = 0.05
    """Refused rows."""


class DeadLetterCheck(Definition):
    """When the open dead letters of a sync are worth a warning."""

    open: int = Field(0, ge=0)
    """More open entries than this."""
    age: Duration = timedelta(hours=24)
    """An entry that has been open for longer."""


class Checks(Definition):
    """Asset checks beyond the two that every sync has."""

    dead_letters: DeadLetterCheck | None = None
    """Are there too many open dead letters, or too old ones?"""
    unique_keys: bool = False
    """Does every row of the query have a key of its own? Reads the query once more."""
    destination_contract: bool = False
    """Are the mapped fields still there, of the same type, and all that are required? Asks the destination."""

    @property
    def names(self) -> list[str]:
        """Those that are asked for."""
        return [name for name in type(self).model_fields if getattr(self, name)]


class Watermark(Definition):
    """Change detection by a column that grows with each change of a row."""

    watermark: str = Field(min_length=1)
    """A column of the query: a timestamp, a date, a number or text."""
    lookback: Step = timedelta(0)
    """How far below the highest value seen rows are read again: a duration for times, a number for numbers."""
