"""Runs, syncs, dead letters and plans as JSON: names as in the API, times in RFC 3339 with `Z`."""

from __future__ import annotations

from dataclasses import asdict

from dagster_retl.documents import (
    Document,
    counters_document,
    error_document,
    letter_document,
    plan_document,
    rfc3339,
    run_document,
    stats_document,
    with_times,
)
from dagster_retl.engine.explain import Explanation, Now
from dagster_retl.engine.forget import Forgotten
from dagster_retl.model.partitions import named
from dagster_retl.service import Finding, SyncView

__all__ = [
    "counters_document",
    "explanation_document",
    "finding_document",
    "forgotten_document",
    "letter_document",
    "plan_document",
    "run_document",
    "stats_document",
    "sync_document",
]


def sync_document(view: SyncView) -> Document:
    """A sync's definition, whether it is enabled, and how it stands."""
    definition = view.sync.model_dump(mode="json", exclude={"project", "renamed_from", "adopt"})
    return {
        "id": view.sync.id,
        **definition,
        "field_mappings": [mapping.model_dump(exclude_unset=True) for mapping in view.sync.field_mappings],
        "enabled": view.enabled,
        "open_dead_letters": view.open_dead_letters,
        "last_run": run_document(view.last_run) if view.last_run else None,
    }


def explanation_document(told: Explanation) -> Document:
    """All that is known of a row."""
    return {
        "sync_id": told.sync.id,
        "sync_name": told.sync.slug,
        "key": told.key,
        "record_keys": dict(told.record_keys),
        "now": None if told.now is None else _now_document(told.now),
        "snapshot": None
        if told.delivered is None
        else with_times(asdict(told.delivered)) | {"partition": named(told.delivered.partition)},
        "attempts": [with_times(asdict(attempt)) for attempt in told.attempts],
        "dead_letters": [
            {**letter_document(letter), "parked": told.parked(letter), "silences": told.silences(letter)}
            for letter in told.letters
        ],
        "suspects": [with_times(asdict(each)) for each in told.suspects],
        "decisions": [with_times(asdict(each)) for each in told.decisions],
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


def finding_document(finding: Finding) -> Document:
    """The result of one check."""
    problem = None if finding.error is None else error_document(finding.error)
    return {"subject": finding.subject, "ok": finding.error is None, "detail": finding.detail, "error": problem}
