"""Syncs, runs, dead letters and destinations as the API's resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster_retl.api.answers import Document, resource
from dagster_retl.documents import letter_document, plan_document, rfc3339, run_document
from dagster_retl.engine.plan import Plan
from dagster_retl.model.redactor import MASK
from dagster_retl.model.rows import FieldInfo, ObjectInfo
from dagster_retl.model.runs import DeadLetter, Run
from dagster_retl.model.sync import Sync
from dagster_retl.model.sync_settings import Schedule
from dagster_retl.store.stored_syncs import SyncVersion
from dagster_retl.syncs.catalog import Entry

SYNC = "reverse_etl_sync"
RUN = "reverse_etl_run"
LETTER = "reverse_etl_dlq_entry"

_OWN_COLUMNS = {"project", "renamed_from", "adopt", "field_mappings", "schedule", "enabled"}
_SUMMARY = ("name", "slug", "description", "warehouse", "destination_id", "object_name", "sync_mode")


def schedule_document(schedule: Schedule) -> Document:
    """`{"type": "cron", "expression": …, "timezone": …}`, or a type alone."""
    if schedule.expression is None:
        return {"type": schedule.type}
    return {"type": schedule.type, "expression": schedule.expression, "timezone": schedule.timezone}


def sync_attributes(entry: Entry) -> Document:
    """Everything that a sync says, and how it stands."""
    sync = entry.sync
    return {
        **sync.model_dump(mode="json", exclude=_OWN_COLUMNS),
        "field_mappings": _mappings(sync),
        **_standing(entry),
    }


def sync_summary(entry: Entry) -> Document:
    """A sync in a list: without its query and mappings."""
    sync = entry.sync
    attributes = {**{name: getattr(sync, name) for name in _SUMMARY}, **_standing(entry)}
    return resource(SYNC, sync.id, attributes)


def _standing(entry: Entry) -> Document:
    return {
        "enabled": entry.enabled,
        "schedule": schedule_document(entry.sync.schedule),
        "owner": entry.owner,
        "version": entry.version,
        "created_at": rfc3339(entry.created_at),
        "updated_at": rfc3339(entry.updated_at),
    }


def _mappings(sync: Sync) -> list[Document]:
    """What was said of each field, and `key` only where it is one."""
    said = [mapping.model_dump(mode="json", exclude_unset=True) for mapping in sync.field_mappings]
    return [{name: value for name, value in each.items() if name != "key" or value} for each in said]


def version_resource(version: SyncVersion) -> Document:
    """A version of a sync."""
    attributes = {
        "version": version.version,
        "name": version.name,
        "actor": version.actor,
        "created_at": rfc3339(version.created_at),
        "definition": dict(version.definition),
    }
    return resource("reverse_etl_sync_version", f"{version.sync_id}_v{version.version}", attributes)


def run_resource(run: Run) -> Document:
    """A run."""
    return resource(RUN, run.id, run_document(run))


def letter_resource(letter: DeadLetter) -> Document:
    """A dead letter."""
    return resource(LETTER, letter.id, letter_document(letter))


def plan_attributes(sync: Sync, plan: Plan) -> Document:
    """What a run would do; the values of rows are masked, their keys are not."""
    document = plan_document(sync, plan)
    masked = ("values", "present")
    document["samples"] = [
        {name: _masked(value) if name in masked else value for name, value in sample.items()}
        for sample in document["samples"]
    ]
    return document


def _masked(values: Mapping[str, Any] | None) -> Document | None:
    return None if values is None else dict.fromkeys(values, MASK)


def object_resource(info: ObjectInfo) -> Document:
    """An object of a destination."""
    attributes = {
        "label": info.label,
        "api_name": info.api_name,
        "supports_upsert": info.supports_upsert,
        "writable": info.writable,
    }
    return resource("destination_object", info.api_name, attributes)


def field_resource(info: FieldInfo) -> Document:
    """A field of an object."""
    attributes = {
        "label": info.label,
        "data_type": info.data_type,
        "required": info.required,
        "createable": info.createable,
        "updateable": info.updateable,
        "external_id": info.external_id,
    }
    return resource("destination_field", info.name, attributes)
