"""Runs as people, schedules and sensors look at them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import Connection, func, select, tuple_

from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.runs.rows import run_of, tried_to_write, unknown_run
from dagster_retl.store.schema import runs
from dagster_retl.store.sql import of_syncs

_OVERLAPPING = 10  # newest runs among which the one that ended last is looked for: they may wait for one another
_UNFINISHED = [status.value for status in RunStatus if not status.ended]


class RunListing:
    """The part of `Runs` that only reads."""

    _db: Database

    def get(self, run_id: str, conn: Connection | None = None) -> Run:
        """Raises `NotFoundError`."""
        with self._db.reading(conn) as reader:
            row = reader.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        if row is None:
            raise unknown_run(run_id)
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

    def counts(self) -> dict[str, int]:
        """How many runs there are of each status."""
        with self._db.read() as conn:
            query = select(runs.c.status, func.count()).group_by(runs.c.status)
            return {status: count for status, count in conn.execute(query)}  # noqa: C416 - rows, not pairs

    def epoch_of(self, run_id: str) -> str | None:
        """The epoch that the run's ledger belongs to; None before the run knew it."""
        with self._db.read() as conn:
            return conn.scalar(select(runs.c.epoch).where(runs.c.id == run_id))

    def plan_of(self, run_id: str) -> dict[str, Any] | None:
        """What `set_plan` wrote; None when the run ended before it had a plan."""
        with self._db.read() as conn:
            plan = conn.scalar(select(runs.c.plan).where(runs.c.id == run_id))
        return None if plan is None else dict(orjson.loads(plan))

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
        if status is not None:
            query = query.where(runs.c.status == status.value)
        if before is not None:
            query = query.where(tuple_(runs.c.created_at, runs.c.id) < (to_text(before[0]), before[1]))
        with self._db.read() as conn:
            page = query if among is None else of_syncs(conn, query, runs, among)
            return [run_of(row) for row in conn.execute(page)]
