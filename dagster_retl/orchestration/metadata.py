"""What a run tells the asset page: counts that plot, columns, examples of failures, the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import dagster as dg

from dagster_retl.engine.plan import Plan, PlannedRow
from dagster_retl.model.project import Destination, Project
from dagster_retl.model.redactor import MASK
from dagster_retl.model.rows import FieldType
from dagster_retl.model.runs import DeadLetter, Run
from dagster_retl.model.sync import FieldMapping, Sync, reads_asset
from dagster_retl.orchestration.names import SYNC_ID

SAMPLE_FAILURES = 10

_ROWS = {
    "retl/rows_read": "read",
    "retl/rows_written": "written",
    "retl/rows_failed": "failed",
    "retl/rows_unchanged": "unchanged",
    "retl/rows_skipped": "skipped",
    "retl/rows_unknown": "unknown",
    "retl/rows_unconfirmed": "unconfirmed",
    "retl/rows_removed": "removed",
    "retl/rows_deleted": "deleted",
    "retl/rows_delete_failed": "delete_failed",
}
_EFFORT = {
    "retl/retries": "retries",
    "retl/requests": "requests",
    "retl/bytes": "bytes_sent",
}

Metadata = dict[str, dg.MetadataValue[Any]]


def description(project: Project, sync: Sync) -> str:
    """The asset's description, in Markdown: what is read, where it goes, and how."""
    destination = project.destinations[sync.destination_id]
    key = ", ".join(f"`{name}`" for name in sync.key_fields) or "none"
    lines = [
        *([] if project.writes else ["**Writes are off**: every run is a plan, and nothing runs by itself.", ""]),
        *([sync.description, ""] if sync.description else []),
        (
            f"**{sync.sync_mode.value}** into **{destination.name}** ({_called(sync, destination)}), "
            f"object `{sync.object_name}`, key {key}. {_when(sync)}"
        ),
        "",
        "From an asset's DataFrame:" if reads_asset(sync.source_query) else f"From warehouse `{sync.warehouse}`:",
        "",
        _code(sync.source_query.strip(), "sql"),
        "",
        _markdown_table(("field", "from", "key"), [_mapping_row(mapping) for mapping in sync.field_mappings]),
    ]
    return "\n".join(lines)


def definition_metadata(project: Project, sync: Sync) -> dict[str, Any]:
    """Metadata of the asset itself."""
    connector = project.destinations[sync.destination_id].connector
    off = {} if project.writes else {"retl/writes": "off: every run is a plan, and nothing runs by itself"}
    return {
        SYNC_ID: sync.id,
        "retl/destination": sync.destination_id,
        "retl/object": sync.object_name,
        # Not the address: it may hold a secret.
        "dagster/uri": f"{connector}://{sync.destination_id}/{sync.object_name}",
        **off,
    }


def run_metadata(run: Run, failures: Metadata | None = None) -> Metadata:
    """The counts of a run, and how it ended.

    failures: what is said of the rows that failed. The page keeps the order: they come after the
    counts of rows, before what is rarely looked at.
    """
    metadata = _counts(run, _ROWS) | (failures or {}) | _counts(run, _EFFORT)
    if run.duration_s is not None:
        metadata["retl/duration_s"] = dg.MetadataValue.float(round(run.duration_s, 3))
    metadata["retl/run_id"] = dg.MetadataValue.text(run.id)
    metadata["retl/status"] = dg.MetadataValue.text(run.status.value)
    if run.error_code:
        metadata["retl/error_code"] = dg.MetadataValue.text(run.error_code)
    if run.warnings:
        metadata["retl/warnings"] = dg.MetadataValue.md("\n".join(f"- {warning}" for warning in run.warnings))
    return metadata


def delivery_metadata(run: Run, plan: Plan) -> Metadata:
    """What a run that wrote adds to its counts: rows, columns, and why these rows."""
    return {
        "dagster/row_count": dg.MetadataValue.int(run.counters.written),
        "dagster/column_schema": dg.MetadataValue.table_schema(column_schema(plan.fields)),
        **({"retl/reason": dg.MetadataValue.text(plan.reason)} if plan.reason else {}),
    }


def column_schema(fields: Sequence[FieldType]) -> dg.TableSchema:
    """The destination's fields, with the types that they are sent from."""
    return dg.TableSchema(columns=[_column(field) for field in fields])


def failures_metadata(letters: Sequence[DeadLetter]) -> Metadata:
    """A table of dead letters; nothing where there are none."""
    if not letters:
        return {}
    return {"retl/failures": dg.MetadataValue.table([_failure(letter) for letter in letters])}


