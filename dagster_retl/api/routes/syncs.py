"""Syncs: list, create, get, update, delete, toggle, plan, versions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from dagster_retl.api import examples, schemas
from dagster_retl.api.answers import Answer, Document, one
from dagster_retl.api.auth import Reader, Runner, Writer, actor_of, require_destination
from dagster_retl.api.bodies import INT64, WHOLE, Body, in_snake_case, parts_in_snake_case, read_body, read_object
from dagster_retl.api.context import Shared, shared
from dagster_retl.api.documents import (
    SYNC,
    plan_attributes,
    schedule_document,
    sync_attributes,
    sync_summary,
    version_resource,
)
from dagster_retl.api.openapi import documented
from dagster_retl.api.paging import LIMIT, MOST, Position, decode, page
from dagster_retl.api.problems import ApiError, Detail, invalid
from dagster_retl.api.route import Route
from dagster_retl.documents import rfc3339
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.model_errors import written_settings
from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import RunOptions
from dagster_retl.model.sync import FieldMapping, Sync
from dagster_retl.store.api_keys import ApiKey
from dagster_retl.syncs.catalog import Entry
from dagster_retl.webserver import WebserverError

router = APIRouter(route_class=Route, tags=["syncs"])

Held = Annotated[Shared, Depends(shared)]

_BEGINNING = datetime.fromtimestamp(0, UTC)
_KNOWN = frozenset(written_settings(Sync))
_KNOWN_OF_MAPPING = frozenset(FieldMapping.model_fields)
_ETAG = re.compile(r'\s*(?:W/)?"?(\d{1,9})"?\s*')


class Toggle(Body):
    """Which sync, and whether it is to run by itself."""

    sync_id: str
    enabled: bool


class PlanBody(Body):
    """What is special about the run that is planned."""

    full_refresh: bool = False
    partition: str | None = None
    """Of a sync with partitions: the key of the one to read."""
    limit: Annotated[int, Field(ge=1, lt=INT64), WHOLE] | None = None


async def sync_data(request: Request) -> dict[str, Any]:
    """The body as plain data of a sync, names in snake_case."""
    data = parts_in_snake_case(in_snake_case(await read_object(request), _KNOWN), Sync)
    mappings = data.get("field_mappings")
    if isinstance(mappings, list):
        data["field_mappings"] = [_tidy_mapping(each) for each in mappings]
    elif isinstance(mappings, dict):
        data["field_mappings"] = {name: _tidy_mapping(each) for name, each in mappings.items()}
    return data


def _tidy_mapping(mapping: Any) -> Any:
    return in_snake_case(mapping, _KNOWN_OF_MAPPING) if isinstance(mapping, dict) else mapping


async def toggle_body(request: Request) -> Toggle:
    """The body of the request."""
    return await read_body(request, Toggle)


async def plan_body(request: Request) -> PlanBody:
    """The body of the request."""
    return await read_body(request, PlanBody, optional=True)


SyncData = Annotated[dict[str, Any], Depends(sync_data)]


@router.get("/syncs", **documented(schemas.SyncList, examples.SYNCS, "List syncs"))
def list_syncs(
    key: Reader,
    held: Held,
    destination_id: str | None = None,
    enabled: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = LIMIT,
    cursor: str | None = None,
) -> Answer:
    """All sync definitions, those of the project's file and those made here, newest first."""
    filters = {"list": "syncs", "destination_id": destination_id, "enabled": enabled}
    entries = [
        entry
        for entry in held.service.catalog.entries()
        if key.reaches(entry.sync.destination_id)
        and destination_id in (None, entry.sync.destination_id)
        and enabled in (None, entry.enabled)
    ]
    entries.sort(key=_position, reverse=True)
    if cursor is not None:
        after = decode(cursor, filters)
        entries = [entry for entry in entries if _position(entry) < after]
    return page(entries[: limit + 1], limit, filters, _position, sync_summary)


def _position(entry: Entry) -> Position:
    return entry.created_at or _BEGINNING, entry.sync.id


@router.post(
    "/syncs", status_code=201, **documented(schemas.SyncOne, examples.SYNC, "Create sync", body="SyncInput", status=201)
)
def create_sync(key: Writer, held: Held, data: SyncData) -> Answer:
    """A new sync from a query to an object of a destination. Everything that retl.yaml can say can be said here."""
    _require_reach(key, data)
    saved = held.service.editor.create(data, actor=actor_of(key))
    entry = saved.entry
    meta = {**_next_run(held, entry.sync), **_reload(held), "warnings": list(saved.warnings)}
    location = {"Location": f"/api/reverse-etl/syncs/{entry.sync.id}"}
    return one(SYNC, entry.sync.id, sync_attributes(entry), status=201, meta=meta, headers=_etag(entry) | location)


@router.get("/syncs/{sync_id}", **documented(schemas.SyncOne, examples.SYNC, "Get sync"))
def get_sync(key: Reader, held: Held, sync_id: str) -> Answer:
    """One sync, with its query and mappings, and whether Dagster runs its schedule."""
    entry = find_entry(key, held, sync_id)
    attributes = {**sync_attributes(entry), "schedule_state": schedule_state(held, entry)}
    return one(SYNC, entry.sync.id, attributes, headers=_etag(entry))


@router.put("/syncs/{sync_id}", **documented(schemas.SyncOne, examples.UPDATED_SYNC, "Update sync", body="SyncChanges"))
def update_sync(request: Request, key: Writer, held: Held, sync_id: str, data: SyncData) -> Answer:
    """Changes what is given and leaves the rest; `null` goes back to the default. A run under way keeps what it has.

    With `If-Match`, only the version of that ETag is changed.
    """
    find_entry(key, held, sync_id)
    _require_reach(key, data)
    expected = _expected(request)
    saved = held.service.editor.update(sync_id, data, actor=actor_of(key), expected=expected)
    entry = saved.entry
    meta = {**_next_run(held, entry.sync), **_reload(held), "warnings": list(saved.warnings)}
    return one(SYNC, entry.sync.id, sync_attributes(entry), meta=meta, headers=_etag(entry))


