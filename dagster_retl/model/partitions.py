"""Partitions: a sync's query read in parts, one run each, by windows of time or by fixed keys (tenants).

Keys and windows are those of Dagster's partitions definitions of the same name: `2026-01-31` for a day, a
week (from Sunday) or a month (its first day), `2026-01-31-14:00` for an hour. What the store and the snapshot
keep of a partition is its `identity`, which tells windows of one start and of different lengths apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import field_validator, model_validator

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.definition import Definition
from dagster_retl.model.locations import check_timezone
from dagster_retl.model.mistakes import did_you_mean

_UTC_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_SUNDAY = 6


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition. start, end: of its window, in UTC, the end excluded; None for a fixed key."""

    key: str
    start: datetime | None = None
    end: datetime | None = None

    @property
    def identity(self) -> str:
        """What is kept of it: `=eu`, or the window, `2026-01-31T00:00:00Z/2026-02-01T00:00:00Z`."""
        if self.start is None or self.end is None:
            return f"={self.key}"
        return f"{self.start.strftime(_UTC_FORMAT)}/{self.end.strftime(_UTC_FORMAT)}"

    @property
    def until(self) -> str | None:
        """The end of the window as `identity` has it: windows that start there or later are later ones."""
        return None if self.end is None else self.end.strftime(_UTC_FORMAT)

    def to_json(self) -> dict[str, str]:
        """As the options of a run keep it."""
        window = {"start": self.start, "end": self.end}
        return {"key": self.key, **{name: at.strftime(_UTC_FORMAT) for name, at in window.items() if at is not None}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        start, end = (_from_utc(data[name]) if data.get(name) else None for name in ("start", "end"))
        return cls(data["key"], start, end)


class Partitions(Definition):
    """How a sync's query is parted: windows of time (`hourly`, `daily`, `weekly`, `monthly`), or fixed keys."""

    type: Literal["hourly", "daily", "weekly", "monthly", "static"]
    """What a partition is."""
    start: date | None = None
    """The day from which there are windows."""
    end: date | None = None
    """The day at which the last window ends, if not before."""
    timezone: str = "UTC"
    """IANA time zone in which a day begins."""
    keys: tuple[str, ...] = ()
    """The keys of `static` partitions, such as tenants."""
    backfill: Literal["single_run", "run_per_partition"] = "single_run"
    """Whether a backfill is one Dagster run, or one for each partition."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"type": "static", "keys": value} if isinstance(value, (list, tuple)) else value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        return check_timezone(value)

    @field_validator("keys")
    @classmethod
    def _usable_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if not key.strip() or key != key.strip() or not key.isprintable() or "..." in key:
                raise ValueError(f"{key!r} cannot be a partition: use printable text without `...` or outer blanks")
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"partition {twice[0]!r} is named twice")
        return keys

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "static":
            if not self.keys or self.start or self.end or self.timezone != "UTC":
                raise ValueError("`static` partitions need `keys`, and nothing else")
        elif self.start is None or self.keys:
            raise ValueError(f"`{self.type}` partitions need a `start` such as 2026-01-01, and have no `keys`")
        elif self.type == "hourly" and self.timezone != "UTC":
            raise ValueError("`hourly` partitions are hours of UTC: leave `timezone` out")
        elif self.end is not None and not self._covers(self.example()):
            raise ValueError(f"no `{self.type}` window lies between `start` and `end`")
        return self

    @property
    def windowed(self) -> bool:
        """Whether partitions are windows of time."""
        return self.type != "static"

    def partition(self, key: str, now: datetime) -> Partition:
        """The partition with this key. Raises `ConfigurationError` where there is none (a window yet to end too)."""
        if not self.windowed:
            if key not in self.keys:
                hint = did_you_mean(key, list(self.keys)) or f"There are: {', '.join(self.keys)}."
                raise ConfigurationError(f"there is no partition {key!r}", hint=hint)
            return Partition(key)
        first = self._first(key)
        found = None if first is None else self._window(first)
        if found is None or found.key != key or not self._covers(found):
            raise ConfigurationError(f"there is no {self.type} partition {key!r}", hint=self._hint(now))
        if found.end is not None and found.end > now:
            raise ConfigurationError(
                f"partition {key!r} is not over before {found.until}", hint="A window is read when it is over."
            )
        return found

    def example(self) -> Partition:
        """Some partition, to try a query with."""
        if not self.windowed:
            return Partition(self.keys[0])
        begin = datetime.combine(self._begin, time())
        first = self._floor(begin)
        return self._window(first if first == begin else self._next(first))

    def latest(self, now: datetime) -> Partition | None:
        """The last window that is over; None where there is none yet, or where partitions are fixed keys."""
        if not self.windowed:
            return None
        first = self._previous(self._floor(now.astimezone(self._zone).replace(tzinfo=None)))
        if self.end is not None:
            first = min(first, self._previous(self._floor(datetime.combine(self.end, time()))))
        found = self._window(first)
        return found if self._covers(found) else None

    def at(self, identity: str) -> Partition | None:
        """The partition that something kept belongs to; None: the sync is parted differently by now."""
        if not self.windowed or "/" not in identity:
            return Partition(identity[1:]) if identity[:1] == "=" and identity[1:] in self.keys else None
        found = self._window(self._local(_from_utc(identity.partition("/")[0])))
        return found if found.identity == identity else None

    @property
    def _begin(self) -> date:
        return self.start or date.min

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def _format(self) -> str:
        return "%Y-%m-%d-%H:%M" if self.type == "hourly" else "%Y-%m-%d"

    def _first(self, key: str) -> datetime | None:
        """The local time that a key says; None: it says none at which a window begins."""
        try:
            first = datetime.strptime(key, self._format)  # noqa: DTZ007 its zone is added by `_window`
        except ValueError:
            return None
        return first if self._floor(first) == first else None

    def _floor(self, local: datetime) -> datetime:
        """The beginning of the window that a local time lies in."""
        if self.type == "hourly":
            return local.replace(minute=0, second=0, microsecond=0)
        day = local.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.type == "weekly":
            return day - timedelta(days=(day.weekday() - _SUNDAY) % 7)
        return day.replace(day=1) if self.type == "monthly" else day

    def _next(self, first: datetime) -> datetime:
        if self.type == "monthly":
            return (first + timedelta(days=31)).replace(day=1)
        return first + {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}.get(self.type, timedelta(days=7))

    def _previous(self, first: datetime) -> datetime:
        return self._floor(first - timedelta(minutes=1))

    def _window(self, first: datetime) -> Partition:
        start, end = (at.replace(tzinfo=self._zone).astimezone(UTC) for at in (first, self._next(first)))
        return Partition(first.strftime(self._format), start, end)

    def _local(self, moment: datetime) -> datetime:
        return self._floor(moment.astimezone(self._zone).replace(tzinfo=None))

    def _covers(self, window: Partition) -> bool:
        if window.start is None or window.end is None:
            return False
        first, end = (at.astimezone(self._zone).replace(tzinfo=None) for at in (window.start, window.end))
        return first.date() >= self._begin and (self.end is None or end <= datetime.combine(self.end, time()))

    def _hint(self, now: datetime) -> str:
        latest = self.latest(now)
        return "No window is over yet." if latest is None else f"The last one that is over is {latest.key}."


def named(identity: str | None) -> str | None:
    """An `identity` as people read it: the fixed key, or the window."""
    return None if identity is None else identity.removeprefix("=")


def _from_utc(text: str) -> datetime:
    return datetime.strptime(text, _UTC_FORMAT).replace(tzinfo=UTC)
