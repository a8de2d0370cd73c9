"""Requests that may come again: the first is done, the others get its answer, for a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, delete, or_, select, update

from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema_syncs import idempotency_keys
from dagster_retl.store.sql import upsert

KEPT = timedelta(hours=24)
"""How long an answer is given again."""

ABANDONED = timedelta(minutes=10)
"""After this time, a request without an answer is taken for one whose process died."""

_C = idempotency_keys.c


@dataclass(frozen=True, slots=True)
class Earlier:
    """A request that came before with the same key. `status` and `answer` are None while it is under way."""

    request: str
    status: int | None
    answer: str | None


class IdempotencyKeys:
    """The keys of all callers."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def begin(self, caller: str, key: str, request: str) -> Earlier | None:
        """Take a key for a request (a digest of it). None: it is ours to answer; otherwise what came before."""
        mine = (_C.caller == caller) & (_C.key == key)
        with self._db.begin() as conn:
            now = self._db.now(conn)
            too_old = _C.created_at < to_text(now - KEPT)
            dead = and_(_C.status.is_(None), _C.created_at < to_text(now - ABANDONED))
            conn.execute(delete(idempotency_keys).where(or_(too_old, mine & dead)))
            take = upsert(conn, idempotency_keys).values(
                caller=caller, key=key, request=request, created_at=to_text(now)
            )
            if conn.execute(take.on_conflict_do_nothing().returning(_C.key)).all():
                return None
            row = conn.execute(select(idempotency_keys).where(mine)).one()
        return Earlier(row.request, row.status, row.answer)

    def answer(self, caller: str, key: str, status: int, answer: str) -> None:
        """Keep the answer for whoever asks again."""
        mine = (_C.caller == caller) & (_C.key == key)
        with self._db.begin() as conn:
            conn.execute(update(idempotency_keys).where(mine).values(status=status, answer=answer))

    def release(self, caller: str, key: str) -> None:
        """The request did nothing: it may be asked again with the same key."""
        with self._db.begin() as conn:
            conn.execute(delete(idempotency_keys).where(_C.caller == caller, _C.key == key, _C.status.is_(None)))
