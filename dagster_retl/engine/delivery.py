"""Delivery: workers that send batches side by side until all are answered, or the run has to end."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from dagster_retl.connectors.base import AnyConnector, Connector, DirectConnector
from dagster_retl.connectors.jobs import JobConnector
from dagster_retl.engine.answers import NOT_SENT
from dagster_retl.engine.breaker import Breaker, RefusalWatch
from dagster_retl.engine.budget import RateBudget
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.dispatch import Dispatch
from dagster_retl.engine.feed import NumberedBatch
from dagster_retl.engine.guards import override_note
from dagster_retl.engine.job_writer import JobWriter
from dagster_retl.engine.keeper import LeaseKeeper
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.recorder import Answered, Recorder
from dagster_retl.engine.transport import Traffic, Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.engine.writers import DirectWriter, HttpWriter, Writer
from dagster_retl.errors import CancelledError, RetlError
from dagster_retl.model.rows import Operation

JOIN_SECONDS = 45.0
"""How long an ending run waits for requests that are under way."""
MOST_SAID = 20
"""How many different remarks of the destination about accepted rows a run's result names."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the batches of a manifest go, and under which terms.

    ahead: batches may be marked as started a little before they are sent, because sending one again does no harm.
    jobs: the operations whose batches are jobs at the vendor.
    """

    connector: AnyConnector
    object_name: str
    key_fields: tuple[str, ...]
    manifest: str
    run_id: str = ""
    gone_is_failure: bool = False
    watch_refusals: bool = True
    stop_at_refusals: bool = True
    ahead: bool = False
    jobs: frozenset[Operation] = frozenset()


@dataclass(slots=True)
class Delivery:
    """One delivery. `run` returns when every batch is answered and recorded, or raises what ended it.

    What is marked ahead is marked for several batches at once, and a worker sends its next batch while the answer
    to its last one is being written down; it never has two of them unwritten.

    budget: of the account's rate; without one, nobody else is thought of. sent_unrecorded: batches that
    left and whose answers could not be written down; after a lost lease they are suspects.
    """

    target: Target
    recorder: Recorder
    keeper: LeaseKeeper
    stop: threading.Event
    budget: RateBudget | None = None
    on_progress: Callable[[Delivery], None] = lambda delivery: None
    traffic: Traffic = field(default_factory=Traffic)
    _notes: list[str] = field(default_factory=list)
    _said: Counter[str] = field(default_factory=Counter)
    _failure: BaseException | None = None
    _marked: dict[int, NumberedBatch] = field(default_factory=dict)
    _unrecorded: dict[int, NumberedBatch] = field(default_factory=dict)
    _halt: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        connector = self.target.connector
        self._pacer = Pacer(connector.rate_limit, connector.burst, self.budget)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know of how it went."""
        waited = self.traffic.waited
        pause = [f"waited {waited:,.0f} s for the destination's rate limit"] if waited >= 1 else []
        said = [
            f"{rows:,} {'row' if rows == 1 else 'rows'}: {what}" for what, rows in self._said.most_common(MOST_SAID)
        ]
        return (*self._notes, *pause, *said)

    @property
    def sent_unrecorded(self) -> Sequence[NumberedBatch]:
        return list(self._unrecorded.values())

    def run(self, batches: Iterable[NumberedBatch], workers: int) -> None:
        """Send all batches. Raises the error that ended the run early, `CancelledError` among them."""
        connector = self.target.connector
        breaker = Breaker(connector.batch_rows)
        watch = RefusalWatch(enabled=self.target.watch_refusals, stops=self.target.stop_at_refusals)
        waiting: queue.Queue[NumberedBatch | None] = queue.Queue(maxsize=workers)
        writer = self._writers(workers)
        threads = [
            threading.Thread(
                target=self._work, args=(waiting, writer, breaker, watch), name=f"retl-worker-{n}", daemon=True
            )
            for n in range(workers)
        ]
        feeder = threading.Thread(target=self._feed, args=(batches, waiting, workers), name="retl-feeder", daemon=True)
        for thread in [feeder, *threads]:
            thread.start()
        try:
            self._wait([feeder, *threads])
        finally:
            self._give_back()
            self._notes = [override_note(watch.overridden)] if watch.overridden else []
            self.traffic.waited = self._pacer.paused

    def _writers(self, workers: int) -> Callable[[], Writer]:
        """What makes a worker's writer. All of them take turns."""
        connector = self.target.connector
        turns = Turns(self._pacer, self._halt, Gate(workers), self._before_send)
        if isinstance(connector, Connector):
            auth = connector.auth()
            return lambda: self._http_writer(connector, Transport(connector, auth=auth, turns=turns))
        if isinstance(connector, DirectConnector):
            return lambda: DirectWriter(connector, turns)
        raise TypeError(f"{type(connector).__name__} is neither a Connector nor a DirectConnector")

    def _http_writer(self, connector: Connector, transport: Transport) -> Writer:
        if not self.target.jobs or not isinstance(connector, JobConnector):
            return HttpWriter(connector, transport)
        return JobWriter(connector, transport, self.target.jobs, self.recorder.jobs)

    def _wait(self, threads: Sequence[threading.Thread]) -> None:
        try:
            while any(thread.is_alive() for thread in threads):
                next(thread for thread in threads if thread.is_alive()).join(timeout=0.5)
                if self.stop.is_set():
                    self._end(CancelledError("the run was stopped", hint="The next run sends what this one did not."))
                self.on_progress(self)
        except BaseException:
            self._halt.set()
            _join(threads)
            raise
        if self._failure is not None:
            raise self._failure

    def _end(self, error: BaseException) -> None:
        """Let no further batch leave; the first error is the run's."""
        with self._lock:
            if self._failure is None:
                self._failure = error
        self._halt.set()

    def _before_send(self) -> None:
        self.keeper.check(margin=float(self.target.connector.config.timeout))

    def _feed(self, batches: Iterable[NumberedBatch], waiting: queue.Queue[NumberedBatch | None], workers: int) -> None:
        try:
            for group in _groups(batches, workers):
                if self.target.ahead:
                    self._mark(group)
                if not all(self._offer(waiting, batch) for batch in group):
                    return
        except BaseException as error:  # noqa: BLE001 - any dead thread ends the run
            self._end(error)
            return
        for _ in range(workers):
            if not self._offer(waiting, None):
                return

    def _offer(self, waiting: queue.Queue[NumberedBatch | None], batch: NumberedBatch | None) -> bool:
        while not self._halt.is_set():
            try:
                waiting.put(batch, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _take(self, waiting: queue.Queue[NumberedBatch | None]) -> NumberedBatch | None:
        """The next batch; None at the end."""
        while not self._halt.is_set():
            try:
                return waiting.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def _work(
        self,
        waiting: queue.Queue[NumberedBatch | None],
        new_writer: Callable[[], Writer],
        breaker: Breaker,
        watch: RefusalWatch,
    ) -> None:
        try:
            writer = new_writer()
            try:
                self._send_all(waiting, writer, breaker, watch)
            finally:
                writer.close()
                self._add(writer.traffic)
        except BaseException as error:  # noqa: BLE001 - any dead thread ends the run
            self._end(error)

    def _send_all(
        self, waiting: queue.Queue[NumberedBatch | None], writer: Writer, breaker: Breaker, watch: RefusalWatch
    ) -> None:
        written: Future[None] | None = None
        while (batch := self._take(waiting)) is not None:
            self._begin(batch)
            answered = self._send(batch, writer, breaker, watch)
            if written is not None:
                written.result()
            written = self.recorder.answer(answered)
            written.add_done_callback(partial(self._recorded, batch))
            if not self.target.ahead:
                written.result()
        if written is not None:
            written.result()

    def _mark(self, group: Sequence[NumberedBatch]) -> None:
        self._marked.update((batch.number, batch) for batch in group)
        self.recorder.start([batch.number for batch in group]).result()

    def _begin(self, batch: NumberedBatch) -> None:
        """From here on the batch may leave; its intent is durable."""
        self._unrecorded[batch.number] = batch
        if self.target.ahead:
            self._marked.pop(batch.number)
        else:
            self.recorder.start([batch.number], as_jobs=batch.operation in self.target.jobs).result()

    def _recorded(self, batch: NumberedBatch, written: Future[None]) -> None:
        if written.exception() is None:
            self._unrecorded.pop(batch.number)

    def _give_back(self) -> None:
        """Write down that what was marked ahead, when the end came early, was never sent."""
        unsent, self._marked = list(self._marked.values()), {}
        for written in [self.recorder.answer(Answered(batch, [NOT_SENT] * len(batch.rows))) for batch in unsent]:
            written.result()

    def _send(self, batch: NumberedBatch, writer: Writer, breaker: Breaker, watch: RefusalWatch) -> Answered:
        target = self.target
        dispatch = Dispatch(
            batch.to_send(target.object_name, target.key_fields, target.manifest, target.run_id),
            writer,
            target.connector,
            breaker,
            self._halt,
            pause=self._pacer.pause,
            gone_is_failure=target.gone_is_failure,
        )
        answers = dispatch.send()
        if dispatch.warnings:
            with self._lock:
                self._said.update(dispatch.warnings)
        if dispatch.abort is not None:
            self._end(dispatch.abort)
        try:
            watch.saw(answers)
        except RetlError as error:
            self._end(error)
        return Answered(batch, answers)

    def _add(self, traffic: Traffic) -> None:
        with self._lock:
            self.traffic.requests += traffic.requests
            self.traffic.retries += traffic.retries
            self.traffic.bytes_sent += traffic.bytes_sent


def _groups(batches: Iterable[NumberedBatch], size: int) -> Iterator[list[NumberedBatch]]:
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _join(threads: Sequence[threading.Thread]) -> None:
    """Wait for what is under way, but not for ever."""
    until = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        thread.join(timeout=max(0.0, until - time.monotonic()))
