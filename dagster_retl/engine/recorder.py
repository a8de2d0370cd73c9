"""The ledger's one writer: a thread that puts many small facts into one durable transaction.

Intents and answers are handed over, and durable when their future says so: nothing is sent before its intent
is, and nothing counts before its answer is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta

import orjson
from sqlalchemy import Connection

from dagster_retl.changes.outcomes import Status
from dagster_retl.engine.answers import Answer, common, to_outcomes
from dagster_retl.engine.feed import NumberedBatch
from dagster_retl.engine.jobs import BatchJob, encode_jobs
from dagster_retl.engine.sealing import Sealer
from dagster_retl.errors import ACTIONS, Action
from dagster_retl.model.redactor import Redactor
from dagster_retl.store.clock import to_text
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.leases import Lease
from dagster_retl.store.store import Store

GROUP = 64
"""How many submissions share a transaction at most."""
GATHERING = 0.003
"""Seconds to wait for others to share a transaction, where nobody waits for it before sending the next batch."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch and what became of its rows."""

    batch: NumberedBatch
    answers: Sequence[Answer]


@dataclass(slots=True)
class Recorded:
    """Running totals of what is durable, for progress."""

    written: int = 0
    unconfirmed: int = 0
    failed: int = 0
    deleted: int = 0
    delete_failed: int = 0
    opened: int = 0
    resolved: int = 0

    def count(self, answered: Answered) -> None:
        counted = _counted(answered.answers)
        written = counted[Status.WRITTEN] + counted[Status.UNCONFIRMED]
        failed = counted[Status.FAILED] + counted[Status.GONE]
        if answered.batch.removal:
            self.deleted += written
            self.delete_failed += failed
            return
        self.written += written
        self.unconfirmed += counted[Status.UNCONFIRMED]
        self.failed += failed


def _counted(answers: Sequence[Answer]) -> Counter[Status]:
    shared = common(answers)
    return Counter({shared.status: len(answers)}) if shared else Counter(answer.status for answer in answers)


@dataclass(frozen=True, slots=True)
class _Submission:
    answered: Answered | None = None
    starting: Sequence[int] = ()
    as_jobs: bool = False
    jobs: tuple[int, Sequence[BatchJob]] | None = None
    done: Future[None] = field(default_factory=Future)


class Recorder:
    """Writes intents, answers and dead letters, fenced by the run's lease."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        *,
        epoch: str,
        settle: float,
        redact: Redactor,
        sealer: Sealer | None = None,
        gathering: float = 0.0,
        partition: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """sealer: encrypts the documents of refused rows, which are kept then.

        gathering: seconds to wait for others to share a transaction. run_id: whose ledger it is; that of the
        lease's run, unless it is a dead run's. partition: that its rows are of.
        """
        self._store = store
        self._lease = lease
        self._run_id = run_id or lease.run_id
        self._epoch = epoch
        self._settle = timedelta(seconds=settle)
        self._redact = redact
        self._sealer = sealer
        self._gathering = gathering
        self._partition = partition
        self._queue: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="retl-recorder", daemon=True)
        self.totals = Recorded()
        self._thread.start()

    def start(self, numbers: Sequence[int], *, as_jobs: bool = False) -> Future[None]:
        """Mark batches as started. The future raises `LeaseLostError`, or what the store raises.

        as_jobs: nothing of them is applied before their jobs are on record too.
        """
        return self._submit(_Submission(starting=numbers, as_jobs=as_jobs))

    def answer(self, answered: Answered) -> Future[None]:
        """Write down what became of a started batch. The future raises as `start`'s."""
        return self._submit(_Submission(answered))

    def jobs(self, number: int, jobs: Sequence[BatchJob]) -> None:
        """Keep the jobs of a started batch; they are durable when this returns. Raises as the futures do."""
        self._submit(_Submission(jobs=(number, jobs))).result()

    def _submit(self, submission: _Submission) -> Future[None]:
        if self._failure is not None:
            raise self._failure
        self._queue.put(submission)
        return submission.done

    def close(self, timeout: float = 60.0) -> None:
        """Write what is left and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            group, last = self._group(first)
            try:
                self._write(group)
            except BaseException as error:  # noqa: BLE001 - handed to the workers, who raise it
                self._fail(group, error)
            else:
                self._succeed(group)
            if last:
                return

    def _group(self, first: _Submission) -> tuple[list[_Submission], bool]:
        group = [first]
        until = time.monotonic() + self._gathering
        while len(group) < GROUP:
            try:
                submission = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if submission is None:
                return group, True
            group.append(submission)
        return group, False

    def _write(self, group: Sequence[_Submission]) -> None:
        if self._failure is not None:
            raise self._failure
        answered = [submission.answered for submission in group if submission.answered is not None]
        outcomes = {each.batch.number: to_outcomes(each.answers).encode() for each in answered}
        jobs = [submission.jobs for submission in group if submission.jobs is not None]
        with self._store.fenced(self._lease) as connection:
            self._store.ledger.record(connection, self._run_id, outcomes)
            for number, refs in jobs:
                self._store.ledger.keep_jobs(connection, self._run_id, number, encode_jobs(refs))
            for each in answered:
                self._write_letters(connection, each)
            self._start(connection, [each for each in group if not each.as_jobs], None)
            self._start(connection, [each for each in group if each.as_jobs], encode_jobs([]))

    def _start(self, connection: Connection, group: Sequence[_Submission], jobs: str | None) -> None:
        numbers = [number for submission in group for number in submission.starting]
        self._store.ledger.start(connection, self._run_id, self._lease.sync_id, numbers, jobs=jobs)

    def _write_letters(self, connection: Connection, answered: Answered) -> None:
        rows, lease, letters = answered.batch.rows, self._lease, self._store.dead_letters
        run_id = self._run_id
        if common(answered.answers) is None:
            failures = self._failures(answered)
            self.totals.opened += letters.fail(connection, lease.sync_id, self._epoch, run_id, failures)
        for resolution, statuses in _RESOLUTIONS.items():
            keys = [rows[place].key for place in rows.with_letter if answered.answers[place].status in statuses]
            if keys:
                self.totals.resolved += letters.resolve_keys(
                    connection, lease.sync_id, self._epoch, keys, resolution, run_id
                )

    def _failures(self, answered: Answered) -> list[Failure]:
        held_until = to_text(self._store.now() + self._settle)
        return [
            Failure(
                key=row.key,
                record_keys=row.record_keys,
                code=answer.fault.code,
                vendor_code=answer.fault.vendor_code,
                message=self._redact(answer.fault.message),
                operation=answered.batch.operation,
                fingerprint=row.content,
                rejection=ACTIONS[answer.fault.code] in (Action.REJECT, Action.SPLIT),
                held=answer.held,
                held_until=held_until if answer.held else None,
                payload=self._sealer.seal(orjson.dumps(row.json)) if self._sealer else None,
                partition=self._partition,
            )
            for row, answer in zip(answered.batch.rows, answered.answers, strict=True)
            if answer.fault is not None and answer.status in (Status.FAILED, Status.GONE)
        ]

    def _succeed(self, group: Sequence[_Submission]) -> None:
        for submission in group:
            if submission.answered is not None:
                self.totals.count(submission.answered)
            submission.done.set_result(None)

    def _fail(self, group: Sequence[_Submission], error: BaseException) -> None:
        self._failure = error
        for submission in group:
            submission.done.set_exception(error)


_RESOLUTIONS = {
    "delivered": (Status.WRITTEN, Status.UNCONFIRMED),
    "record_missing": (Status.MISSING,),
}
