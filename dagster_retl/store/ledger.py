"""The ledger: which batches of a run's manifest were sent, and what was answered (PROTOCOL 4).

It is the write-ahead log of the snapshot: what it holds is folded by the run itself, or by the
next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from dagster_retl.errors import RetlError
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import batches

_PAGE = 200  # batches read at a time; outcomes are a few KB each


# Made once: these run thousands of times, and making them takes as long as running them.
_START = insert(batches)
_ANSWER = (
    update(batches)
    .where(batches.c.run_id == bindparam("of_run"), batches.c.number == bindparam("of_number"))
    .values(outcomes=bindparam("answer"), answered_at=bindparam("at"))
)


class LedgerBatch(NamedTuple):
    """A started batch. Times are the store's, as text that sorts; `outcomes` None: never answered.

    jobs: those at the vendor that it was sent as, as the engine writes them.
    """

    number: int
    started_at: str
    answered_at: str | None
    outcomes: bytes | None
    jobs: str | None = None


class Ledger:
    """Started batches and their outcomes, until they are folded."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def start(
        self, conn: Connection, run_id: str, sync_id: str, numbers: Sequence[int], *, jobs: str | None = None
    ) -> str:
        """Mark batches as started, in a fenced transaction that ends before a byte of them leaves.

        Returns the time of the mark by the store's clock. Each batch of a run starts once. jobs: what is known of
        the jobs that they are sent as, for batches that are sent as jobs.
        """
        started_at = to_text(self._db.now(conn))
        if numbers:
            common = {"run_id": run_id, "sync_id": sync_id, "started_at": started_at, "jobs": jobs}
            conn.execute(_START, [common | {"number": number} for number in numbers])
        return started_at

    def record(self, conn: Connection, run_id: str, outcomes: Mapping[int, bytes]) -> None:
        """Write down the answers of started batches, by number; again, when more of one is known."""
        if not outcomes:
            return
        common = {"of_run": run_id, "at": to_text(self._db.now(conn))}
        rows = [common | {"of_number": number, "answer": answer} for number, answer in outcomes.items()]
        if conn.execute(_ANSWER, rows).rowcount != len(rows):
            raise RetlError(f"run {run_id} has an answer to a batch that never started, among {sorted(outcomes)}")

    def keep_jobs(self, conn: Connection, run_id: str, number: int, jobs: str) -> None:
        """Write down the jobs of a started batch, in a fenced transaction (PROTOCOL 7)."""
        of_batch = (batches.c.run_id == run_id, batches.c.number == number)
        if conn.execute(update(batches).where(*of_batch).values(jobs=jobs)).rowcount != 1:
            raise RetlError(f"run {run_id} has a job for batch {number}, which never started")

    def unfolded(self, sync_id: str) -> list[str]:
        """The runs whose batches are not folded yet, oldest first."""
        query = (
            select(batches.c.run_id)
            .where(batches.c.sync_id == sync_id)
            .group_by(batches.c.run_id)
            .order_by(func.min(batches.c.started_at), batches.c.run_id)
        )
        with self._db.read() as conn:
            return list(conn.scalars(query))

    def batches(self, run_id: str) -> Iterator[LedgerBatch]:
        """The run's batches by number, a page at a time and no connection in between."""
        last = -1
        while page := self._page(run_id, last):
            yield from page
            last = page[-1].number

    def forget(self, conn: Connection, run_id: str) -> int:
        """Drop a run's batches, in the transaction that folds them. Returns how many there were."""
        return conn.execute(delete(batches).where(batches.c.run_id == run_id)).rowcount

    def _page(self, run_id: str, after: int) -> list[LedgerBatch]:
        query = (
            select(batches.c.number, batches.c.started_at, batches.c.answered_at, batches.c.outcomes, batches.c.jobs)
            .where(batches.c.run_id == run_id, batches.c.number > after)
            .order_by(batches.c.number)
            .limit(_PAGE)
        )
        with self._db.read() as conn:
            return [LedgerBatch(*row) for row in conn.execute(query)]
