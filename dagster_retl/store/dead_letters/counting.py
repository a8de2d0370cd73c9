"""How many dead letters there are, without looking at each.

Triggers of the database count every change of `dead_letters` in its own transaction (see the migration that makes
`letter_counts`): in all, by month, by day and by minute of `first_seen_at`. What was seen since a moment is the months
after its month, the days of its month after its day, the minutes of its day after its minute, and of its minute the
entries themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Select, case, func, select, union_all

from dagster_retl.model.runs import DeadLetterStats
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import dead_letters, letter_counts

_C = letter_counts.c
_SPANS = {"all": 0, "month": 7, "day": 10, "minute": 16}  # how much of `first_seen_at` is the same
_LAST = "9999-12-31T23:59:59.999999Z"


class Counting:
    """The part of `DeadLetters` that counts them."""

    _db: Database

    def stats(
        self,
        sync_id: str | None = None,
        since: datetime | None = None,
        *,
        among: Collection[str] | None = None,
    ) -> DeadLetterStats:
        """Counts of entries; `since`: only those first seen then or later. Reasons are of open entries.

        among: of these syncs only.
        """
        counted = [_in_all()] if since is None else [*_later_spans(to_text(since)), _same_minute(to_text(since))]
        parts = union_all(*(_of(query, sync_id, among) for query in counted)).subquery()
        code = parts.c.error_code
        sums = select(code, func.sum(parts.c.open).label("open"), func.sum(parts.c.resolved).label("resolved"))
        with self._db.read() as conn:
            # One statement, so that an entry that is closed meanwhile is counted once.
            found = conn.execute(sums.group_by(code).order_by(code)).all()
            return DeadLetterStats(
                open_count=sum(int(row.open) for row in found),
                resolved_count=sum(int(row.resolved) for row in found),
                by_error_code={row.error_code: int(row.open) for row in found if row.open},
                computed_at=self._db.now(conn),
            )

    def open_by_reason(self) -> dict[tuple[str, str], int]:
        """(sync, reason) → open entries, where there are any."""
        opened = func.sum(_C.open)
        query = select(_C.sync_id, _C.error_code, opened).where(_C.span == "all")
        with self._db.read() as conn:
            rows = conn.execute(query.group_by(_C.sync_id, _C.error_code).having(opened != 0)).all()
        return {(sync_id, code): int(count) for sync_id, code, count in sorted(tuple(row) for row in rows)}

    def count_open(self, sync_id: str, conn: Connection | None = None) -> int:
        """The open entries of a sync."""
        with self._db.reading(conn) as reader:
            return int(reader.scalar(select(func.sum(_C.open)).where(_C.span == "all", _C.sync_id == sync_id)) or 0)


Counts = Select[tuple[str, str, int, int]]
"""Rows of (sync, reason, open entries, resolved entries)."""


def _in_all() -> Counts:
    return _counts().where(_C.span == "all")


def _later_spans(since: str) -> Iterator[Counts]:
    for (_, wider), (span, length) in pairwise(_SPANS.items()):
        end = since[:wider] + _LAST[wider:length]
        yield _counts().where(_C.span == span, _C.begins > since[:length], _C.begins <= end)


def _same_minute(since: str) -> Counts:
    letters, length = dead_letters.c, _SPANS["minute"]
    is_open = case((letters.resolved_at.is_(None), 1), else_=0)
    return select(letters.sync_id, letters.error_code, is_open.label("open"), (1 - is_open).label("resolved")).where(
        letters.first_seen_at >= since, letters.first_seen_at <= since[:length] + _LAST[length:]
    )


def _counts() -> Counts:
    return select(_C.sync_id, _C.error_code, _C.open, _C.resolved)


def _of(query: Counts, sync_id: str | None, among: Collection[str] | None) -> Select[Any]:
    sync = query.selected_columns[0]
    if sync_id is not None:
        query = query.where(sync == sync_id)
    return query if among is None else query.where(sync.in_(sorted(among)))