@router.delete("/syncs/{sync_id}", **documented(schemas.DeletedSync, examples.DELETED_SYNC, "Delete sync"))
def delete_sync(request: Request, key: Writer, held: Held, sync_id: str) -> Answer:
    """Queued runs are cancelled, a running one finishes; runs, dead letters and written rows stay."""
    find_entry(key, held, sync_id)
    deleted = held.service.editor.delete(sync_id, actor=actor_of(key), expected=_expected(request))
    held.launcher.terminate(deleted.cancelled)
    attributes = {"deleted": True, "deleted_at": rfc3339(deleted.stored.deleted_at)}
    meta = {**_reload(held), "cancelled_run_ids": [run.id for run in deleted.cancelled]}
    return one(SYNC, sync_id, attributes, meta=meta)


@router.post("/sync/toggle", **documented(schemas.ToggledSync, examples.TOGGLED_SYNC, "Toggle sync", body="Toggle"))
def toggle_sync(key: Writer, held: Held, body: Annotated[Toggle, Depends(toggle_body)]) -> Answer:
    """Enables or disables a sync. A run under way goes on, and nothing that was missed is made up for."""
    entry = find_entry(key, held, body.sync_id)
    held.service.set_enabled(entry.sync.id, body.enabled, actor=actor_of(key))
    entry = held.service.catalog.entry(entry.sync.id)
    if body.enabled:
        _start_schedule(held, entry.sync)
    attributes = {
        "enabled": entry.enabled,
        "updated_at": rfc3339(entry.updated_at),
        "schedule": schedule_document(entry.sync.schedule),
        "schedule_state": schedule_state(held, entry),
    }
    return one(SYNC, entry.sync.id, attributes)


@router.post("/syncs/{sync_id}/plan", **documented(schemas.PlanOne, examples.PLAN, "Plan a run", body="PlanBody"))
def plan_sync(key: Runner, held: Held, sync_id: str, body: Annotated[PlanBody, Depends(plan_body)]) -> Answer:
    """What a run would write, found by reading the warehouse; nothing is written. The values of rows are masked."""
    sync = find_entry(key, held, sync_id).sync
    partition = find_partition(held, sync, body.partition)
    options = RunOptions(full_refresh=body.full_refresh, limit=body.limit, partition=partition)
    plan = held.service.plan(sync.id, options)
    return one("reverse_etl_plan", None, plan_attributes(sync, plan))


@router.get(
    "/syncs/{sync_id}/versions", **documented(schemas.VersionList, examples.VERSIONS, "List versions of a sync")
)
def list_versions(key: Reader, held: Held, sync_id: str) -> Answer:
    """What a sync said, and who said it, newest first."""
    find_entry(key, held, sync_id)
    return Answer({"data": [version_resource(each) for each in held.service.editor.versions(sync_id)]})


def find_entry(key: ApiKey, held: Shared, sync_id: str) -> Entry:
    """A sync by its id. Raises `NotFoundError`, also when the key may not reach its destination."""
    found = held.service.catalog.entry_of(sync_id)
    require_destination(key, found.sync.destination_id, f"sync {sync_id!r}")
    return found


def find_partition(held: Shared, sync: Sync, key: str | None) -> Partition | None:
    """The partition that is asked for. Raises `ApiError` where the sync has none of this key, or none is named."""
    try:
        return sync.partition(key, held.service.store.now())
    except ConfigurationError as error:
        raise invalid("partition", "partition", f"{error.message}. {error.hint or ''}".strip()) from None


def schedule_state(held: Shared, entry: Entry) -> str:
    """`none` (no cron), `disabled`, `running`, `stopped_in_dagster`, `missing` there, `unknown` (no answer)."""
    if entry.sync.schedule.type != "cron":
        return "none"
    if not entry.enabled:
        return "disabled"
    try:
        status = held.webserver.schedule_status(entry.sync)
    except WebserverError:
        return "unknown"
    return {"RUNNING": "running", "STOPPED": "stopped_in_dagster", None: "missing"}.get(status, "unknown")


def _start_schedule(held: Shared, sync: Sync) -> None:
    """Also one that somebody stopped in Dagster. Where Dagster does not answer, `schedule_state` says so."""
    if sync.schedule.type != "cron":
        return
    try:
        held.webserver.start_schedule(sync)
    except WebserverError as error:
        if error.refused:
            raise


def _require_reach(key: ApiKey, data: dict[str, Any]) -> None:
    destination_id = data.get("destination_id")
    if isinstance(destination_id, str) and not key.reaches(destination_id):
        message = f"this key may not write to destination {destination_id!r}"
        raise ApiError(403, message, [Detail("destination_id", "destination", message)])


def _expected(request: Request) -> int | None:
    """The version that `If-Match` names; None: any."""
    wanted = request.headers.get("if-match")
    if wanted is None or wanted.strip() == "*":
        return None
    match = _ETAG.fullmatch(wanted)
    if match is None:
        raise ApiError(412, "If-Match is not an ETag that this API gave")
    return int(match.group(1))


def _etag(entry: Entry) -> dict[str, str]:
    return {} if entry.version is None else {"ETag": f'"{entry.version}"'}


def _next_run(held: Shared, sync: Sync) -> Document:
    following = held.service.next_run(sync)
    return {"next_run": {"sends": following.sends, "removes": following.removes, "reason": following.reason}}


def _reload(held: Shared) -> Document:
    return {"definitions_stale": not held.reloader.reload()}
