"""How fresh a scheduled sync is expected to be: Dagster shows it, and alerts tell of syncs that are not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import dagster as dg
from croniter import croniter

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync

GRACE = timedelta(minutes=15)
"""What a run may take, at least, beyond its schedule."""

_EVERY_DAY = "* * *"
_DAYS = 400
_ANY_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def freshness_policy(project: Project, sync: Sync) -> dg.FreshnessPolicy | None:
    """Overdue as `overdue_after` says. None: it has no schedule, is disabled, or writes nothing."""
    if sync.schedule.expression is None or not project.writes or not sync.enabled:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=overdue_after(sync.schedule.expression))


@lru_cache(maxsize=1_000)
def overdue_after(expression: str) -> timedelta:
    """How long its last success may be ago: the longest pause of the schedule and a tenth of it, `GRACE` at least."""
    longest = _longest_pause(expression)
    return longest + max(GRACE, longest / 10)


def _longest_pause(expression: str) -> timedelta:
    """The longest time between two ticks: within a day, or over a night, a week-end, a month."""
    (minutes, hours, *_), _ = croniter.expand(expression)
    times = sorted(timedelta(hours=hour, minutes=minute) for hour in _all(hours, 24) for minute in _all(minutes, 60))
    over_night = _days_apart(" ".join(expression.split()[2:])) + times[0] - times[-1]
    return max([over_night, *(later - earlier for earlier, later in pairwise(times))])


def _all(values: Sequence[int | str], count: int) -> Sequence[int]:
    """A field of an expression as numbers."""
    return range(count) if list(values) == ["*"] else [int(value) for value in values]


@lru_cache(maxsize=1_000)
def _days_apart(days: str) -> timedelta:
    """The longest time from one day of a schedule to its next, in more than a year."""
    if days == _EVERY_DAY:
        return timedelta(days=1)
    midnights = croniter(f"0 0 {days}", _ANY_MONDAY, ret_type=datetime)
    times = [midnights.get_next() for _ in range(_DAYS)]
    longest: timedelta = max(later - earlier for earlier, later in pairwise(times))
    return longest
