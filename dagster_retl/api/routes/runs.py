"""Runs: start, list, get, cancel."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, Strict, model_validator

from dagster_retl.api import examples, schemas
from dagster_retl.api.answers import Answer
from dagster_retl.api.auth import Reader, Runner, actor_of, require_destination
from dagster_retl.api.bodies import Body, read_body
from dagster_retl.api.context import Shared, shared
from dagster_retl.api.documents import run_resource
from dagster_retl.api.openapi import documented
from dagster_retl.api.paging import LIMIT, MOST, decode, page
from dagster_retl.api.problems import ApiError, Detail
from dagster_retl.api.route import Route
from dagster_retl.api.routes.syncs import find_entry, find_partition
from dagster_retl.api.visible import reachable_syncs, require_known_sync
from dagster_retl.errors import ConflictError, NotFoundError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import Guard, Run, RunOptions, RunStatus
from dagster_retl.store.api_keys import ApiKey

router = APIRouter(route_class=Route, tags=["runs"])

Held = Annotated[Shared, Depends(shared)]


class RunBody(Body):
    """Which syncs to run: one (`sync_id`) or several (`sync_ids`)."""

    sync_id: str | None = None
    sync_ids: Annotated[list[str], Field(json_schema_extra={"uniqueItems": True})] | None = Field(
        None, min_length=1, max_length=100
    )
    full_refresh: bool = False
    dry_run: bool = False
    overrides: list[Annotated[Guard, Strict(strict=False)]] = Field(default_factory=list)
    partition: str | None = None
    """Of syncs with partitions: the key of the one to read."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.sync_id is None) == (self.sync_ids is None):
            raise ValueError("give exactly one of `sync_id` and `sync_ids`")
        if self.sync_ids is not None and len(set(self.sync_ids)) != len(self.sync_ids):
            raise ValueError("`sync_ids` names a sync twice")
        return self

    def options(self, partition: Partition | None) -> RunOptions:
        """What is special about each of the runs."""
        overrides = frozenset(self.overrides)
        return RunOptions(self.full_refresh, self.dry_run, overrides=overrides, partition=partition)


async def run_body(request: Request) -> RunBody:
    """The body of the request."""
    return await read_body(request, RunBody)


@router.post(
    "/sync/run",
    status_code=202,
    **documented(schemas.RunStarted, examples.RUN_STARTED, "Trigger sync run", body="RunBody", status=202),
)
def run_sync(key: Runner, held: Held, body: Annotated[RunBody, Depends(run_body)]) -> Answer:
    """Starts a run of each sync, or of none: all are looked at before the first starts."""
    wanted = [body.sync_id] if body.sync_id is not None else body.sync_ids or []
    syncs = [find_entry(key, held, sync_id).sync for sync_id in wanted]
    asked = {sync.id: body.options(find_partition(held, sync, body.partition)) for sync in syncs}
    runs = queue(held, asked, "api", actor_of(key))
    started = start(held, runs)
    documents = [run_resource(run) for run in started]
    return Answer({"data": documents[0] if body.sync_id is not None else documents}, 202)


@router.get("/runs", **documented(schemas.RunList, examples.RUNS, "List sync runs"))
def list_runs(
    key: Reader,
    held: Held,
    sync_id: str | None = None,
    status: RunStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = LIMIT,
    cursor: str | None = None,
) -> Answer:
    """Runs across syncs, those of deleted syncs too, newest first."""
    require_known_sync(key, held.service, sync_id)
    filters = {"list": "runs", "sync_id": sync_id, "status": status}
    before = None if cursor is None else decode(cursor, filters)
    among = reachable_syncs(key, held.service)
    runs = held.service.store.runs.list(sync_id, status, among=among, limit=limit + 1, before=before)
    return page(runs, limit, filters, lambda run: (run.created_at, run.id), run_resource)


@router.get("/runs/{run_id}", **documented(schemas.RunOne, examples.RUN, "Get run"))
def get_run(key: Reader, held: Held, run_id: str) -> Answer:
    """One run; its counters are live while it runs."""
    return Answer({"data": run_resource(held.launcher.reconcile(find_run(key, held, run_id)))})


@router.post(
    "/runs/{run_id}/cancel", status_code=202, **documented(schemas.RunOne, examples.RUN, "Cancel run", status=202)
)
def cancel_run(key: Runner, held: Held, run_id: str) -> Answer:
    """A queued run is cancelled at once, a running one stops after its batches in flight."""
    find_run(key, held, run_id)
    return Answer({"data": run_resource(held.launcher.cancel(run_id, actor_of(key)))}, 202)


def find_run(key: ApiKey, held: Shared, run_id: str) -> Run:
    """Raises `NotFoundError`, also when the key may not reach the run's destination."""
    run = held.service.run_of(run_id)
    among = reachable_syncs(key, held.service)
    if among is not None and run.sync_id not in among:
        require_destination(key, None, f"run {run_id}")
    return run


def queue(held: Shared, asked: dict[str, RunOptions], trigger: str, actor: str) -> list[Run]:
    """Register the runs, or none. A queued run in the way that nobody will begin is closed first."""
    try:
        return held.service.queue_all(asked, trigger=trigger, actor=actor)
    except ConflictError as error:
        if not _is_lost(held, error.subject):
            raise
        return held.service.queue_all(asked, trigger=trigger, actor=actor)


def _is_lost(held: Shared, run_id: str | None) -> bool:
    if run_id is None or not run_id.startswith("retl_run_"):
        return False
    return held.launcher.reconcile(held.service.run_of(run_id)).status.ended


def start(held: Shared, runs: list[Run]) -> list[Run]:
    """Launch queued runs. Raises `ApiError` when none could be launched; others come back as failed."""
    errors = [held.launcher.launch(run) for run in runs]
    failed = [error for error in errors if error is not None]
    if runs and len(failed) == len(runs):
        if isinstance(failed[0], NotFoundError):
            raise failed[0]
        details = [Detail("", "not_launched", error.message, run.id) for run, error in zip(runs, failed, strict=True)]
        raise ApiError(503, f"{failed[0].message}. {failed[0].hint or ''}".strip(), details)
    return [run if error is None else held.service.run_of(run.id) for run, error in zip(runs, errors, strict=True)]
