"""The first thing under a lease: fold and close what dead runs left, and what people decided (PROTOCOL 1, 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dagster_retl.engine.commit import Books, Closer
from dagster_retl.engine.ending import INTERRUPTED, Ending
from dagster_retl.engine.job_recovery import JobRecovery
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.store.leases import Lease
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.store import Store


@dataclass(frozen=True, slots=True)
class Recovery:
    """Recovers one sync, for the holder of its lease. reset: its snapshot starts empty, readable or not.

    jobs: ends what dead runs left at the vendor, where it takes jobs.
    """

    store: Store
    lease: Lease
    closer: Closer
    sync: Sync
    reset: bool = False
    jobs: JobRecovery | None = None

    def recover(self) -> None:
        """Leave no run of another holder open, no ledger unfolded, no decision pending."""
        for run_id in sorted(self._unclosed() | set(self.store.ledger.unfolded(self.sync.id))):
            self._recover_run(run_id)
        pointer = self._pointer()
        if pointer is not None and self.store.acceptances.table(self.sync.id, pointer.epoch).num_rows:
            self._fold_decisions(pointer)

    def _unclosed(self) -> set[str]:
        """Other runs that died without a word: a holder of the lease, perhaps before it said that it runs."""
        runs, sync_id = self.store.runs, self.sync.id
        queued = {run.id for run in runs.list(sync_id, RunStatus.QUEUED, limit=200)}
        running = {run.id for run in runs.list(sync_id, RunStatus.RUNNING, limit=200)}
        return (queued & {self.lease.previous_run_id} | running) - {self.lease.run_id}

    def _recover_run(self, run_id: str) -> None:
        plan = self.store.runs.plan_of(run_id)
        pointer = self._pointer()
        ending = self._ending_of_dead(run_id)
        if plan is None or pointer is None:
            with self.store.fenced(self.lease) as conn:
                self.closer.close(conn, run_id, ending, Counters())
            return
        if self.jobs is not None:
            self.jobs.end_jobs(run_id, Books.of(plan))
        folded = self.closer.fold(run_id, Books.of(plan), pointer)
        with self.store.fenced(self.lease) as conn:
            if run_id == self.lease.run_id:
                self.closer.save(conn, run_id, folded)
            else:
                self.closer.commit(conn, run_id, folded, ending)

    def _pointer(self) -> Pointer | None:
        """A reset needs no snapshot: it is the way out where the generation cannot be read."""
        pointer = self.store.snapshots.pointer(self.sync.id)
        if pointer is not None and self.reset:
            return replace(pointer, generation=None, rows=0, checksum=None)
        return pointer

    def _ending_of_dead(self, run_id: str) -> Ending:
        """A run that could say why it ended keeps its reason; the others were interrupted."""
        run = self.store.runs.get(run_id)
        if run.status.ended:
            return Ending(run.status, run.error_code, run.error_message, run.guard, run.warnings)
        return INTERRUPTED

    def _fold_decisions(self, pointer: Pointer) -> None:
        mode = self.sync.sync_mode
        books = Books(pointer.epoch, mode, None, None, 0.0, holds_unknown=False, counters=Counters())
        folded = self.closer.fold(self.lease.run_id, books, pointer)
        with self.store.fenced(self.lease) as conn:
            self.closer.save(conn, self.lease.run_id, folded)
