"""The life of a run: queued, started, planned, counted, ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from dagster_retl.errors import CancelledError
from dagster_retl.model.ids import RUN_PREFIX, new_id
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunOptions, RunStatus
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.runs.rows import options_text, run_of, to_json, unknown_run
from dagster_retl.store.schema import runs


class RunLife:
    """The part of `Runs` that changes them. A method with `conn` takes part in the caller's transaction."""

    _db: Database

    def create(
        self,
        sync_id: str,
        sync_name: str,
        options: RunOptions | None = None,
        *,
        run_id: str | None = None,
        trigger: str = "manual",
        dagster_run_id: str | None = None,
        dagster_step: str | None = None,
        conn: Connection | None = None,
    ) -> Run:
        """A queued run. `trigger`: who asked for it (manual, schedule, api, replay, …)."""
        chosen = options or RunOptions()
        with self._db.writing(conn) as writer:
            chosen_id = run_id or new_id(RUN_PREFIX)
            row = {
                "id": chosen_id,
                "sync_id": sync_id,
                "sync_name": sync_name,
                "status": RunStatus.QUEUED.value,
                "trigger": trigger,
                "options": options_text(chosen),
                "full_refresh": chosen.full_refresh,
                "dry_run": chosen.dry_run,
                "dagster_run_id": dagster_run_id,
                "dagster_step": dagster_step,
                "counters": to_json(asdict(Counters())),
                "warnings": "[]",
                "created_at": to_text(self._db.now(writer)),
            }
            writer.execute(insert(runs).values(row))
            return run_of(writer.execute(select(runs).where(runs.c.id == chosen_id)).one())

    def close_queued(self, run_id: str, status: RunStatus, error_code: str, error_message: str) -> bool:
        """End a run that has not begun; false: it has."""
        with self._db.begin() as conn:
            current = conn.scalar(select(runs.c.status).where(runs.c.id == run_id).with_for_update())
            if current != RunStatus.QUEUED.value:
                return False
            self.finish(conn, run_id, status, Counters(), error_code=error_code, error_message=error_message)
        return True

    def link_dagster(self, run_id: str, dagster_run_id: str, dagster_step: str | None = None) -> None:
        """Remember which Dagster run executes a run that was queued before it was launched."""
        with self._db.begin() as conn:
            _update(conn, run_id, dagster_run_id=dagster_run_id, dagster_step=dagster_step)

    def start(self, conn: Connection, run_id: str, token: int, epoch: str | None = None) -> None:
        """The run holds its lease and begins; also again, when a step is retried.

        Raises `CancelledError` when somebody cancelled the run while it was queued.
        """
        status = conn.scalar(select(runs.c.status).where(runs.c.id == run_id).with_for_update())
        if status == RunStatus.CANCELLED.value:
            raise CancelledError(f"run {run_id} was cancelled before it started")
        _update(
            conn,
            run_id,
            status=RunStatus.RUNNING.value,
            token=token,
            epoch=epoch,
            started_at=to_text(self._db.now(conn)),
            finished_at=None,
            error_code=None,
            error_message=None,
            guard=None,
        )

    def set_epoch(self, conn: Connection, run_id: str, epoch: str) -> None:
        """Remember what the run writes to: its ledger belongs there, whatever retl.yaml says later."""
        _update(conn, run_id, epoch=epoch)

    def set_plan(self, conn: Connection, run_id: str, plan: Mapping[str, Any]) -> None:
        """The plan's totals and manifest: written once, before the first request."""
        _update(conn, run_id, plan=to_json(plan))

    def progress(self, run_id: str, counters: Counters) -> None:
        """Counters of a run under way, for people who watch; a run that ended keeps its own."""
        with self._db.begin() as conn:
            running = (runs.c.id == run_id) & (runs.c.status == RunStatus.RUNNING.value)
            conn.execute(update(runs).where(running).values(counters=to_json(asdict(counters))))

    def finish(
        self,
        conn: Connection,
        run_id: str,
        status: RunStatus,
        counters: Counters,
        *,
        error_code: str | None = None,
        error_message: str | None = None,
        guard: str | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Close the run; one that has ended keeps its time. Error text comes in without secrets.

        Whoever closes it, books that do not balance are one of its warnings (PROTOCOL 16). Raises `NotFoundError`.
        """
        notes = [*warnings] if counters.balanced() else [*warnings, _unbalanced(counters)]
        _update(
            conn,
            run_id,
            status=status.value,
            counters=to_json(asdict(counters)),
            finished_at=func.coalesce(runs.c.finished_at, to_text(self._db.now(conn))),
            error_code=error_code,
            error_message=error_message,
            guard=guard,
            warnings=to_json(notes),
        )


def _unbalanced(counters: Counters) -> str:
    return (
        f"the books do not balance: of {counters.read:,} rows {counters.due:,} are not accounted for, and "
        f"of {counters.removed:,} removals {counters.removals_due:,}; please report this"
    )


def _update(conn: Connection, run_id: str, **values: Any) -> None:
    mine: ColumnElement[bool] = runs.c.id == run_id
    if conn.execute(update(runs).where(mine).values(values)).rowcount != 1:
        raise unknown_run(run_id)
