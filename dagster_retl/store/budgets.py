"""Rate budgets: one a destination account, shared by every process that uses the store.

A budget is a line of moments to send at (GCRA, "virtual scheduling"): whoever wants to send takes the
next ones, and the line's end moves on. Nobody waits here; callers wait for the moments they were given.
https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import rate_budgets
from dagster_retl.store.sql import upsert


@dataclass(frozen=True, slots=True)
class Reservation:
    """Moments to send at: the first at `first`, each next one `interval` seconds later.

    first, now: seconds since 1970 by the store's clock. A moment that is over means: at once.
    """

    first: float
    interval: float
    now: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What is known of an account. pause: seconds from now in which nobody sends. rate: learnt; None: nothing is."""

    pause: float
    rate: float | None


def claim(next_at: float, *, now: float, tokens: int, interval: float, burst: int) -> tuple[float, float]:
    """The first of `tokens` moments, and the line's new end.

    Moments lie `interval` apart. A line that nobody stood in for a while lets `burst` of them be taken
    at once: no window of t seconds ever holds more than t / interval + burst.
    """
    first = max(next_at, now - (burst - 1) * interval)
    return first, first + tokens * interval


class Budgets:
    """The budgets of all accounts, by a name of the account that holds no secret.

    Its transactions are short and wait for no disk: what a power cut loses here harms nobody.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def reserve(
        self, account: str, tokens: int, *, rate: float | None, burst: int = 1, margin: float = 1.0
    ) -> Reservation | None:
        """Take the next moments to send at. None: there is no rate, neither given nor learnt.

        rate: requests a second; a lower one that was learnt goes before it. margin: how much longer than
        1 / rate they lie apart.
        """
        with self._db.begin_volatile() as conn:
            row = self._lock(conn, account)
            rates = [each for each in (rate, row.rate) if each]
            if not rates:
                return None
            now = self._now(conn)  # after the lock: waiting for it may have taken long
            interval = margin / min(rates)
            line = max(row.next_at, row.paused_until) if _plausible(row, now) else 0.0
            first, next_at = claim(line, now=now, tokens=tokens, interval=interval, burst=burst)
            conn.execute(_RESERVE, {"name": account, "next_at": next_at, "updated_at": _text(now)})
        return Reservation(first, interval, now)

    def pause(self, account: str, seconds: float) -> None:
        """Nobody sends for this long, unless a longer pause is under way."""
        with self._db.begin_volatile() as conn:
            row = self._lock(conn, account)
            now = self._now(conn)
            under_way = row.paused_until if _plausible(row, now) else 0.0
            _write(conn, account, now, paused_until=max(under_way, now + seconds))

    def learn(self, account: str, rate: float) -> None:
        """Remember the requests a second that the destination says it takes."""
        with self._db.begin_volatile() as conn:
            self._lock(conn, account)
            _write(conn, account, self._now(conn), rate=rate)

    def look(self, account: str) -> Budget:
        """What is known of an account; takes nothing and writes nothing."""
        with self._db.read() as conn:
            row = conn.execute(_LOOK, {"name": account}).one_or_none()
            if row is None:
                return Budget(0.0, None)
            now = self._now(conn)
        return Budget(max(0.0, row.paused_until - now) if _plausible(row, now) else 0.0, row.rate)

    def _lock(self, conn: Connection, account: str) -> Any:
        found = conn.execute(_LOCK, {"name": account}).one_or_none()
        if found is not None:
            return found
        fresh = {"account": account, "next_at": 0.0, "paused_until": 0.0, "updated_at": _text(0.0)}
        conn.execute(upsert(conn, rate_budgets).values(**fresh).on_conflict_do_nothing())
        return conn.execute(_LOCK, {"name": account}).one()

    def _now(self, conn: Connection) -> float:
        return self._db.now(conn).timestamp()


# Built once: they are run for every few requests.
_MINE = rate_budgets.c.account == bindparam("name")
_LOOK = select(rate_budgets).where(_MINE)
_LOCK = _LOOK.with_for_update()
_CHANGE = update(rate_budgets).where(_MINE)
_RESERVE = _CHANGE.values(next_at=bindparam("next_at"), updated_at=bindparam("updated_at"))


def _plausible(row: Any, now: float) -> bool:
    """Whether the clock has gone on since the row was written; one that was set back would hold everybody up."""
    return from_text(row.updated_at).timestamp() <= now + 1.0


def _write(conn: Connection, account: str, now: float, **values: float) -> None:
    conn.execute(_CHANGE.values(updated_at=_text(now), **values), {"name": account})


def _text(seconds: float) -> str:
    return to_text(datetime.fromtimestamp(seconds, UTC))
