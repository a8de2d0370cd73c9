"""Deleting what was kept long enough: a few rows at a time, each time in a transaction of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, update

from dagster_retl.model.runs import RunStatus
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters.planning import overtaken
from dagster_retl.store.runs import tried_to_write
from dagster_retl.store.schema import batches, dead_letters, leases, row_history, runs

_ENDED = [status.value for status in RunStatus if status.ended]


class Expiry:
    """What may go of a sync. Each method deletes the oldest and returns how many there were: 0 when all are gone."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def runs(self, sync_id: str, before: datetime, limit: int) -> int:
        """Runs that ended before this time.

        The last run of the sync stays, and the last that tried to write; and those that a ledger, an
        open dead letter or a lease names.
        """
        moment = to_text(before)
        query = (
            select(runs.c.id)
            .where(
                runs.c.sync_id == sync_id,
                runs.c.created_at < moment,
                runs.c.finished_at < moment,
                runs.c.status.in_(_ENDED),
                runs.c.id != _newest(sync_id),
                runs.c.id != _newest(sync_id, tried=True),
                ~_needed(),
            )
            .order_by(runs.c.created_at, runs.c.id)
        )
        return self._delete(runs, query, limit)

    def history(self, sync_id: str, before: datetime, limit: int) -> int:
        """Names of history files that were written before this time; the state collects the files."""
        query = select(row_history.c.id).where(
            row_history.c.sync_id == sync_id, row_history.c.created_at < to_text(before)
        )
        return self._delete(row_history, query.order_by(row_history.c.created_at, row_history.c.id), limit)

    def dead_letters(self, sync_id: str, before: datetime, limit: int) -> int:
        """Dead letters that were resolved before this time, the oldest first.

        One that silences a version stays. One that a later entry overtook goes, and before that later
        entry does: otherwise it would silence again.
        """
        letters, moment = dead_letters.c, to_text(before)
        query = select(letters.id).where(
            letters.sync_id == sync_id,
            letters.resolved_at.is_not(None),
            letters.first_seen_at < moment,
            letters.resolved_at < moment,
            or_(~letters.silenced, overtaken()),
        )
        return self._delete(dead_letters, query.order_by(letters.first_seen_at, letters.id), limit)

    def payloads(self, sync_id: str, before: datetime, limit: int) -> int:
        """Payloads of dead letters that were resolved before this time and stay."""
        letters, moment = dead_letters.c, to_text(before)
        kept = (letters.sync_id == sync_id, letters.first_seen_at < moment, letters.resolved_at < moment)
        query = select(letters.id).where(*kept, letters.silenced, letters.payload.is_not(None)).limit(limit)
        with self._db.begin() as conn:
            return conn.execute(update(dead_letters).where(letters.id.in_(query)).values(payload=None)).rowcount

    def _delete(self, table: Any, ids: Select[Any], limit: int) -> int:
        """Found before the transaction begins: others wait for the deleting alone."""
        with self._db.read() as conn:
            found = list(conn.scalars(ids.limit(limit)))
        if not found:
            return 0
        with self._db.begin() as conn:
            # Again by the same conditions: a run may have named one of them meanwhile.
            still = ids.where(table.c.id.in_(found)).order_by(None)
            return conn.execute(delete(table).where(table.c.id.in_(still))).rowcount


def _newest(sync_id: str, *, tried: bool = False) -> Any:
    newest = runs.alias("newest")
    query = select(newest.c.id).where(newest.c.sync_id == sync_id)
    if tried:
        query = query.where(tried_to_write(newest.c))
    # Where there is none, no run is it: a comparison with NULL would keep them all.
    return func.coalesce(query.order_by(newest.c.created_at.desc(), newest.c.id.desc()).limit(1).scalar_subquery(), "")


def _needed() -> ColumnElement[bool]:
    """Whether something names the run that is not over yet."""
    open_letter = and_(
        or_(dead_letters.c.run_id == runs.c.id, dead_letters.c.replay_run_id == runs.c.id),
        dead_letters.c.resolved_at.is_(None),
    )
    return or_(
        exists().where(batches.c.run_id == runs.c.id),
        exists().where(open_letter),
        exists().where(leases.c.run_id == runs.c.id),
    )
