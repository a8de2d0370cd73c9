"""Schedules: one for each sync with a cron expression, running by default."""

from __future__ import annotations

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.circuit import left_alone
from dagster_retl.orchestration.names import TRIGGER_TAG, ServiceFactory, asset_key, job_name, run_tags
from dagster_retl.orchestration.partitions import requests


def sync_schedules(
    project: Project, service_factory: ServiceFactory, *, job: str | None = None
) -> list[dg.ScheduleDefinition]:
    """The schedules of a project, named after the syncs' slugs. job: of all of them, instead of each one's own."""
    return [
        sync_schedule(project, sync, service_factory, job or job_name(sync))
        for sync in project.syncs
        if sync.schedule.type == "cron"
    ]


def sync_schedule(project: Project, sync: Sync, service_factory: ServiceFactory, job: str) -> dg.ScheduleDefinition:
    """A schedule that asks the store at each tick whether its sync is enabled."""
    running = project.writes  # `enabled` is asked at each tick, so that enabling needs no reload

    @dg.schedule(
        str(sync.schedule.expression),
        name=sync.slug,
        job_name=job,
        execution_timezone=sync.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=f"Runs sync {sync.name!r}." + ("" if running else " Writes are off: it is declared stopped."),
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | list[dg.RunRequest] | dg.SkipReason:
        with service_factory() as service:
            if not service.is_enabled(sync):
                return dg.SkipReason(f"sync {sync.name!r} is disabled; `retl syncs enable {sync.slug}` starts it")
            if (running := service.running(sync)) is not None:
                return dg.SkipReason(f"sync {sync.name!r} is still being run by {running}")
            if (down := left_alone(service, sync)) is not None:
                return dg.SkipReason(down)
        tags = {**run_tags(sync), TRIGGER_TAG: "schedule"}
        if sync.partitions is not None:
            return requests(sync, sync.partitions, context.scheduled_execution_time, tags)
        return dg.RunRequest(asset_selection=[asset_key(sync)], tags=tags)

    return tick
