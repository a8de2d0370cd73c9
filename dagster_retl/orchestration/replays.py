"""The replay sensor: it launches the replays that were asked for and that nobody else launches.

They stand in the store, marked on their dead letters; the sensor remembers nothing. A replay keeps its
run from one Dagster run to the next, and the number of those that ended before they began it is part of
the run key: a tick that is evaluated twice launches once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.circuit import why_left_alone
from dagster_retl.orchestration.names import (
    RUN_TAG,
    TRIGGER_TAG,
    ServiceFactory,
    asset_key,
    job_name,
    run_tags,
    sensor_name,
)
from dagster_retl.service import Service
from dagster_retl.service.health import Outage
from dagster_retl.service.runs import NOTHING_LEFT

INTERVAL = 30
"""Seconds between two looks at what waits."""

LAUNCHES = 20
"""Replays that one tick launches; the others wait for the next."""

ATTEMPTS = 5
"""Dagster runs of one replay that may end before they begin it."""


def replay_sensor(
    project: Project, open_service: ServiceFactory, jobs: Mapping[str, Any], *, of: str | None = None
) -> dg.SensorDefinition:
    """The sensor `retl_replays`, or `retl_replays_<slug>` of one sync. It runs unless the project's writes are off.

    jobs: those of the project's syncs, by name; of one sync: its only one.
    """

    def job_of(sync: Sync) -> str:
        return job_name(sync) if of is None else next(iter(jobs))

    @dg.sensor(
        name=sensor_name("retl_replays", of),
        jobs=list(jobs.values()),
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
        description="Sends dead letters again whose replay was asked for and could not begin at once.",
    )
    def retl_replays(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with open_service() as service:
            requests, notes = _Tick(service, context.instance, project, service.outages(), job_of).run()
        if requests:
            for note in notes:
                context.log.info(note)
            return dg.SensorResult(run_requests=requests)
        return dg.SensorResult(skip_reason="; ".join(notes) or "no replay waits")

    return retl_replays


@dataclass(frozen=True, slots=True)
class _Tick:
    """A look at the replays that wait."""

    service: Service
    instance: dg.DagsterInstance
    project: Project
    outages: Mapping[str, Outage]
    job_of: Callable[[Sync], str]

    def run(self) -> tuple[list[dg.RunRequest], list[str]]:
        """What to launch, and why the others wait."""
        syncs = {sync.id: sync for sync in self.project.syncs}
        requests: list[dg.RunRequest] = []
        notes: list[str] = []
        for run in self.service.waiting_replays(syncs):
            if len(requests) == LAUNCHES:
                notes.append("other replays wait for the next tick")
                break
            decided = self._decide(run, syncs[run.sync_id])
            if isinstance(decided, dg.RunRequest):
                requests.append(decided)
            else:
                notes.append(f"{run.id}: {decided}")
        return requests, notes

    def _decide(self, run: Run, sync: Sync) -> dg.RunRequest | str:
        for reason in (self._nothing_left, self._sync_is_busy, self._destination_is_down):
            if (said := reason(run, sync)) is not None:
                return said
        return self._launch(run, sync)

    def _nothing_left(self, run: Run, sync: Sync) -> str | None:
        if self.service.store.replays.entries(run.id):
            return None
        self.service.close_replay(run, RunStatus.CANCELLED, NOTHING_LEFT)
        return NOTHING_LEFT

    def _sync_is_busy(self, run: Run, sync: Sync) -> str | None:
        if not self.service.is_enabled(sync):
            return f"sync {sync.name!r} is disabled; `retl syncs enable {sync.slug}` lets it go on"
        running = self.service.running(sync)
        return None if running is None else f"sync {sync.name!r} is being run by {running}"

    def _destination_is_down(self, run: Run, sync: Sync) -> str | None:
        return why_left_alone(self.outages, sync, self.service.store.now())

    def _launch(self, run: Run, sync: Sync) -> dg.RunRequest | str:
        """A request for the next Dagster run of the replay, unless one is on its way or too many came to nothing."""
        tried = [record.dagster_run for record in self._dagster_runs(run)]
        ended = [each for each in tried if each.is_finished]
        under_way = [each.run_id for each in tried if not each.is_finished and not _only_created(each)]
        if under_way:
            return f"Dagster run {under_way[0]} is on its way"
        if any(each.status is dg.DagsterRunStatus.CANCELED for each in ended):
            self.service.close_replay(run, RunStatus.CANCELLED, "somebody cancelled its Dagster run before it began")
            return "its Dagster run was cancelled"
        if len(ended) >= ATTEMPTS:
            said = f"{len(ended)} Dagster runs ended before it began, {ended[0].run_id} last"
            self.service.close_replay(run, RunStatus.FAILED, said)
            return said
        return dg.RunRequest(
            run_key=f"{run.id}/{len(ended)}",
            run_config={"ops": {sync.slug: {"config": {"run_id": run.id}}}},
            asset_selection=[asset_key(sync)],
            partition_key=run.partition,
            job_name=self.job_of(sync),
            tags={**run_tags(sync), TRIGGER_TAG: run.trigger, RUN_TAG: run.id},
        )

    def _dagster_runs(self, run: Run) -> list[dg.RunRecord]:
        """Newest first."""
        return list(self.instance.get_run_records(filters=dg.RunsFilter(tags={RUN_TAG: run.id})))


def _only_created(run: dg.DagsterRun) -> bool:
    """Whether whoever created the run may have died before it launched it; the same request again launches it."""
    return run.status is dg.DagsterRunStatus.NOT_STARTED
