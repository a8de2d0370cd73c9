"""Runs, dead letters, plans and errors as JSON: names as in the API, times in RFC 3339 with `Z`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dagster_retl.engine.plan import Plan, PlannedRow
from dagster_retl.errors import RetlError
from dagster_retl.model.partitions import named
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import DeadLetter, DeadLetterStats, Run
from dagster_retl.model.sync import Sync

_NOT_ROWS = frozenset({"retries", "requests", "bytes_sent", "dead_letters_opened", "dead_letters_resolved"})

Document = dict[str, Any]


def rfc3339(moment: datetime | None) -> str | None:
    """UTC with `Z`."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def error_document(problem: RetlError) -> dict[str, Any]:
    """An error as the JSON document says it."""
    return {"code": problem.code.value, "message": problem.message, "hint": problem.hint}


def counters_document(counters: Counters) -> Document:
    """`rows_read`, `rows_written`, …; what does not count rows keeps its name."""
    return {name if name in _NOT_ROWS else f"rows_{name}": number for name, number in asdict(counters).items()}


def run_document(run: Run) -> Document:
    """A run's attributes and its id."""
    failure = {"code": run.error_code, "message": run.error_message, "guard": run.guard}
    return {
        "id": run.id,
        "sync_id": run.sync_id,
        "sync_name": run.sync_name,
        "status": run.status.value,
        **counters_document(run.counters),
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "duration_s": run.duration_s,
        "full_refresh": run.full_refresh,
        "dry_run": run.dry_run,
        "baseline": bool(run.options.get("baseline")),
        "partition": run.partition,
        "trigger": run.trigger,
        "dagster_run_id": run.dagster_run_id,
        "error": failure if run.error_code else None,
        "warnings": list(run.warnings),
    }


def letter_document(letter: DeadLetter) -> Document:
    """A dead letter's attributes and its id."""
    told = {"resolved": letter.resolved, "partition": named(letter.partition)}
    return {**with_times(asdict(letter)), **told}


def stats_document(stats: DeadLetterStats) -> Document:
    """How many dead letters, and why."""
    return {
        "open_count": stats.open_count,
        "resolved_count": stats.resolved_count,
        "by_error_code": dict(stats.by_error_code),
        "computed_at": rfc3339(stats.computed_at),
    }


def plan_document(sync: Sync, plan: Plan) -> Document:
    """What a run would do."""
    totals = plan.totals
    return {
        "sync_id": sync.id,
        "sync_name": sync.slug,
        "reason": plan.reason,
        "rows_read": totals.read,
        "rows_added": totals.added,
        "rows_changed": totals.changed,
        "rows_sent": totals.send,
        "rows_unchanged": totals.unchanged,
        "rows_failed": totals.rows_failed,
        "rows_skipped": totals.rows_skipped,
        "rows_removed": totals.removed,
        "rows_deleted": totals.removals_sent,
        "failed": totals.failed,
        "skipped": totals.skipped,
        "removals_held": totals.removals_held,
        "samples": [_sample_document(row) for row in plan.samples],
        "failing": [asdict(row) for row in plan.failing],
        "guards": [{**error_document(guard), "guard": guard.guard} for guard in plan.guards],
        "warnings": list(plan.warnings),
    }


def _sample_document(row: PlannedRow) -> Document:
    document: Document = {"change": row.change, "record_keys": row.record_keys, "values": row.values}
    return document if row.present is None else {**document, "present": row.present}


def with_times(attributes: Document) -> Document:
    """Attributes with their times as text."""
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in attributes.items()}
