"""How many requests may be in flight: fewer once the destination asks for fewer, and slowly more again.

Additive increase, multiplicative decrease, as TCP does it: https://www.rfc-editor.org/rfc/rfc5681#section-3.1
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Window:
    """The number of requests that may be in flight, from what became of earlier ones. A pure state.

    most: what it starts with and grows back to. cut_at: requests up to this number left before the last
    cut, so that they say nothing of it. answered: how many were answered well since the window last grew.
    """

    most: int
    size: int
    cut_at: int = 0
    answered: int = 0

    def well(self, number: int) -> Window:
        """Request `number` was answered. A whole window of such answers makes room for one more."""
        if self.size == self.most or number <= self.cut_at:
            return self
        if self.answered + 1 < self.size:
            return replace(self, answered=self.answered + 1)
        return replace(self, size=self.size + 1, answered=0)

    def throttled(self, number: int, latest: int) -> Window:
        """Request `number` was one too many; `latest` is the last that left. Halves, once a round trip."""
        if number <= self.cut_at:
            return self
        return replace(self, size=max(1, self.size // 2), cut_at=latest, answered=0)


class Permit:
    """Leave to have one request in flight. well: what its answer says of the window; None: nothing."""

    __slots__ = ("number", "well")

    def __init__(self, number: int) -> None:
        self.number = number
        self.well: bool | None = None


class Gate:
    """Lets requests pass while fewer than the window's size are in flight; shared by all workers of a delivery."""

    def __init__(self, most: int) -> None:
        self._window = Window(most, most)
        self._flying = 0
        self._latest = 0
        self._room = threading.Condition(threading.Lock())

    @property
    def size(self) -> int:
        """How many may be in flight now."""
        return self._window.size

    @contextmanager
    def passing(self, stop: threading.Event) -> Iterator[Permit]:
        """Wait for room, or for `stop`; what happens inside is one request in flight."""
        permit = self._enter(stop)
        try:
            yield permit
        finally:
            self._leave(permit)

    def _enter(self, stop: threading.Event) -> Permit:
        with self._room:
            while self._flying >= self._window.size and not stop.is_set():
                self._room.wait(_GLANCE)
            self._flying += 1
            self._latest += 1
            return Permit(self._latest)

    def _leave(self, permit: Permit) -> None:
        with self._room:
            self._flying -= 1
            if permit.well:
                self._window = self._window.well(permit.number)
            elif permit.well is False:
                self._window = self._window.throttled(permit.number, self._latest)
            self._room.notify(max(0, self._window.size - self._flying))


_GLANCE = 0.2
"""Seconds between looks at whether the run has to stop."""
