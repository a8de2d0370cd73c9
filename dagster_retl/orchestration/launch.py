"""Run a sync from outside Dagster's processes, so that the run is in its UI all the same."""

from __future__ import annotations

import os
import time

from dagster_retl.engine.phase import OnPhase
from dagster_retl.errors import RetlError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.build import standalone_definitions
from dagster_retl.orchestration.config import SyncRunConfig, run_config
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.orchestration.names import RUN_TAG, TRIGGER_TAG, asset_key, job_name, run_tags
from dagster_retl.orchestration.step import Progress
from dagster_retl.service import Service
from dagster_retl.webserver import Webserver

_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
_LOOK = 0.5  # seconds between two looks at a run that another process executes


def launch(
    project: Project,
    sync_slug: str,
    options: RunOptions | None = None,
    *,
    on_progress: Progress | None = None,
    on_phase: OnPhase | None = None,
    trigger: str = "cli",
    queued: Run | None = None,
) -> Run:
    """Run a sync and return what became of it.

    Where `RETL_DAGSTER_URL` names a Dagster webserver (and `RETL_DAGSTER_TOKEN` its bearer token),
    the run is launched there and followed; otherwise it is executed in this process and recorded
    by the project's Dagster instance. A run that failed or was cancelled comes back as such, with
    its error code and message; an outage is not waited out. Ctrl-C cancels it.
    on_progress: called with the counters while rows are sent. on_phase: called as the run enters
    each phase, where it is executed in this process. queued: the run to execute, with the options that
    it was queued with; a replay whose sync somebody else runs comes back queued. Raises `NotFoundError` for an
    unknown sync,
    `RetlError` when Dagster did not come to running it.
    """
    chosen = options or RunOptions()
    config = SyncRunConfig.of(chosen, retry_outages=False)
    partition = chosen.partition.key if chosen.partition else None
    if queued is not None:
        config = SyncRunConfig(run_id=queued.id, retry_outages=False)
        trigger, partition = queued.trigger, queued.partition
    url = os.environ.get("RETL_DAGSTER_URL")
    with Service.open(project) as service:
        sync = service.find(sync_slug)
        tags = {**run_tags(sync), TRIGGER_TAG: trigger, **({RUN_TAG: queued.id} if queued else {})}
        if url:
            with Webserver(url, os.environ.get("RETL_DAGSTER_TOKEN")) as webserver:
                dagster_run_id = webserver.launch(sync, run_config(sync, config), tags, partition)
                _follow(webserver, service, sync, dagster_run_id, on_progress)
            reason = f"see {url}/runs/{dagster_run_id}"
        else:
            dagster_run_id, reason = _execute(project, sync, config, partition, tags, on_progress, on_phase)
        run = service.run_of(queued.id) if queued else service.store.runs.find(dagster_run_id, sync.slug)
    if run is None:
        raise RetlError(f"Dagster run {dagster_run_id} ended before sync {sync.name!r} began: {reason}")
    return run


def _execute(
    project: Project,
    sync: Sync,
    config: SyncRunConfig,
    partition: str | None,
    tags: dict[str, str],
    on_progress: Progress | None,
    on_phase: OnPhase | None,
) -> tuple[str, str]:
    """Execute a run here; the Dagster run's id, and why it failed if it did."""
    definitions = standalone_definitions(project, on_progress=on_progress, on_phase=on_phase)
    with open_instance(project.base) as instance:
        result = definitions.resolve_job_def(job_name(sync)).execute_in_process(
            run_config=run_config(sync, config) | {"loggers": _QUIET},
            instance=instance,
            asset_selection=[asset_key(sync)],
            tags=tags,
            partition_key=partition,
            raise_on_error=False,
        )
    messages = [event.message for event in result.all_events if event.is_failure and event.message]
    return result.run_id, messages[-1] if messages else "it left no message"


def _follow(
    webserver: Webserver, service: Service, sync: Sync, dagster_run_id: str, on_progress: Progress | None
) -> None:
    """Watch a run until it ends; Ctrl-C ends it."""
    while True:
        try:
            if webserver.ended(dagster_run_id):
                return
            run = service.store.runs.find(dagster_run_id, sync.slug)
            if run is not None and on_progress is not None:
                on_progress(run.counters)
            time.sleep(_LOOK)
        except KeyboardInterrupt:
            webserver.terminate(dagster_run_id)
