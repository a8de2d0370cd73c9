"""Run a sync from outside Dagster's processes, so that the run is in its UI all the same."""

from __future__ import annotations

import dagster as dg

from dagster_retl.errors import RetlError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.assets import Progress
from dagster_retl.orchestration.build import build_definitions
from dagster_retl.orchestration.config import SyncRunConfig, run_config
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.orchestration.names import JOB_NAME, TRIGGER_TAG, asset_key, run_tags
from dagster_retl.service import Service

_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


def launch(
    project: Project,
    sync_slug: str,
    options: RunOptions | None = None,
    *,
    on_progress: Progress | None = None,
    trigger: str = "cli",
) -> Run:
    """Run a sync in this process, recorded by the project's Dagster instance, and return what became of it.

    A run that failed or was cancelled comes back as such, with its error code and message; an
    outage is not waited out. on_progress: called with the counters while rows are sent.
    Raises `NotFoundError` for an unknown sync, `RetlError` when Dagster did not come to running it.
    """
    sync = project.sync(sync_slug)
    with open_instance(project.base) as instance:
        result = _execute(project, sync, instance, options or RunOptions(), on_progress, trigger)
    with Service.open(project) as service:
        run = service.store.runs.find(result.run_id, sync.slug)
    if run is None:
        raise RetlError(f"Dagster run {result.run_id} ended before sync {sync.name!r} began: {_reason(result)}")
    return run


def _execute(
    project: Project,
    sync: Sync,
    instance: dg.DagsterInstance,
    options: RunOptions,
    on_progress: Progress | None,
    trigger: str,
) -> dg.ExecuteInProcessResult:
    definitions = build_definitions(project, on_progress=on_progress)
    config = run_config(sync, SyncRunConfig.of(options, retry_outages=False))
    return definitions.resolve_job_def(JOB_NAME).execute_in_process(
        run_config=dg.RunConfig(ops=config.ops, loggers=_QUIET),
        instance=instance,
        asset_selection=[asset_key(sync)],
        tags={**run_tags(sync), TRIGGER_TAG: trigger},
        raise_on_error=False,
    )


def _reason(result: dg.ExecuteInProcessResult) -> str:
    messages = [event.message for event in result.all_events if event.is_failure and event.message]
    return messages[-1] if messages else "it left no message"