def open_letters_metadata(sync: Sync, count: int, api_url: str | None) -> Metadata:
    """How many dead letters of the sync are open, and where they are.

    api_url: where the REST API is, if somebody said so.
    """
    metadata: Metadata = {"retl/dead_letters_open": dg.MetadataValue.int(count)}
    if not count:
        return metadata
    if api_url:
        link = f"{api_url.rstrip('/')}/api/reverse-etl/dlq?{urlencode({'sync_id': sync.id})}"
        return metadata | {"retl/dead_letters": dg.MetadataValue.url(link)}
    return metadata | {"retl/dead_letters": dg.MetadataValue.md(f"`retl dlq list {sync.slug}`")}


def plan_metadata(plan: Plan) -> Metadata:
    """A dry run's plan, to read."""
    return {"retl/plan": dg.MetadataValue.md(plan_markdown(plan))}


def plan_markdown(plan: Plan) -> str:
    """The plan in Markdown: totals, examples, what would stop it.

    Dagster keeps it in its event log: of the examples it has the keys, and no other value.
    """
    totals = plan.totals
    failed = ", ".join(f"{count} {code}" for code, count in sorted(totals.failed.items()))
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(totals.skipped.items()))
    counts = (
        f"**{totals.send}** of {totals.read} rows would be sent ({totals.added} new, {totals.changed} changed), "
        f"{totals.unchanged} are unchanged, {totals.removals_sent} records would be deleted."
    )
    parts = [
        counts,
        plan.reason,
        failed and f"Would fail before delivery: {failed}.",
        skipped and f"Would be skipped: {skipped}.",
        "\n".join(f"- A guard would stop the run: {guard.message}" for guard in plan.guards),
        "\n".join(f"- {warning}" for warning in plan.warnings),
        plan.samples
        and _markdown_table(
            ("change", "key", "now", "will be"),
            [
                (row.change, _json(row.record_keys), _present(row), _json(_masked(row, row.values)))
                for row in plan.samples
            ],
        ),
        plan.failing
        and _markdown_table(
            ("fails", "key", "why"), [(row.code, _json(row.record_keys), row.message) for row in plan.failing]
        ),
    ]
    return "\n\n".join(str(part) for part in parts if part)


def _present(row: PlannedRow) -> str:
    """What the destination holds now, where it was asked."""
    return "" if row.present is None else _json(_masked(row, row.present))


def _masked(row: PlannedRow, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the row without those outside its key; that one is null, or changes, may be seen."""
    return {name: _shown(row, name, value) for name, value in values.items()}


def _shown(row: PlannedRow, name: str, value: Any) -> Any:
    if value is None or row.record_keys.get(name) == value:
        return value
    changes = row.present is not None and row.present.get(name) != row.values.get(name)
    return f"{MASK} (changes)" if changes else MASK


def _counts(run: Run, names: Mapping[str, str]) -> Metadata:
    return {name: dg.MetadataValue.int(getattr(run.counters, counter)) for name, counter in names.items()}


def _column(field: FieldType) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(nullable=not field.key, other=["key"] if field.key else [])
    return dg.TableColumn(name=field.name, type=str(field.arrow_type), constraints=constraints)


def _failure(letter: DeadLetter) -> dg.TableRecord:
    """A row of few columns, the telling ones first: the page squeezes the message and cuts what is too wide."""
    vendor = f"{letter.vendor_code}: " if letter.vendor_code else ""
    values: dict[str, str | int | float | bool] = {
        "keys": _json(letter.record_keys),
        "message": f"{vendor}{letter.message}",
        "error_code": letter.error_code,
        "attempts": letter.attempts,
    }
    return dg.TableRecord(values)


def _called(sync: Sync, destination: Destination) -> str:
    """The destination's id, and its connector where that says more."""
    id_ = f"`{sync.destination_id}`"
    return id_ if sync.destination_id == destination.connector else f"{id_}, {destination.connector}"


def _when(sync: Sync) -> str:
    """Said here, because Dagster shows the schedules of the whole job with each of its assets."""
    after = f" After {', '.join(f'`{name}`' for name in sync.after)} where they are in one run." if sync.after else ""
    if sync.schedule.type == "on_upstream":
        return f"Runs when an asset that it reads, or a sync that it runs after, was materialized.{after}"
    if sync.schedule.expression is None:
        return f"Runs when somebody starts it.{after}"
    return f"Runs at `{sync.schedule.expression}` ({sync.schedule.timezone}).{after}"


def _mapping_row(mapping: FieldMapping) -> tuple[str, str, str]:
    origin = mapping.source if mapping.source is not None else f"constant {mapping.value!r}"
    return mapping.destination, origin, "yes" if mapping.key else ""


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str, language: str) -> str:
    fence = "```" if "```" not in text else "~~~~"
    return f"{fence}{language}\n{text}\n{fence}"


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), default=str, ensure_ascii=False)
