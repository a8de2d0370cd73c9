"""What is wrong now, for each channel: its own limits decide what it takes for trouble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.alerting.channels import Channel
from dagster_retl.orchestration.alerting.limits import above_rate, beyond_age
from dagster_retl.orchestration.alerting.memory import Said
from dagster_retl.orchestration.alerting.staleness import scheduled, stale
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble, failing, troubles
from dagster_retl.orchestration.alerting.watches import Watches
from dagster_retl.service import Service
from dagster_retl.store.store import Store


class Look:
    """A look at the store. What no channel follows is not asked for."""

    def __init__(self, service: Service, project: Project, watches: Watches, told: Sequence[Channel]) -> None:
        store = service.store
        self.now = store.now()
        self._project = project
        self._ids = [sync.id for sync in project.syncs]
        self._attempts = store.runs.last_attempts(self._ids)
        self._groups = store.dead_letters.open_groups()
        self._scheduled: list[Sync] = []
        outages = service.outages(self._attempts.values()).values()
        found = troubles(project, self._attempts, self._groups, outages)
        if any(channel.follows(Kind.STALE) for channel in told):
            found += self._stale(store, watches)
        self._rated = self._last_read(store) if any(channel.follows(Kind.FAILURE_RATE) for channel in told) else {}
        self._found = {trouble.subject: trouble for trouble in found}
        self._present = {channel.id: self._found | self._beyond_limits(channel) for channel in told}

    def present(self, channel: Channel) -> Mapping[Subject, Trouble]:
        """The troubles that there are, in the eyes of a channel."""
        return self._present[channel.id]

    def well(self, subject: Subject, said: Said) -> bool:
        """Whether the end of a trouble is good news: its syncs are still there, and fail for no other reason."""
        if subject.kind is Kind.DESTINATION_DOWN:
            return subject.destination_id in self._project.destinations
        syncs = {sync.id for sync in self._project.syncs if sync.slug in said.syncs}
        if not syncs or subject.destination_id not in self._project.destinations:
            return False
        if subject.kind is Kind.STALE and not syncs & {sync.id for sync in self._scheduled}:
            return False
        return subject.kind.event == Kind.DEAD_LETTERS.event or not failing(self._attempts) & syncs

    def _stale(self, store: Store, watches: Watches) -> list[Trouble]:
        self._scheduled = scheduled(self._project, store.states.all())
        ids = {sync.id for sync in self._scheduled}
        watched = watches.follow(self._project.syncs, ids)
        return stale(self._scheduled, watched, store.whole_runs.successes(ids), store.now())

    def _last_read(self, store: Store) -> dict[str, Run]:
        """The last run of each sync that read its query; one that could not says nothing about rows."""
        attempts = store.whole_runs.attempts(self._ids)
        read = {sync_id: run for sync_id, run in attempts.items() if run.counters.read or not _failed(run)}
        return store.whole_runs.successes(attempts.keys() - read.keys()) | read

    def _beyond_limits(self, channel: Channel) -> dict[Subject, Trouble]:
        rate, age = channel.rate, channel.age
        found = [] if rate is None else above_rate(self._project, self._rated, rate)
        found += [] if age is None else beyond_age(self._project, self._groups, age, self.now)
        return {trouble.subject: trouble for trouble in found}


def _failed(run: Run) -> bool:
    return run.status is RunStatus.FAILED
