"""Runs, syncs, dead letters and plans as JSON: names as in the API, times in RFC 3339 with `Z`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from dagster_retl.cli.output import error_document
from dagster_retl.cli.words import rfc3339
from dagster_retl.engine.explain import Explanation, Now
from dagster_retl.engine.forget import Forgotten
from dagster_retl.engine.plan import Plan, PlannedRow
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import DeadLetter, DeadLetterStats, Run
from dagster_retl.model.sync import Sync
from dagster_retl.service import Finding, SyncView

_NOT_ROWS = frozenset({"retries", "requests", "bytes_sent", "dead_letters_opened", "dead_letters_resolved"})

Document = dict[str, Any]


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
        "trigger": run.trigger,
        "dagster_run_id": run.dagster_run_id,
        "error": failure if run.error_code else None,
        "warnings": list(run.warnings),
    }


def letter_document(letter: DeadLetter) -> Document:
    """A dead letter's attributes and its id."""
    return {**_with_times(asdict(letter)), "resolved": letter.resolved}


def stats_document(stats: DeadLetterStats) -> Document:
    """How many dead letters, and why."""
    return {
        "open_count": stats.open_count,
        "resolved_count": stats.resolved_count,
        "by_error_code": dict(stats.by_error_code),
        "computed_at": rfc3339(stats.computed_at),
    }


def sync_document(view: SyncView) -> Document:
    """A sync's definition, whether it is enabled, and how it stands."""
    definition = view.sync.model_dump(mode="json", exclude={"project", "partitions", "renamed_from", "adopt"})
    return {
        "id": view.sync.id,
        **definition,
        "field_mappings": [mapping.model_dump(exclude_unset=True) for mapping in view.sync.field_mappings],
        "enabled": view.enabled,
        "open_dead_letters": view.open_dead_letters,
        "last_run": run_document(view.last_run) if view.last_run else None,
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


def explanation_document(told: Explanation) -> Document:
    """All that is known of a row."""
    return {
        "sync_id": told.sync.id,
        "sync_name": told.sync.slug,
        "key": told.key,
        "record_keys": dict(told.record_keys),
        "now": None if told.now is None else _now_document(told.now),
        "snapshot": None if told.delivered is None else _with_times(asdict(told.delivered)),
        "attempts": [_with_times(asdict(attempt)) for attempt in told.attempts],
        "dead_letters": [
            {**letter_document(letter), "parked": told.parked(letter), "silences": told.silences(letter)}
            for letter in told.letters
        ],
        "suspects": [_with_times(asdict(each)) for each in told.suspects],
        "decisions": [_with_times(asdict(each)) for each in told.decisions],
        "history_kept_since": rfc3339(told.kept_since),
        "missing": list(told.missing),
    }


def forgotten_document(done: Forgotten) -> Document:
    """What was erased of a row in one sync."""
    counts = {"dead_letters": done.letters, "other_records": done.records, "messages": done.texts, "files": done.files}
    return {"sync_id": done.sync.id, "sync_name": done.sync.slug, **counts}


def _now_document(now: Now) -> Document:
    return {
        "outcome": now.outcome,
        "reason": now.reason,
        "values": dict(now.values),
        "present": None if now.present is None else dict(now.present),
        "failing": None if now.failing is None else asdict(now.failing),
        "guards": [error_document(guard) for guard in now.guards],
        "warnings": list(now.warnings),
        "error": None if now.error is None else error_document(now.error),
    }


def _with_times(attributes: Document) -> Document:
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in attributes.items()}


def finding_document(finding: Finding) -> Document:
    """The result of one check."""
    problem = None if finding.error is None else error_document(finding.error)
    return {"subject": finding.subject, "ok": finding.error is None, "detail": finding.detail, "error": problem}
