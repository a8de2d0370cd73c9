"""Syncs that have had no successful run for longer than their schedules allow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run
from dagster_retl.model.sync import Sync
from dagster_retl.model.sync_settings import Schedule
from dagster_retl.orchestration.alerting.troubles import Kind, Late, Subject, Trouble
from dagster_retl.orchestration.alerting.watches import Watch
from dagster_retl.orchestration.freshness import overdue_after


def scheduled(project: Project, enabled: Mapping[str, bool]) -> list[Sync]:
    """The syncs that a clock is to run: not those that are disabled, manual, or wait for upstreams, or write nothing.

    enabled: what people decided, by sync id.
    """
    if not project.writes:
        return []
    return [sync for sync in project.syncs if sync.schedule.type == "cron" and enabled.get(sync.id, sync.enabled)]


def stale(
    syncs: Iterable[Sync], watches: Mapping[str, Watch], successes: Mapping[str, Run], now: datetime
) -> list[Trouble]:
    """One trouble for each destination that has stale syncs.

    syncs: those that are scheduled. watches: of these, by sync id. successes: the last run of each that
    read its whole query and succeeded.
    """
    grouped: dict[Subject, list[tuple[Sync, Late]]] = {}
    for sync in syncs:
        late = _late(sync, watches[sync.id], successes.get(sync.id))
        if late.due < now:
            grouped.setdefault(Subject(Kind.STALE, sync.destination_id, ""), []).append((sync, late))
    return [_stale(subject, grouped[subject]) for subject in sorted(grouped)]


def _stale(subject: Subject, found: list[tuple[Sync, Late]]) -> Trouble:
    late = {sync.slug: each for sync, each in found}
    return Trouble(subject, [sync for sync, _ in found], min(each.due for each in late.values()), {}, {}, late=late)


def _late(sync: Sync, watch: Watch, success: Run | None) -> Late:
    succeeded = success.finished_at if success else None
    signs = [succeeded or watch.since, *([watch.since] if watch.changed else [])]
    return Late(succeeded, due(sync.schedule, max(signs)))


def due(schedule: Schedule, begin: datetime) -> datetime:
    """When the next success after `begin` is overdue.

    Where clocks are set back in between, an hour later: a pause of the schedule is longer on that day.
    """
    until = begin + overdue_after(str(schedule.expression))
    return until + max(_offset(schedule, begin) - _offset(schedule, until), timedelta(0))


def _offset(schedule: Schedule, moment: datetime) -> timedelta:
    return moment.astimezone(ZoneInfo(schedule.timezone)).utcoffset() or timedelta(0)
