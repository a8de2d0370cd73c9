"""Exit codes, the same for every command."""

from __future__ import annotations

from collections.abc import Iterable

from dagster_retl.model.runs import Run, RunStatus

OK = 0
FAILED = 1
USAGE = 2
"""The arguments cannot be understood; click's own."""
DEAD_LETTERS = 3
"""The run finished; dead letters say which rows could not be written."""


def of_run(run: Run) -> int:
    """What a run's ending means for the process that asked for it."""
    if run.status in (RunStatus.FAILED, RunStatus.CANCELLED):
        return FAILED
    counters = run.counters
    refused = counters.failed + counters.unknown + counters.delete_failed + counters.delete_unknown
    return DEAD_LETTERS if refused and not run.dry_run else OK


def of_runs(runs: Iterable[Run]) -> int:
    """The worst of several runs: a failed one before one with dead letters."""
    codes = {of_run(run) for run in runs}
    return next((code for code in (FAILED, DEAD_LETTERS) if code in codes), OK)
