"""What is wrong now, as the store says: by kind, destination and code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dagster_retl.errors import ErrorCode
from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.service.health import Outage
from dagster_retl.store.dead_letters import OpenGroup


class Kind(StrEnum):
    """What people can be told about: what `alerts.on` calls it, and which of the thresholds."""

    RUN_FAILED = "run_failed"
    DESTINATION_DOWN = "destination_down"
    GUARD_TRIPPED = "guard_tripped"
    DEAD_LETTERS = "dead_letters"
    FAILURE_RATE = "dead_letters.rate"
    LETTER_AGE = "dead_letters.age"
    STALE = "stale"

    @property
    def event(self) -> str:
        """What `alerts.on` calls it."""
        return self.value.partition(".")[0]


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What a message is about, whatever the number of syncs. `code`: of the error, or the guard's name, or empty."""

    kind: Kind
    destination_id: str
    code: str


@dataclass(frozen=True, slots=True)
class Late:
    """succeeded: when it last did; None: never. due: when it was to have succeeded again."""

    succeeded: datetime | None
    due: datetime


@dataclass(frozen=True, slots=True)
class Trouble:
    """A subject that is in trouble.

    syncs: in the project's order. since: of the first sign of it that the store still shows.
    runs: the run of each sync that shows it, by slug. letters: the open dead letters of each, by slug.
    outage: of a destination that is down, whose syncs all wait. late: how late each is, by slug. limit: what a rule
    allows, in words.
    """

    subject: Subject
    syncs: Sequence[Sync]
    since: datetime
    runs: Mapping[str, Run]
    letters: Mapping[str, OpenGroup]
    outage: Outage | None = None
    late: Mapping[str, Late] = field(default_factory=dict)
    limit: str = ""

    @property
    def entries(self) -> int:
        """Open dead letters."""
        return sum(group.entries for group in self.letters.values())

    @property
    def rows(self) -> int:
        """Rows of the query that the dead letters stand for."""
        return sum(group.rows for group in self.letters.values())


def troubles(
    project: Project, attempts: Mapping[str, Run], groups: Iterable[OpenGroup], outages: Iterable[Outage] = ()
) -> list[Trouble]:
    """The troubles of a project's syncs, ordered by subject.

    attempts: the last attempt of each sync, by sync id. groups: of open dead letters; those of
    other projects' syncs, which a store may hold too, are left out. outages: of the project's destinations. A run
    that failed because its destination was down is part of that, and of nothing once it answers again.
    """
    others = {sync_id: run for sync_id, run in attempts.items() if run.error_code != ErrorCode.DESTINATION_DOWN}
    down = [_down(project, outage, attempts) for outage in outages]
    found = [*_failing(project, others), *_dead_letters(project, groups), *down]
    return sorted(found, key=lambda each: each.subject)


def _down(project: Project, outage: Outage, attempts: Mapping[str, Run]) -> Trouble:
    """One subject, whatever the reason says meanwhile."""
    syncs = [sync for sync in project.syncs if sync.destination_id == outage.destination_id]
    tried = {sync.slug: attempts[sync.id] for sync in syncs if sync.id in attempts}
    failed = {slug: run for slug, run in tried.items() if run.error_code == ErrorCode.DESTINATION_DOWN}
    subject = Subject(Kind.DESTINATION_DOWN, outage.destination_id, ErrorCode.DESTINATION_DOWN)
    return Trouble(subject, syncs, outage.since, failed, {}, outage=outage)


def failing(attempts: Mapping[str, Run]) -> set[str]:
    """Ids of the syncs whose last attempt failed."""
    return {sync_id for sync_id, run in attempts.items() if run.status is RunStatus.FAILED}


def _failing(project: Project, attempts: Mapping[str, Run]) -> list[Trouble]:
    failed = failing(attempts)
    grouped: dict[Subject, list[Sync]] = {}
    for sync in project.syncs:
        if sync.id in failed:
            grouped.setdefault(_subject_of(sync, attempts[sync.id]), []).append(sync)
    return [_failed(subject, syncs, attempts) for subject, syncs in grouped.items()]


def _subject_of(sync: Sync, run: Run) -> Subject:
    if run.error_code == ErrorCode.GUARD_TRIPPED and run.guard:
        return Subject(Kind.GUARD_TRIPPED, sync.destination_id, run.guard)
    return Subject(Kind.RUN_FAILED, sync.destination_id, run.error_code or ErrorCode.UNKNOWN)


def _failed(subject: Subject, syncs: Sequence[Sync], attempts: Mapping[str, Run]) -> Trouble:
    runs = {sync.slug: attempts[sync.id] for sync in syncs}
    since = min(run.finished_at or run.created_at for run in runs.values())
    return Trouble(subject, syncs, since, runs, {})


def _dead_letters(project: Project, groups: Iterable[OpenGroup]) -> list[Trouble]:
    by_id = {sync.id: sync for sync in project.syncs}
    grouped: dict[Subject, dict[str, OpenGroup]] = {}
    for group in groups:
        sync = by_id.get(group.sync_id)
        if sync is not None:
            subject = Subject(Kind.DEAD_LETTERS, sync.destination_id, group.error_code)
            grouped.setdefault(subject, {})[sync.slug] = group
    return [_open(project, subject, found) for subject, found in grouped.items()]


def _open(project: Project, subject: Subject, found: Mapping[str, OpenGroup]) -> Trouble:
    syncs = [sync for sync in project.syncs if sync.slug in found]
    return Trouble(subject, syncs, min(group.oldest for group in found.values()), {}, found)
