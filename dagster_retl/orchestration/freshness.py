"""How fresh a scheduled sync is expected to be: Dagster shows it, and warns in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import dagster as dg
from croniter import croniter

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync

GRACE = timedelta(minutes=15)
"""What a run may take, at least, beyond its schedule."""

_TICKS = 60
_ANY_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def freshness_policy(project: Project, sync: Sync) -> dg.FreshnessPolicy | None:
    """Overdue after its longest pause and a tenth of it, `GRACE` at least.

    None: it has no schedule, is disabled, or writes nothing.
    """
    if sync.schedule.expression is None or not project.writes or not sync.enabled:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=_window(sync.schedule.expression))


def _window(expression: str) -> timedelta:
    longest = _longest_pause(_at_midnight(expression))
    return longest + max(GRACE, longest / 10)


def _at_midnight(expression: str) -> str:
    """The expression at the full hour, or at midnight, where it has but one minute or hour: its pauses are the same."""
    minute, hour, *days = expression.split()
    return " ".join(["0" if minute.isdigit() else minute, "0" if hour.isdigit() else hour, *days])


@lru_cache(maxsize=1_000)
def _longest_pause(expression: str) -> timedelta:
    """The longest time between two ticks, of the next few dozen; nights and week-ends are among them."""
    ticks = croniter(expression, _ANY_MONDAY, ret_type=datetime)
    times = [ticks.get_next() for _ in range(_TICKS)]
    longest: timedelta = max(later - earlier for earlier, later in pairwise(times))
    return longest
