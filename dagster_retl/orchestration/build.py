"""`build_definitions`: a project as Dagster definitions.

It reads the list of syncs, of the project and of its store, and nothing else: no warehouse, no vendor.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from dagster_retl.engine.phase import OnPhase
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.orchestration.alerts import alert_sensor
from dagster_retl.orchestration.assets import OUTAGE_RETRIES, Progress, sync_asset
from dagster_retl.orchestration.names import JOB_NAME, PROJECT_TAG, ServiceFactory
from dagster_retl.orchestration.reaper import reaper_sensor
from dagster_retl.orchestration.resources import project_resources
from dagster_retl.orchestration.schedules import sync_schedules
from dagster_retl.service import Service
from dagster_retl.syncs.catalog import with_stored_syncs


def build_definitions(
    project: Project,
    *,
    retry_policy: dg.RetryPolicy = OUTAGE_RETRIES,
    on_progress: Progress | None = None,
    on_phase: OnPhase | None = None,
    stored_syncs: bool = True,
) -> dg.Definitions:
    """Assets, checks, schedules, sensors, resources and the job `retl_syncs` of a project.

    retry_policy: when Dagster tries a run again that ended because the warehouse or the
    destination was down; other failures are not retried. on_progress, on_phase: called with the
    counters and phases of the runs of this process. stored_syncs: whether those are included that were made
    through the API and live in the project's store. Raises `ConfigurationError` for a sync whose slug, owners or
    tags Dagster refuses, `StoreError` when the store cannot be read.
    """
    service_factory = service_factory_of(project)
    if stored_syncs:
        project = with_stored_syncs(project)
    assets = [
        sync_asset(
            project, sync, service_factory, retry_policy=retry_policy, on_progress=on_progress, on_phase=on_phase
        )
        for sync in project.syncs
    ]
    sensors = [alert_sensor(project, service_factory), reaper_sensor(project, service_factory)]
    _refuse_taken_names(project, [JOB_NAME, *(sensor.name for sensor in sensors)])
    job = dg.define_asset_job(
        JOB_NAME,
        selection=dg.AssetSelection.assets(*assets),
        description="Runs syncs; each run selects the assets of those it is for.",
        executor_def=dg.in_process_executor,
        tags={PROJECT_TAG: project.project},
    )
    return dg.Definitions(
        assets=assets,
        jobs=[job],
        schedules=sync_schedules(project, service_factory),
        sensors=sensors,
        resources=project_resources(project),
    )


def service_factory_of(project: Project) -> ServiceFactory:
    """Opens the project's service when it is called."""

    def open_service() -> Service:
        return Service.open(project)

    return open_service


def _refuse_taken_names(project: Project, taken: Iterable[str]) -> None:
    """A schedule is named after its sync, and shares its names with jobs and sensors."""
    for name in taken:
        for sync in project.syncs:
            if sync.slug == name:
                raise ConfigurationError(
                    f"sync {sync.name!r} cannot have the slug {name!r}: a job or sensor of that name exists",
                    hint="Give it another `slug`.",
                )
