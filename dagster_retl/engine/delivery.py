"""Delivery: workers that send batches side by side until all are answered, or the run has to end."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dagster_retl.connectors.base import AnyConnector, Connector, DirectConnector
from dagster_retl.engine.breaker import Breaker, RefusalWatch
from dagster_retl.engine.budget import RateBudget
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.dispatch import DirectWriter, Dispatch, HttpWriter, Writer
from dagster_retl.engine.feed import NumberedBatch
from dagster_retl.engine.keeper import LeaseKeeper
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.recorder import Answered, Recorder
from dagster_retl.engine.transport import Traffic, Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.errors import CancelledError, RetlError

JOIN_SECONDS = 45.0
"""How long an ending run waits for requests that are under way."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the batches of a manifest go, and under which terms."""

    connector: AnyConnector
    object_name: str
    key_fields: tuple[str, ...]
    manifest: str
    gone_is_failure: bool = False
    watch_refusals: bool = True


@dataclass(slots=True)
class Delivery:
    """One delivery. `run` returns when every batch is answered and recorded, or raises what ended it.

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
    _failure: BaseException | None = None
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
        return (f"waited {waited:,.0f} s for the destination's rate limit",) if waited >= 1 else ()

    @property
    def sent_unrecorded(self) -> Sequence[NumberedBatch]:
        return list(self._unrecorded.values())

    def run(self, batches: Iterable[NumberedBatch], workers: int) -> None:
        """Send all batches. Raises the error that ended the run early, `CancelledError` among them."""
        connector = self.target.connector
        breaker = Breaker(connector.batch_rows)
        watch = RefusalWatch(enabled=self.target.watch_refusals)
        waiting: queue.Queue[NumberedBatch | None] = queue.Queue(maxsize=2 * workers)
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
            self.traffic.waited = self._pacer.paused

    def _writers(self, workers: int) -> Callable[[], Writer]:
        """What makes a worker's writer. All of them take turns."""
        connector = self.target.connector
        turns = Turns(self._pacer, self._halt, Gate(workers), self._before_send)
        if isinstance(connector, Connector):
            auth = connector.auth()
            return lambda: HttpWriter(connector, Transport(connector, auth=auth, turns=turns))
        if isinstance(connector, DirectConnector):
            return lambda: DirectWriter(connector, turns)
        raise TypeError(f"{type(connector).__name__} is neither a Connector nor a DirectConnector")

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
            for batch in batches:
                if not self._offer(waiting, batch):
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

    def _take(self, waiting: queue.Queue[NumberedBatch | None], *, block: bool) -> tuple[bool, NumberedBatch | None]:
        """(whether something was taken, the batch or the end)."""
        while not self._halt.is_set():
            try:
                return True, waiting.get(timeout=0.1) if block else waiting.get_nowait()
            except queue.Empty:
                if not block:
                    return False, None
        return True, None

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
        """Each answer is handed over with the intent to send the next batch, in one transaction."""
        answered: Answered | None = None
        while True:
            taken, batch = self._take(waiting, block=False)
            if not taken:
                self._record(answered, None)
                answered = None
                _, batch = self._take(waiting, block=True)
            if batch is None:
                self._record(answered, None)
                return
            self._record(answered, batch)
            answered = self._send(batch, writer, breaker, watch)

    def _record(self, answered: Answered | None, starting: NumberedBatch | None) -> None:
        if answered is None and starting is None:
            return
        if starting is not None:
            self._unrecorded[starting.number] = starting
        self.recorder.submit(answered, starting.number if starting is not None else None)
        if answered is not None:
            self._unrecorded.pop(answered.batch.number, None)

    def _send(self, batch: NumberedBatch, writer: Writer, breaker: Breaker, watch: RefusalWatch) -> Answered:
        target = self.target
        dispatch = Dispatch(
            batch.to_send(target.object_name, target.key_fields, target.manifest),
            writer,
            target.connector,
            breaker,
            self._halt,
            pause=self._pacer.pause,
            gone_is_failure=target.gone_is_failure,
        )
        answers = dispatch.send()
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


def _join(threads: Sequence[threading.Thread]) -> None:
    """Wait for what is under way, but not for ever."""
    until = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        thread.join(timeout=max(0.0, until - time.monotonic()))
