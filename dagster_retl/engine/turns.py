"""A worker's turn to send: room among the requests in flight, the right moment, and leave of the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dagster_retl.engine.concurrency import Gate, Permit
from dagster_retl.engine.pacing import Pacer
from dagster_retl.errors import CancelledError


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to send one request now. number: as the pacer counts requests."""

    number: int
    permit: Permit


@dataclass(frozen=True, slots=True)
class Turns:
    """What decides when a request may leave; shared by all workers of a delivery, or made for one client.

    stop: set when the run ends. before_send: called before each request, and while it waits for its
    turn; raises to stop (a lost lease).
    """

    pacer: Pacer
    stop: threading.Event
    gate: Gate
    before_send: Callable[[], None] = lambda: None

    def unstopped(self) -> Turns:
        """The same for one client that goes on although the run ends."""
        return replace(self, stop=threading.Event(), gate=Gate(1))

    @contextmanager
    def taken(self) -> Iterator[Turn]:
        """Wait for a turn; what happens inside is one request in flight. Raises `CancelledError` once `stop` is set."""
        with self.gate.passing(self.stop) as permit:
            number = self.pacer.wait(self.stop, self.before_send)
            if not number:
                raise CancelledError("the run was stopped while a request waited for its turn")
            try:
                self.before_send()
                yield Turn(number, permit)
            finally:
                self.pacer.done(number)
