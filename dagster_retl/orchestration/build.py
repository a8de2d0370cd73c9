"""`build_definitions`: a project as Dagster definitions.

It reads the list of syncs, of the project and of its store, and nothing else: no warehouse, no vendor.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from dagster_retl.engine.phase import OnPhase
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.alerts import alert_sensor
from dagster_retl.orchestration.assets import Execute, asset_spec, refused, run_step, sync_asset
from dagster_retl.orchestration.automation import automation_sensors
from dagster_retl.orchestration.health import health_sensor
from dagster_retl.orchestration.names import JOB_NAME, PROJECT_TAG, ServiceFactory, job_name, job_of_one
from dagster_retl.orchestration.optional_checks import optional_checks
from dagster_retl.orchestration.reaper import reaper_sensor
from dagster_retl.orchestration.remote_runs import refuse_local_places
from dagster_retl.orchestration.replays import replay_sensor
from dagster_retl.orchestration.resources import project_resources
from dagster_retl.orchestration.schedules import sync_schedules
from dagster_retl.orchestration.step import OUTAGE_RETRIES, Progress, StepSettings
from dagster_retl.service import Service
from dagster_retl.sources.query import asset_of
from dagster_retl.syncs.catalog import with_stored_syncs

GetAssetSpec = Callable[[Sync], dg.AssetSpec]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Thousands of syncs are a million objects that stay: to look for garbage among them takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def build_definitions(
    project: Project,
    *,
    get_asset_spec: GetAssetSpec | None = None,
    execute: Execute = run_step,
    retry_policy: dg.RetryPolicy = OUTAGE_RETRIES,
    on_progress: Progress | None = None,
    on_phase: OnPhase | None = None,
    stored_syncs: bool = True,
) -> dg.Definitions:
    """Assets, checks, schedules, sensors, resources and the job `retl_syncs` of a project.

    Syncs with partitions have a job for each way of parting: Dagster takes no two in one.

    get_asset_spec: the spec of each sync's asset, instead of `asset_spec(project, sync)`; its key stays.
    execute: what each op does with its step. retry_policy: when Dagster tries a run again that ended
    because the warehouse or the destination was down; other failures are not retried. on_progress,
    on_phase: called with the counters and phases of the runs of this process. stored_syncs: whether
    those are included that were made through the API and live in the project's store. Raises
    `ConfigurationError` for a sync whose slug, owners or tags Dagster refuses, and for a store or state on this
    machine where runs start on others; `StoreError` when the store cannot be read.
    """
    refuse_local_places(project)
    service_factory = service_factory_of(project)
    if stored_syncs:
        project = with_stored_syncs(project)
    settings = StepSettings(service_factory, retry_policy, on_progress, on_phase)
    assets = [sync_asset(sync, _spec(project, sync, get_asset_spec), settings, execute) for sync in project.syncs]
    jobs = _jobs(project, assets)
    sensors = [
        alert_sensor(project, service_factory),
        reaper_sensor(project, service_factory),
        replay_sensor(project, service_factory, jobs),
        health_sensor(project, service_factory),
        *automation_sensors(project),
    ]
    checks = [each for sync in project.syncs for each in optional_checks(sync, service_factory)]
    _refuse_taken_names(project, [*jobs, *(each.op.name for each in checks), *(each.name for each in sensors)])
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=list(jobs.values()),
        schedules=sync_schedules(project, service_factory),
        sensors=sensors,
        resources=project_resources(project),
    )


def standalone_definitions(
    project: Project, *, on_progress: Progress | None = None, on_phase: OnPhase | None = None
) -> dg.Definitions:
    """The definitions of a project that nothing else is merged with.

    Assets whose DataFrames syncs read are not among them: they are declared here, and what another
    code location stored of them is read through the I/O manager.
    """
    keys = {tuple(key) for sync in with_stored_syncs(project).syncs if (key := asset_of(sync.source_query))}
    declared = [dg.AssetSpec(dg.AssetKey(list(key))) for key in sorted(keys)]
    return dg.Definitions.merge(
        build_definitions(project, on_progress=on_progress, on_phase=on_phase), dg.Definitions(assets=declared)
    )


def build_sync_definitions(
    project: Project, *, get_asset_spec: GetAssetSpec | None = None, execute: Execute = run_step
) -> dg.Definitions:
    """Definitions of a project with one sync, which may stand beside those of other syncs of the same file.

    Its job and sensors are named after it, and it brings no resources. Raises `ConfigurationError`.
    """
    [sync] = project.syncs
    refuse_local_places(project)
    service_factory = service_factory_of(project)
    asset = sync_asset(sync, _spec(project, sync, get_asset_spec), StepSettings(service_factory), execute)
    job = _job(project, job_of_one(sync), [asset])
    return dg.Definitions(
        assets=[asset],
        asset_checks=optional_checks(sync, service_factory),
        jobs=[job],
        schedules=sync_schedules(project, service_factory, job=job.name),
        sensors=[
            *([alert_sensor(project, service_factory, of=sync.slug)] if project.alerts else []),
            reaper_sensor(project, service_factory, of=sync.slug),
            replay_sensor(project, service_factory, {job.name: job}, of=sync.slug),
            health_sensor(project, service_factory, of=sync.slug),
            *automation_sensors(project, of=sync.slug),
        ],
    )


def _jobs(project: Project, assets: Sequence[dg.AssetsDefinition]) -> dict[str, Any]:
    """By name; `retl_syncs` always."""
    grouped: dict[str, list[dg.AssetsDefinition]] = {JOB_NAME: []}
    for sync, asset in zip(project.syncs, assets, strict=True):
        grouped.setdefault(job_name(sync), []).append(asset)
    return {name: _job(project, name, members) for name, members in grouped.items()}


def _job(project: Project, name: str, assets: Sequence[dg.AssetsDefinition]) -> Any:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        description="Runs syncs; each run selects the assets of those it is for.",
        executor_def=dg.in_process_executor,
        tags={PROJECT_TAG: project.project},
    )


def _spec(project: Project, sync: Sync, get_asset_spec: GetAssetSpec | None) -> dg.AssetSpec:
    try:
        return asset_spec(project, sync) if get_asset_spec is None else get_asset_spec(sync)
    except dg.DagsterInvalidDefinitionError as error:
        raise refused(sync, error) from None


def service_factory_of(project: Project) -> ServiceFactory:
    """Opens the project's service when it is called."""

    def open_service() -> Service:
        return Service.open(project)

    return open_service


def _refuse_taken_names(project: Project, taken: Iterable[str]) -> None:
    """An op and a schedule are named after their sync, and share their names with other ops, jobs and sensors."""
    for name in taken:
        for sync in project.syncs:
            if sync.slug == name:
                raise ConfigurationError(
                    f"sync {sync.name!r} cannot have the slug {name!r}: a check, job or sensor of that name exists",
                    hint="Give it another `slug`.",
                )
