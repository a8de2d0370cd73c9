"""Dead letters beyond what a rule allows: too many rows of a run, or open for too long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run
from dagster_retl.model.sync import Sync
from dagster_retl.model.units import format_duration
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.store.dead_letters import OpenGroup


def failure_rate(run: Run) -> float:
    """The share of a run's rows that failed; 0 for a run that read nothing."""
    return run.counters.failed / run.counters.read if run.counters.read else 0.0


def above_rate(project: Project, runs: Mapping[str, Run], limit: float) -> list[Trouble]:
    """One trouble for each destination of whose syncs a larger share of rows failed in their last run.

    runs: by sync id.
    """
    grouped: dict[Subject, list[Sync]] = {}
    for sync in project.syncs:
        if sync.id in runs and failure_rate(runs[sync.id]) > limit:
            grouped.setdefault(Subject(Kind.FAILURE_RATE, sync.destination_id, ""), []).append(sync)
    return [_above(subject, grouped[subject], runs, limit) for subject in sorted(grouped)]


def _above(subject: Subject, syncs: list[Sync], runs: Mapping[str, Run], limit: float) -> Trouble:
    mine = {sync.slug: runs[sync.id] for sync in syncs}
    since = min(run.finished_at or run.created_at for run in mine.values())
    return Trouble(subject, syncs, since, mine, {}, limit=f"{limit * 100:g}%")


def beyond_age(project: Project, groups: Iterable[OpenGroup], limit: timedelta, now: datetime) -> list[Trouble]:
    """One trouble for each destination and code of which dead letters have been open for longer."""
    by_id = {sync.id: sync for sync in project.syncs}
    grouped: dict[Subject, dict[str, OpenGroup]] = {}
    for group in groups:
        sync = by_id.get(group.sync_id)
        if sync is not None and now - group.oldest > limit:
            subject = Subject(Kind.LETTER_AGE, sync.destination_id, group.error_code)
            grouped.setdefault(subject, {})[sync.slug] = group
    return [_old(project, subject, grouped[subject], limit) for subject in sorted(grouped)]


def _old(project: Project, subject: Subject, found: Mapping[str, OpenGroup], limit: timedelta) -> Trouble:
    syncs = [sync for sync in project.syncs if sync.slug in found]
    oldest = min(group.oldest for group in found.values())
    return Trouble(subject, syncs, oldest, {}, found, limit=format_duration(limit))
