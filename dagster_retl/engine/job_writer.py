"""Sending a batch as a job: open, start, wait, collect (PROTOCOL 7)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Event
from typing import TypeVar

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.jobs import JobConnector, JobRef, JobState, JobStatus
from dagster_retl.engine.jobs import BatchJob
from dagster_retl.engine.transport import PATIENCE, Transport
from dagster_retl.engine.writers import HttpWriter, Reply
from dagster_retl.errors import ACTIONS, Action, CancelledError, DestinationError, ErrorCode, RetlError
from dagster_retl.model.rows import Batch, Operation, RowResult

T = TypeVar("T")

LONGEST_PAUSE = 15.0
"""Seconds between two questions about a job, at most."""
STARTS = 3
"""How often a job is started of which nobody knows whether it was."""
LAST_WORD = 30.0
"""Seconds for a job to end that was cut short."""

OF_WHOLE_JOB = (
    ErrorCode.SCHEMA_DRIFT, ErrorCode.CONFIGURATION, ErrorCode.BATCH_REJECTED, ErrorCode.PAYLOAD_TOO_LARGE
)  # fmt: skip
"""What `collect` raises for a job that was refused as a whole, so that nothing of it is applied."""

ENDED = (JobState.DONE, JobState.FAILED)
Keep = Callable[[int, Sequence[BatchJob]], None]
"""Makes the jobs of a batch (its number, the jobs) durable."""


class JobWatch:
    """Asks about jobs over one client until they end."""

    def __init__(self, connector: JobConnector, transport: Transport, stop: Event) -> None:
        self._connector = connector
        self._transport = transport
        self._stop = stop

    def ask(self, exchange: Exchange[T]) -> T:
        return self._transport.run(exchange)

    def poll(self, job: JobRef) -> JobStatus:
        return self.ask(self._connector.poll(job))

    def until_ended(self, job: JobRef, patience: float | None = None) -> JobStatus:
        """Wait for a job that was started. Raises `CancelledError` when the run ends first.

        patience: seconds to wait at most; without it, for as long as the destination says that the job runs.
        """
        heard = began = time.monotonic()
        for pause in _pauses():
            try:
                status = self.poll(job)
            except DestinationError as error:
                if ACTIONS[error.code] is not Action.RETRY or time.monotonic() - heard > PATIENCE:
                    raise
            else:
                if status.state in ENDED:
                    return status
                if status.state is JobState.RUNNING:
                    heard = time.monotonic()
            waited = time.monotonic() - (heard if patience is None else began)
            if waited > (PATIENCE if patience is None else patience):
                raise _never_ended(job)
            if self._stop.wait(pause):
                raise CancelledError("the run was stopped while a job was under way")
        raise AssertionError("there is always another pause")

    def cut_short(self, job: JobRef) -> JobStatus:
        """End a job before its time, and wait until it has ended, so that its rows are accounted for."""
        try:
            self.ask(self._connector.abort(job))
        except DestinationError as error:
            if ACTIONS[error.code] is Action.RETRY:
                raise
        return self.until_ended(job, LAST_WORD)


class JobWriter:
    """Writes batches of `operations` as jobs, all others by conversation.

    keep: called before anything of a job can be applied. Parts of a batch that are sent again are jobs too, so
    that a batch's jobs say all that was sent of it.
    """

    def __init__(
        self, connector: JobConnector, transport: Transport, operations: frozenset[Operation], keep: Keep
    ) -> None:
        self._connector = connector
        self._transport = transport
        self.traffic = transport.traffic
        self._plain = HttpWriter(connector, transport)
        self._watch = JobWatch(connector, transport, transport.stop)
        self._operations = operations
        self._keep = keep
        self._number = -1
        self._places: dict[str, int] = {}
        self._jobs: list[BatchJob] = []
        self._applying = False

    def write(self, batch: Batch) -> Reply:
        if batch.operation not in self._operations:
            return self._plain.write(batch)
        if batch.number != self._number:  # its first time: all of its rows
            self._number, self._jobs = batch.number, []
            self._places = {row.key: place for place, row in enumerate(batch.rows)}
        self._applying = False
        try:
            return Reply(self._results(batch, self._opened(batch)))
        except DestinationError as error:
            return Reply(error=_of_started(error) if self._applying else error, ambiguous=self._applying)
        except RetlError as error:
            return Reply(error=error, ambiguous=self._applying)

    def close(self) -> None:
        self._transport.close()

    def _opened(self, batch: Batch) -> JobRef:
        """A job that nothing is in yet: whether or not the vendor made another one before, nothing was applied."""
        try:
            job = self._watch.ask(self._connector.open(batch))
        except DestinationError as error:
            raise _without_effect(error) from error
        whole = len(batch.rows) == len(self._places)
        positions = None if whole else [self._places[row.key] for row in batch.rows]
        self._jobs.append(BatchJob(job, positions))
        self._keep(batch.number, self._jobs)
        return job

    def _started(self, batch: Batch, job: JobRef) -> JobRef:
        for _ in range(STARTS):
            try:
                self._applying = True
                job = self._watch.ask(self._connector.start(batch, job))
            except DestinationError as error:
                failure = error
                if self._watch.poll(job).state is JobState.OPEN:
                    self._applying = False
                    if ACTIONS[error.code] is Action.RETRY or error.ambiguous:
                        continue
                    break
            self._jobs[-1] = replace(self._jobs[-1], ref=job)
            self._keep(batch.number, self._jobs)
            return job
        self._watch.ask(self._connector.abort(job))
        raise _without_effect(failure)

    def _results(self, batch: Batch, job: JobRef) -> Sequence[RowResult]:
        try:
            job = self._started(batch, job)
            self._watch.until_ended(job)
        except CancelledError:
            return self._last_results(batch, job)
        return self._collected(self._watch, batch, job)

    def _collected(self, watch: JobWatch, batch: Batch, job: JobRef) -> Sequence[RowResult]:
        try:
            return watch.ask(self._connector.collect(batch, job))
        except DestinationError as error:
            self._applying = error.code not in OF_WHOLE_JOB
            raise

    def _last_results(self, batch: Batch, job: JobRef) -> Sequence[RowResult]:
        """The run ends: a client of its own may still send what ends the job."""
        transport = self._transport.unstopped()
        try:
            watch = JobWatch(self._connector, transport, Event())
            watch.cut_short(job)
            return self._collected(watch, batch, job)
        finally:
            transport.close()


def _without_effect(error: DestinationError) -> DestinationError:
    """The same error of a job that cannot have applied anything."""
    code = ErrorCode.DESTINATION_UNAVAILABLE if error.code in _ABOUT_EFFECT else error.code
    return DestinationError(error.message, code=code, vendor_code=error.vendor_code, hint=error.hint)


_ABOUT_EFFECT = (ErrorCode.TIMEOUT, ErrorCode.UNKNOWN_OUTCOME)


def _of_started(error: DestinationError) -> DestinationError:
    """The same error, where a job goes on at the vendor that nobody can ask about: nothing of it is sent again."""
    action = ACTIONS[error.code]
    if action is Action.ABORT:
        return error
    code = ErrorCode.DESTINATION_DOWN if action in (Action.RETRY, Action.SUSPECT) else ErrorCode.UNKNOWN_OUTCOME
    return DestinationError(error.message, code=code, vendor_code=error.vendor_code, ambiguous=True, hint=error.hint)


def _never_ended(job: JobRef) -> DestinationError:
    return DestinationError(
        f"job {job.id} did not end in time",
        code=ErrorCode.UNKNOWN_OUTCOME,
        ambiguous=True,
        hint="Look at the job in the destination's own interface.",
    )


def _pauses() -> Iterator[float]:
    pause = 0.1
    while True:
        yield pause
        pause = min(LONGEST_PAUSE, pause * 1.5)
