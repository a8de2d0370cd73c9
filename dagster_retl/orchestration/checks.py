"""The two checks that every sync has: did each row end in exactly one place, and did too many fail."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import dagster as dg

from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.names import asset_key
from dagster_retl.service import Service

ROW_BALANCE = "row_balance"
FAILURE_RATE = "failure_rate"

_RECENT_RUNS = 50


def check_specs(sync: Sync) -> list[dg.AssetCheckSpec]:
    """The checks that the sync's own op evaluates."""
    key = asset_key(sync)
    return [
        dg.AssetCheckSpec(
            ROW_BALANCE,
            asset=key,
            blocking=True,
            description="Every row that was read was written, failed, unchanged, skipped or is of unknown outcome.",
        ),
        dg.AssetCheckSpec(
            FAILURE_RATE,
            asset=key,
            description=f"A warning when rows failed, an error when more than {_percent(sync.guards.failures)} did.",
        ),
    ]


def check_results(sync: Sync, run: Run | None, names: Collection[str]) -> Iterator[dg.AssetCheckResult]:
    """The named checks, judged from a run's counters. None: the sync has not run yet."""
    evaluations = {ROW_BALANCE: _row_balance, FAILURE_RATE: _failure_rate}
    for name in sorted(names):
        yield _never_ran(sync, name) if run is None else evaluations[name](sync, run)


def last_run(service: Service, sync: Sync) -> Run | None:
    """The newest run that ended and could write: what the checks judge when they are run alone."""
    recent = service.runs(sync.id, limit=_RECENT_RUNS)
    return next((run for run in recent if run.status.ended and not run.dry_run), None)


def failure_share(counters: Counters) -> float:
    """Failed rows and removals, of all that the run looked at; 0 to 1."""
    seen = counters.read + counters.removed
    return (counters.failed + counters.delete_failed) / seen if seen else 0.0


def _never_ran(sync: Sync, name: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, asset_key=asset_key(sync), passed=True, description="The sync has not run yet."
    )


def _row_balance(sync: Sync, run: Run) -> dg.AssetCheckResult:
    counters = run.counters
    return dg.AssetCheckResult(
        check_name=ROW_BALANCE,
        asset_key=asset_key(sync),
        passed=counters.balanced(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{counters.read} read = {counters.written} written + {counters.failed} failed + "
        f"{counters.unchanged} unchanged + {counters.skipped} skipped + {counters.unknown} unknown",
        metadata={"run_id": run.id, "rows_read": counters.read, "rows_unknown": counters.unknown},
    )


def _failure_rate(sync: Sync, run: Run) -> dg.AssetCheckResult:
    counters, share = run.counters, failure_share(run.counters)
    error = share > sync.guards.failures
    failed = counters.failed + counters.delete_failed
    return dg.AssetCheckResult(
        check_name=FAILURE_RATE,
        asset_key=asset_key(sync),
        passed=failed == 0,
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        description=f"{failed} of {counters.read + counters.removed} rows failed ({_percent(share)}); "
        f"more than {_percent(sync.guards.failures)} is an error.",
        metadata={
            "run_id": run.id,
            "rows_failed": failed,
            "failure_rate": share,
            "threshold": float(sync.guards.failures),
        },
    )


def _percent(share: float) -> str:
    return f"{share * 100:.4g}%"
