"""Replays that somebody asked for and no run has begun: queued runs, and the dead letters that are marked with them.

The marks are the truth about what such a run is to send: it reads them when it begins. Whoever adds
to a replay does so only while no Dagster run has it, in a transaction that holds the run's row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, exists, select, update

from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import REPLAY, DeadLetter, Run, RunOptions, RunStatus
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters.listing import dead_letter_of
from dagster_retl.store.runs import options_from_json, options_text, run_of
from dagster_retl.store.schema import dead_letters, runs
from dagster_retl.store.sql import chunks

_C = dead_letters.c


class Replays:
    """Queued replays of all syncs. A method with `conn` takes part in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def waiting(self, sync_ids: Collection[str], before: datetime) -> list[Run]:
        """Replays of these syncs that were queued before this time and that no Dagster run has, oldest first."""
        found: list[Run] = []
        with self._db.read() as conn:
            for chunk in chunks(sorted(sync_ids)):
                query = select(runs).where(_waits(), runs.c.sync_id.in_(chunk), runs.c.created_at < to_text(before))
                found += [run_of(row) for row in conn.execute(query)]
        return sorted(found, key=lambda run: (run.created_at, run.id))

    def waits(self, run: Run, before: datetime) -> bool:
        """Whether this run is one that `waiting` would tell."""
        replay = run.trigger == REPLAY and not run.dry_run
        queued = run.status is RunStatus.QUEUED and run.dagster_run_id is None
        return replay and queued and run.created_at < before

    def open_for_more(self, conn: Connection, sync_id: str, partition: Partition | None) -> Run | None:
        """The replay of (a partition of) a sync that more dead letters can be added to, until the transaction ends."""
        # One that executes here and now, beside Dagster, has no marks before it has begun.
        marked = exists().where(_C.replay_run_id == runs.c.id)
        query = select(runs).where(_waits(), marked, runs.c.sync_id == sync_id).order_by(runs.c.created_at, runs.c.id)
        found = map(run_of, conn.execute(query.with_for_update()))
        return next((run for run in found if options_from_json(run.options).partition == partition), None)

    def marks(self, conn: Connection, entry_ids: Sequence[str]) -> dict[str, str | None]:
        """Of those entries that are open: the run that is to send them again, if there is one. Locks them."""
        found: dict[str, str | None] = {}
        for chunk in chunks(sorted(entry_ids)):
            mine = and_(_C.id.in_(chunk), _C.resolved_at.is_(None))
            query = select(_C.id, _C.replay_run_id).where(mine).order_by(_C.id).with_for_update()
            found.update((row.id, row.replay_run_id) for row in conn.execute(query))
        return {each: found[each] for each in entry_ids if each in found}

    def entries(self, run_id: str, conn: Connection | None = None) -> list[DeadLetter]:
        """The open entries that a run is to send again."""
        columns = [column for column in _C if column.name != "payload"]
        query = select(*columns).where(_C.replay_run_id == run_id, _C.resolved_at.is_(None)).order_by(_C.id)
        with self._db.reading(conn) as reader:
            return [dead_letter_of(row) for row in reader.execute(query)]

    def set_options(self, conn: Connection, run_id: str, options: RunOptions) -> None:
        """What the run is to do, now that it is known."""
        conn.execute(update(runs).where(runs.c.id == run_id).values(options=options_text(options)))

    def put_back(self, run_id: str) -> bool:
        """Have the replay wait again: its Dagster run could not begin it. False: it has begun, or is over."""
        mine = and_(runs.c.id == run_id, runs.c.status == RunStatus.QUEUED.value)
        with self._db.begin() as conn:
            values = {"dagster_run_id": None, "dagster_step": None}
            return conn.execute(update(runs).where(mine).values(values)).rowcount == 1


def _waits() -> ColumnElement[bool]:
    return and_(
        runs.c.status == RunStatus.QUEUED.value,
        runs.c.trigger == REPLAY,
        runs.c.dagster_run_id.is_(None),
        ~runs.c.dry_run,
    )
