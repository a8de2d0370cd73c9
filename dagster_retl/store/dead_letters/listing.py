"""Dead letters as people and alerts see them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, func, select, tuple_

from dagster_retl.errors import ErrorCode, NotFoundError
from dagster_retl.model.runs import DeadLetter
from dagster_retl.store.clock import from_text, maybe_time, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import dead_letters
from dagster_retl.store.sql import chunks, of_syncs

Cursor = tuple[datetime, str]
"""(`first_seen_at`, `id`) of the last entry of a page."""

Conditions = list[ColumnElement[bool]]

_C = dead_letters.c
_SHOWN = [column for column in _C if column.name != "payload"]


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """The open entries of one sync that failed for one reason. `rows`: of the query, that they stand for."""

    sync_id: str
    error_code: str
    entries: int
    rows: int
    oldest: datetime
    newest: datetime


class Listing:
    """The part of `DeadLetters` that only reads."""

    _db: Database

    def get(self, entry_id: str) -> DeadLetter:
        """Raises `NotFoundError`."""
        with self._db.read() as conn:
            row = conn.execute(select(*_SHOWN).where(_C.id == entry_id)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no dead letter {entry_id}", hint="`retl dlq list` shows the open entries.")
        return dead_letter_of(row)

    def payload(self, entry_id: str) -> bytes | None:
        """What was sent, encrypted; None: it was not kept. Raises `NotFoundError`."""
        self.get(entry_id)
        with self._db.read() as conn:
            return conn.scalar(select(_C.payload).where(_C.id == entry_id))

    def opened_since(self, cursor: Cursor | None, *, limit: int = 1_000) -> list[DeadLetter]:
        """Entries first seen after `cursor`, open or resolved since, oldest first.

        A transaction may commit entries that are older than ones seen already: whoever must not
        miss any looks at `open_groups`.
        """
        query = select(*_SHOWN).order_by(_C.first_seen_at, _C.id).limit(limit)
        if cursor is not None:
            query = query.where(_position() > (to_text(cursor[0]), cursor[1]))
        with self._db.read() as conn:
            return [dead_letter_of(row) for row in conn.execute(query)]

    def open_groups(self, sync_id: str | None = None) -> list[OpenGroup]:
        """The open entries counted by sync and reason."""
        query = (
            select(
                _C.sync_id,
                _C.error_code,
                func.count().label("entries"),
                func.sum(_C.rows).label("rows"),
                func.min(_C.first_seen_at).label("oldest"),
                func.max(_C.first_seen_at).label("newest"),
            )
            .where(_C.resolved_at.is_(None), *_of_sync(sync_id))
            .group_by(_C.sync_id, _C.error_code)
            .order_by(_C.sync_id, _C.error_code)
        )
        with self._db.read() as conn:
            return [
                OpenGroup(
                    row.sync_id,
                    row.error_code,
                    row.entries,
                    int(row.rows),
                    from_text(row.oldest),
                    from_text(row.newest),
                )
                for row in conn.execute(query)
            ]

    def get_all(self, entry_ids: Collection[str]) -> list[DeadLetter]:
        """The entries that there are of these, in no order."""
        found = []
        with self._db.read() as conn:
            for chunk in chunks(entry_ids):
                found += [dead_letter_of(row) for row in conn.execute(select(*_SHOWN).where(_C.id.in_(chunk)))]
        return found

    def list(
        self,
        sync_id: str | None = None,
        *,
        resolved: bool = False,
        run_id: str | None = None,
        error_code: ErrorCode | str | None = None,
        among: Collection[str] | None = None,
        limit: int = 50,
        before: Cursor | None = None,
    ) -> list[DeadLetter]:
        """Newest first; `before`: only what comes after that entry. `run_id`: the run that last touched them.

        among: of these syncs only.
        """
        conditions: Conditions = [_C.resolved_at.is_not(None) if resolved else _C.resolved_at.is_(None)]
        # A run's entries are of one sync: that sync's index would take longer to look through than the run's.
        sync = _C.sync_id if run_id is None else _C.sync_id + ""
        for column, value in ((sync, sync_id), (_C.run_id, run_id), (_C.error_code, error_code)):
            if value is not None:
                conditions.append(column == str(value))
        if before is not None:
            conditions.append(_position() < (to_text(before[0]), before[1]))
        query = select(*_SHOWN).where(*conditions).order_by(_C.first_seen_at.desc(), _C.id.desc()).limit(limit)
        with self._db.read() as conn:
            if among is not None and run_id is None:
                query = of_syncs(conn, query, dead_letters, among)
            elif among is not None:
                query = query.where(sync.in_(sorted(among)))
            return [dead_letter_of(row) for row in conn.execute(query)]


def _of_sync(sync_id: str | None) -> Conditions:
    return [] if sync_id is None else [_C.sync_id == sync_id]


def _position() -> Any:
    return tuple_(_C.first_seen_at, _C.id)


def dead_letter_of(row: Any) -> DeadLetter:
    """The noun of a row of the table."""
    return DeadLetter(
        id=row.id,
        sync_id=row.sync_id,
        run_id=row.run_id,
        error_code=row.error_code,
        message=row.message,
        record_keys=orjson.loads(row.record_keys),
        operation=row.operation,
        attempts=row.attempts,
        rows=row.rows,
        first_seen_at=from_text(row.first_seen_at),
        last_seen_at=from_text(row.last_seen_at),
        vendor_code=row.vendor_code,
        rejections=row.rejections,
        held=row.held,
        held_until=maybe_time(row.held_until),
        silenced=row.silenced,
        replaying=row.replay_run_id is not None,
        resolved_at=maybe_time(row.resolved_at),
        resolution=row.resolution,
        partition=row.partition,
    )
