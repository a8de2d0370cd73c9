"""Retention: what a sync keeps no longer, a bounded amount at the end of each of its runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from dagster_retl.engine.commit import Books
from dagster_retl.model.project import Retention
from dagster_retl.model.runs import RunStatus
from dagster_retl.store.state import State
from dagster_retl.store.store import Store

_ROWS = 500
"""How many rows a transaction deletes: others wait for it no longer than for a batch."""

_TIMES = 20
"""How often at the end of a run, of each kind of row."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How much went: runs, names of history files, resolved dead letters, files of the state."""

    sync_id: str
    runs: int
    history: int
    dead_letters: int
    files: int


def clean(store: Store, state: State, sync_id: str, retention: Retention, *, at_once: bool = False) -> Cleaned:
    """Delete what `retention` does not keep, under no lease. at_once: all of it, however much that is."""
    now = store.now()
    times: Iterable[int] = itertools.count() if at_once else range(_TIMES)

    def expire(delete: Callable[[str, datetime, int], int], before: datetime) -> int:
        """Chunk by chunk."""
        counts = (delete(sync_id, before, _ROWS) for _ in times)
        return sum(itertools.takewhile(bool, counts))

    expiry = store.expiry
    expire(expiry.payloads, now - retention.resolved_dead_letters)
    return Cleaned(
        sync_id=sync_id,
        runs=expire(expiry.runs, now - retention.runs),
        history=expire(expiry.history, now - retention.row_history),
        dead_letters=expire(expiry.dead_letters, now - retention.resolved_dead_letters),
        files=len(
            state.collect(sync_id, _named(store, sync_id), store_uuid=store.uuid, generations=retention.generations)
        ),
    )


def _named(store: Store, sync_id: str) -> set[str]:
    """The files that somebody needs: the snapshot, the history, and the manifests of runs that are not folded."""
    pointer = store.snapshots.pointer(sync_id)
    names = store.history.names(sync_id) | ({pointer.generation} if pointer and pointer.generation else set())
    running = [run.id for run in store.runs.list(sync_id, RunStatus.RUNNING, limit=200)]
    for run_id in {*running, *store.ledger.unfolded(sync_id)}:
        plan = store.runs.plan_of(run_id)
        manifest = Books.of(plan).manifest if plan else None
        names |= {manifest} if manifest else set()
    return names
