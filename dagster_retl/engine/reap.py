"""Closing the runs of dead processes before anybody runs their syncs again (PROTOCOL 1, 16).

Such a run gets its ending and its counters, so that people and alerts see them. Its lease stays
with it and its ledger is not folded: the next run of the sync does both.
"""

from __future__ import annotations

from collections.abc import Collection

from dagster_retl.changes import fold
from dagster_retl.engine.commit import Books, close_counters, load_answers
from dagster_retl.engine.ending import INTERRUPTED
from dagster_retl.engine.workspace import workspace
from dagster_retl.errors import StateMissingError
from dagster_retl.model.project import EngineSettings
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run
from dagster_retl.store.leases import Holder
from dagster_retl.store.state import State
from dagster_retl.store.store import Store


def close_dead_runs(store: Store, state: State, settings: EngineSettings, holders: Collection[Holder]) -> list[Run]:
    """Close the open runs of these dead holders (`store.leases.expired()`); returns those that were closed."""
    open_holders = [holder for holder in holders if not store.runs.get(holder.run_id).status.ended]
    return [run for holder in open_holders if (run := _close(store, state, settings, holder)) is not None]


def _close(store: Store, state: State, settings: EngineSettings, holder: Holder) -> Run | None:
    """None: somebody else took the lease or ended the run meanwhile."""
    counters, warnings = _counted(store, state, settings, holder.run_id)
    with store.begin() as conn:
        alive = not store.leases.confirm_dead(conn, holder)
        if alive or store.runs.get(holder.run_id, conn=conn).status.ended:
            return None
        store.dead_letters.clear_replaying(conn, holder.run_id)
        store.runs.finish(
            conn,
            holder.run_id,
            INTERRUPTED.status,
            counters,
            error_code=INTERRUPTED.error_code,
            error_message=INTERRUPTED.error_message,
            warnings=warnings,
        )
        return store.runs.get(holder.run_id, conn=conn)


def _counted(store: Store, state: State, settings: EngineSettings, run_id: str) -> tuple[Counters, list[str]]:
    """Where the run's rows ended, as plan and ledger tell, and what is doubtful about that."""
    plan = store.runs.plan_of(run_id)
    if plan is None:
        return Counters(), []
    books = Books.of(plan)
    try:
        with workspace(settings) as space:
            load_answers(space.connection, store, state, run_id, books)
            fold.answer(space.connection)
            rows = fold.tally(space.connection, removal=False)
            removals = fold.tally(space.connection, removal=True)
    except StateMissingError as error:
        return books.nothing_known(), [
            f"rows that were to be sent count as unknown until the next run: {error.message}"
        ]
    return close_counters(books, rows, removals), []
