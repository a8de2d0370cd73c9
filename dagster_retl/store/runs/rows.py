"""Runs as rows of the table: nouns, options and counters as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_

from dagster_retl.errors import ErrorCode, NotFoundError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import AccountChange, Guard, Run, RunOptions, RunStatus
from dagster_retl.store.clock import from_text, maybe_time

_COUNTERS = tuple(field.name for field in fields(Counters))


def run_of(row: Any) -> Run:
    """The noun of a row of the table."""
    return Run(
        id=row.id,
        sync_id=row.sync_id,
        sync_name=row.sync_name,
        status=RunStatus(row.status),
        created_at=from_text(row.created_at),
        started_at=maybe_time(row.started_at),
        finished_at=maybe_time(row.finished_at),
        counters=_counters(row.counters),
        full_refresh=row.full_refresh,
        dry_run=row.dry_run,
        options=orjson.loads(row.options),
        trigger=row.trigger,
        dagster_run_id=row.dagster_run_id,
        error_code=row.error_code,
        error_message=row.error_message,
        guard=row.guard,
        warnings=tuple(orjson.loads(row.warnings)),
    )


def options_to_json(options: RunOptions) -> dict[str, Any]:
    """The options that differ from an ordinary run's, as JSON values."""
    values = {
        "full_refresh": options.full_refresh,
        "dry_run": options.dry_run,
        "baseline": options.baseline,
        "limit": options.limit,
        "keys": [dict(key) for key in options.keys],
        "replay": list(options.replay),
        "overrides": sorted(guard.value for guard in options.overrides),
        "partition": options.partition.to_json() if options.partition else None,
        "account_change": None if options.account_change is AccountChange.REFUSE else options.account_change.value,
    }
    return {name: value for name, value in values.items() if value not in (None, False, [])}


def options_text(options: RunOptions) -> str:
    """The options as the store keeps them."""
    return to_json(options_to_json(options))


def options_from_json(values: Mapping[str, Any]) -> RunOptions:
    """The options that `options_to_json` wrote down."""
    return RunOptions(
        full_refresh=values.get("full_refresh", False),
        dry_run=values.get("dry_run", False),
        baseline=values.get("baseline", False),
        limit=values.get("limit"),
        keys=tuple(values.get("keys", ())),
        replay=tuple(values.get("replay", ())),
        overrides=frozenset(map(Guard, values.get("overrides", ()))),
        account_change=AccountChange(values.get("account_change", AccountChange.REFUSE)),
        partition=Partition.from_json(values["partition"]) if values.get("partition") else None,
    )


def tried_to_write(run: Any) -> ColumnElement[bool]:
    """Of the columns of `runs`: it ended, was no dry run, not cancelled, and not turned away by a live run."""
    return and_(
        run.status.in_((RunStatus.SUCCEEDED.value, RunStatus.FAILED.value)),
        ~run.dry_run,
        run.error_code.is_distinct_from(ErrorCode.LEASE_HELD.value),
    )


def to_json(value: Any) -> str:
    """A value as the store keeps it."""
    return orjson.dumps(value, default=str).decode()


def unknown_run(run_id: str) -> NotFoundError:
    """There is no run of this id."""
    return NotFoundError(f"there is no run {run_id}", hint="`retl runs list` shows the runs of this store.")


def _counters(value: str) -> Counters:
    stored = orjson.loads(value)
    return Counters(**{name: stored[name] for name in _COUNTERS if name in stored})
