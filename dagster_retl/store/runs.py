"""Runs: queued, started, planned, counted, ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, tuple_, update

from dagster_retl.errors import CancelledError, ErrorCode, NotFoundError
from dagster_retl.model.ids import RUN_PREFIX, new_id
from dagster_retl.model.partitions import Partition
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import AccountChange, Guard, Run, RunOptions, RunStatus
from dagster_retl.store.clock import from_text, maybe_time, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import runs

_OVERLAPPING = 10  # newest runs among which the one that ended last is looked for: they may wait for one another
_UNFINISHED = [status.value for status in RunStatus if not status.ended]
_COUNTERS = tuple(field.name for field in fields(Counters))


class Runs:
    """All runs of the store. A method with `conn` takes part in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

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
                "options": _json(options_to_json(chosen)),
                "full_refresh": chosen.full_refresh,
                "dry_run": chosen.dry_run,
                "dagster_run_id": dagster_run_id,
                "dagster_step": dagster_step,
                "counters": _json(asdict(Counters())),
                "warnings": "[]",
                "created_at": to_text(self._db.now(writer)),
            }
            writer.execute(insert(runs).values(row))
            return self.get(chosen_id, conn=writer)

    def get(self, run_id: str, conn: Connection | None = None) -> Run:
        """Raises `NotFoundError`."""
        with self._db.reading(conn) as reader:
            row = reader.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        if row is None:
            raise _unknown(run_id)
        return run_of(row)

    def find(self, dagster_run_id: str, dagster_step: str | None = None) -> Run | None:
        """The newest run that a Dagster run (and step of it) executes."""
        query = select(runs).where(runs.c.dagster_run_id == dagster_run_id)
        if dagster_step is not None:
            query = query.where(runs.c.dagster_step == dagster_step)
        with self._db.read() as conn:
            row = conn.execute(query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(1)).one_or_none()
        return None if row is None else run_of(row)

    def unfinished(self, conn: Connection, sync_id: str) -> list[Run]:
        """The runs of a sync that are queued or running, oldest first."""
        query = select(runs).where(runs.c.sync_id == sync_id, runs.c.status.in_(_UNFINISHED))
        return [run_of(row) for row in conn.execute(query.order_by(runs.c.created_at, runs.c.id))]

    def queued(self, before: datetime, *, limit: int = 200) -> list[Run]:
        """Runs that were queued before this time and have not begun, oldest first."""
        waiting = (runs.c.status == RunStatus.QUEUED.value) & (runs.c.created_at < to_text(before))
        with self._db.read() as conn:
            query = select(runs).where(waiting).order_by(runs.c.created_at, runs.c.id).limit(limit)
            return [run_of(row) for row in conn.execute(query)]

    def sharing(self, dagster_run_id: str) -> list[Run]:
        """All runs that one Dagster run executes."""
        with self._db.read() as conn:
            return [run_of(row) for row in conn.execute(select(runs).where(runs.c.dagster_run_id == dagster_run_id))]

    def close_queued(self, run_id: str, status: RunStatus, error_code: str, error_message: str) -> bool:
        """End a run that has not begun; false: it has."""
        with self._db.begin() as conn:
            current = conn.scalar(select(runs.c.status).where(runs.c.id == run_id).with_for_update())
            if current != RunStatus.QUEUED.value:
                return False
            self.finish(conn, run_id, status, Counters(), error_code=error_code, error_message=error_message)
        return True

    def counts(self) -> dict[str, int]:
        """How many runs there are of each status."""
        with self._db.read() as conn:
            query = select(runs.c.status, func.count()).group_by(runs.c.status)
            return {status: count for status, count in conn.execute(query)}  # noqa: C416 - rows, not pairs

    def list(
        self,
        sync_id: str | None = None,
        status: RunStatus | None = None,
        *,
        among: Collection[str] | None = None,
        limit: int = 50,
        before: tuple[datetime, str] | None = None,
    ) -> list[Run]:
        """Newest first; `before`: (`created_at`, `id`) of the last run of the page before. `among`: of these syncs."""
        query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
        if sync_id is not None:
            query = query.where(runs.c.sync_id == sync_id)
        if among is not None:
            query = query.where(runs.c.sync_id.in_(sorted(among)))
        if status is not None:
            query = query.where(runs.c.status == status.value)
        if before is not None:
            query = query.where(tuple_(runs.c.created_at, runs.c.id) < (to_text(before[0]), before[1]))
        with self._db.read() as conn:
            return [run_of(row) for row in conn.execute(query)]

    def last_attempts(self, sync_ids: Iterable[str]) -> dict[str, Run]:
        """Of each sync that was ever tried: the attempt that ended last.

        Dry runs, cancelled ones and those that were turned away by a live run tried nothing.
        """
        query = (
            select(runs)
            .where(tried_to_write(runs.c))
            .order_by(runs.c.created_at.desc(), runs.c.id.desc())
            .limit(_OVERLAPPING)
        )
        found: dict[str, Run] = {}
        with self._db.read() as conn:
            for sync_id in sync_ids:
                rows = conn.execute(query.where(runs.c.sync_id == sync_id)).all()
                if rows:
                    found[sync_id] = run_of(max(rows, key=attrgetter("finished_at")))
        return found

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

    def epoch_of(self, run_id: str) -> str | None:
        """The epoch that the run's ledger belongs to; None before the run knew it."""
        with self._db.read() as conn:
            return conn.scalar(select(runs.c.epoch).where(runs.c.id == run_id))

    def set_plan(self, conn: Connection, run_id: str, plan: Mapping[str, Any]) -> None:
        """The plan's totals and manifest: written once, before the first request."""
        _update(conn, run_id, plan=_json(plan))

    def plan_of(self, run_id: str) -> dict[str, Any] | None:
        """What `set_plan` wrote; None when the run ended before it had a plan."""
        with self._db.read() as conn:
            plan = conn.scalar(select(runs.c.plan).where(runs.c.id == run_id))
        return None if plan is None else dict(orjson.loads(plan))

    def progress(self, run_id: str, counters: Counters) -> None:
        """Counters of a run under way, for people who watch; a run that ended keeps its own."""
        with self._db.begin() as conn:
            running = (runs.c.id == run_id) & (runs.c.status == RunStatus.RUNNING.value)
            conn.execute(update(runs).where(running).values(counters=_json(asdict(counters))))

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
            counters=_json(asdict(counters)),
            finished_at=func.coalesce(runs.c.finished_at, to_text(self._db.now(conn))),
            error_code=error_code,
            error_message=error_message,
            guard=guard,
            warnings=_json(notes),
        )


def _unbalanced(counters: Counters) -> str:
    return (
        f"the books do not balance: of {counters.read:,} rows {counters.due:,} are not accounted for, and "
        f"of {counters.removed:,} removals {counters.removals_due:,}; please report this"
    )


def tried_to_write(run: Any) -> ColumnElement[bool]:
    """Of the columns of `runs`: it ended, was no dry run, not cancelled, and not turned away by a live run."""
    return and_(
        run.status.in_((RunStatus.SUCCEEDED.value, RunStatus.FAILED.value)),
        ~run.dry_run,
        run.error_code.is_distinct_from(ErrorCode.LEASE_HELD.value),
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


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def _update(conn: Connection, run_id: str, **values: Any) -> None:
    mine: ColumnElement[bool] = runs.c.id == run_id
    if conn.execute(update(runs).where(mine).values(values)).rowcount != 1:
        raise _unknown(run_id)


def _unknown(run_id: str) -> NotFoundError:
    return NotFoundError(f"there is no run {run_id}", hint="`retl runs list` shows the runs of this store.")


def _counters(value: str) -> Counters:
    stored = orjson.loads(value)
    return Counters(**{name: stored[name] for name in _COUNTERS if name in stored})


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
