"""Ending the jobs that a dead process began, from its manifest and ledger (PROTOCOL 7)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagster_retl.connectors.jobs import JobConnector, JobRef, JobState
from dagster_retl.engine.breaker import Breaker
from dagster_retl.engine.commit import Books
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.dispatch import Dispatch
from dagster_retl.engine.feed import Intents, NumberedBatch, batches_of
from dagster_retl.engine.job_writer import OF_WHOLE_JOB, JobWatch
from dagster_retl.engine.jobs import BatchJob, decode_jobs
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.payload import DOCUMENT
from dagster_retl.engine.recorder import Answered, Recorder
from dagster_retl.engine.transport import Traffic, Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.engine.writers import Reply
from dagster_retl.errors import CancelledError, DestinationError, ErrorCode
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Batch, Fault, Row, RowResult
from dagster_retl.model.sync import Sync
from dagster_retl.store.leases import Lease
from dagster_retl.store.state import State
from dagster_retl.store.store import Store


@dataclass(frozen=True, slots=True)
class JobRecovery:
    """Ends jobs for the holder of a sync's lease, and writes down what became of their rows.

    before_send: called before each request; raises to stop.
    """

    store: Store
    state: State
    lease: Lease
    connector: JobConnector
    sync: Sync
    redact: Redactor
    stop: threading.Event = field(default_factory=threading.Event)
    before_send: Callable[[], None] = lambda: None

    def end_jobs(self, run_id: str, books: Books) -> None:
        """End what a run left at the vendor.

        Raises `DestinationError` where the vendor cannot be asked; the ledger stays as it is then.
        """
        begun = {
            batch.number: decode_jobs(batch.jobs)
            for batch in self.store.ledger.batches(run_id)
            if batch.outcomes is None and batch.jobs is not None
        }
        if not begun or books.manifest is None:
            return
        manifest = self.state.local_path(books.manifest, books.checksum or "")
        transport = Transport(self.connector, auth=self.connector.auth(), turns=self._turns())
        recorder = Recorder(
            self.store, self.lease, epoch=books.epoch, settle=books.settle, redact=self.redact, run_id=run_id,
            partition=books.partition,
        )  # fmt: skip
        with closing(transport), closing(recorder):
            for batch in read_batches(manifest, begun):
                answered = self._answer(transport, batch, begun[batch.number], books)
                recorder.answer(answered).result()

    def _turns(self) -> Turns:
        pacer = Pacer(self.connector.rate_limit, self.connector.burst)
        return Turns(pacer, self.stop, Gate(1), self.before_send)

    def _answer(self, transport: Transport, batch: NumberedBatch, jobs: Sequence[BatchJob], books: Books) -> Answered:
        to_send = batch.to_send(self.sync.object_name, self.sync.key_fields, books.manifest or "", self.lease.run_id)
        collector = _Collector(self._results(transport, to_send, jobs))
        dispatch = Dispatch(
            to_send, collector, self.connector, Breaker(len(batch.rows)), threading.Event(),
            gone_is_failure=self.sync.on_missing == "fail",
        )  # fmt: skip
        return Answered(batch, dispatch.send())

    def _results(self, transport: Transport, batch: Batch, jobs: Sequence[BatchJob]) -> Reply:
        """What all jobs of a batch say together; a later one has the last word on a row.

        A row that a job held and says nothing of has no result: nobody knows whether it was written.
        """
        watch = JobWatch(self.connector, transport, self.stop)
        found: dict[str, RowResult] = {row.key: RowResult(row.key, _NOT_REACHED) for row in batch.rows}
        for held in jobs:
            job = held.ref
            try:
                state = watch.poll(job).state
            except DestinationError as error:
                if error.code is ErrorCode.NOT_FOUND:
                    return Reply(error=_lost(job), ambiguous=True)
                raise
            if state is JobState.OPEN:
                watch.ask(self.connector.abort(job))
                continue
            watch.until_ended(job)
            results = {result.key: result for result in self._collected(watch, batch, held)}
            for row in _rows_of(batch, held):
                found.pop(row.key, None)
            found |= results
        return Reply(list(found.values()))

    def _collected(self, watch: JobWatch, batch: Batch, job: BatchJob) -> Sequence[RowResult]:
        """A job that was refused as a whole has written nothing: why is for the next one to say."""
        try:
            return watch.ask(self.connector.collect(batch, job.ref))
        except DestinationError as error:
            if error.code not in OF_WHOLE_JOB:
                raise
            return [RowResult(row.key, _NOT_REACHED) for row in _rows_of(batch, job)]


class _Collector:
    """Writes nothing: its first answer is what the jobs said, and nothing is sent again."""

    def __init__(self, reply: Reply) -> None:
        self._replies: Iterator[Reply] = iter([reply])
        self.traffic = Traffic()

    def write(self, batch: Batch) -> Reply:
        return next(self._replies, Reply(error=CancelledError("the rows are for the next run to send")))

    def close(self) -> None:
        """Nothing is open."""


def read_batches(manifest: Path, numbers: Collection[int]) -> Iterator[NumberedBatch]:
    """Batches as a manifest has them, in order: their rows have keys and record ids, and no other values."""
    wanted = pa.array(sorted(numbers), pa.int32())
    with pq.ParquetFile(manifest) as file:
        blocks = (pa.Table.from_batches([block]) for block in file.iter_batches())
        parts = (block.filter(pc.is_in(block["batch"], value_set=wanted)) for block in blocks)
        yield from batches_of((_with_document(part) for part in parts if part.num_rows), Intents("", by_key=False))


def _rows_of(batch: Batch, job: BatchJob) -> Iterable[Row]:
    return batch.rows if job.positions is None else (batch.rows[position] for position in job.positions)


def _with_document(rows: pa.Table) -> pa.Table:
    return rows.append_column(DOCUMENT, rows["record_keys"].cast(pa.binary()))


_NOT_REACHED = Fault(ErrorCode.DESTINATION_UNAVAILABLE, "the job ended before it got to this row")


def _lost(job: JobRef) -> DestinationError:
    return DestinationError(
        f"the destination does not know job {job.id} any more", code=ErrorCode.UNKNOWN_OUTCOME, ambiguous=True
    )
