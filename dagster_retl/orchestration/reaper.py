"""The reaper: a sensor that closes the runs of dead processes, and ends their Dagster runs.

The lease says who is dead. A run is closed as soon as its process is seen to be gone, or its lease
has expired; the lease itself stays for the next run of the sync. Dagster is asked only after the
expiry: an executor that lost a step's process has told Dagster long before that, and its run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from dagster_retl.engine.reap import close_dead_runs
from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run
from dagster_retl.orchestration.names import ServiceFactory, sensor_name
from dagster_retl.service import Service
from dagster_retl.store.leases import Holder

INTERVAL = 30
"""Seconds between two looks."""

_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_MARKED = "The process of this run died: its lease of the sync expired, and it cannot be asked to stop."


def reaper_sensor(project: Project, open_service: ServiceFactory, *, of: str | None = None) -> dg.SensorDefinition:
    """The sensor `retl_reaper`, or `retl_reaper_<slug>` of one sync. It runs unless the project's writes are off."""

    @dg.sensor(
        name=sensor_name("retl_reaper", of),
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
        description="Closes runs whose process died, as their leases tell, and ends their Dagster runs.",
    )
    def retl_reaper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with open_service() as service:
            dead = _dead(service)
            closed = close_dead_runs(service.store, service.state, service.project.engine, dead)
            for run in closed:
                context.log.warning("run %s of %s was interrupted: its process is dead", run.id, run.sync_name)
            ended = list(_end_dagster_runs(context, _expired(service, dead)))
        return dg.SkipReason(_report(closed, ended))

    return retl_reaper


def _dead(service: Service) -> list[Holder]:
    """The dead holders of this project's syncs; a store may serve other projects, which have their own reaper."""
    syncs = {sync.id for sync in service.definitions()}
    return [holder for holder in service.store.leases.expired() if holder.sync_id in syncs]


def _expired(service: Service, dead: Sequence[Holder]) -> list[Run]:
    now = service.store.now()
    return [service.run_of(holder.run_id) for holder in dead if holder.expires_at <= now]


def _end_dagster_runs(context: dg.SensorEvaluationContext, runs: Sequence[Run]) -> Iterator[str]:
    """Ask for the end of the Dagster runs that still wait for these; mark those that nobody answers for."""
    steps: dict[str, list[str]] = {}
    for run in runs:
        if run.dagster_run_id is not None:
            steps.setdefault(run.dagster_run_id, []).append(run.sync_name)  # a step is called as its sync
    if not steps:
        return
    waiting = dg.RunsFilter(run_ids=list(steps), statuses=_IN_PROGRESS)
    for record in context.instance.get_run_records(filters=waiting):
        dagster_run = record.dagster_run
        if _waits_for(context.instance, dagster_run, steps[dagster_run.run_id]):
            _end(context, dagster_run)
            yield dagster_run.run_id


def _waits_for(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: Sequence[str]) -> bool:
    """Whether the Dagster run still takes one of the steps for running."""
    known = instance.get_run_step_stats(run.run_id, steps)
    return not known or any(stats.end_time is None for stats in known)


def _end(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> None:
    """SAFE_TERMINATE; where there is nobody to ask, or who was asked does not end, MARK_AS_CANCELED_IMMEDIATELY."""
    if run.status is not dg.DagsterRunStatus.CANCELING and _asked(context, run):
        return
    current = context.instance.get_run_by_id(run.run_id)
    if current is not None and not current.is_finished:
        context.instance.report_run_canceled(current, message=_MARKED)


def _asked(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether somebody took the request to stop the run, which is `canceling` from then on."""
    try:
        return context.instance.run_coordinator.cancel_run(run.run_id)
    except dg.DagsterError as error:
        context.log.warning("Dagster run %s cannot be asked to stop: %s", run.run_id, error)
        return False


def _report(closed: Sequence[Run], ended: Sequence[str]) -> str:
    if not closed and not ended:
        return "no run has lost its process"
    runs = ", ".join(f"{run.id} ({run.sync_name})" for run in closed) or "none"
    return f"runs closed: {runs}; Dagster runs ended: {', '.join(ended) or 'none'}"
