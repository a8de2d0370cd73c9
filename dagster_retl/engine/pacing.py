"""When the next request may leave: a rate with a burst, and pauses that the destination asks for."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MARGIN = 1.015
"""How much longer than 1 / rate we wait: what leaves on time arrives a little early or late."""


def retry_after(header: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds to wait, from a `Retry-After` of seconds or of a date; None where it says nothing.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


class Pacer:
    """Hands out moments to send at; shared by all threads that use one account.

    rate: requests a second, None for no limit. burst: how many may leave at once after a pause.
    """

    def __init__(self, rate: float | None, burst: int = 1) -> None:
        self._interval = MARGIN / rate if rate else 0.0
        self._allowance = self._interval * (max(burst, 1) - 1)
        self._next = 0.0
        self._paused_until = 0.0
        self._lock = threading.Lock()

    def pause(self, seconds: float) -> None:
        """Nobody sends for this long: the destination said so."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def wait(self, stop: threading.Event) -> None:
        """Sleep until a request may leave, or until `stop` is set."""
        delay = self._reserve()
        while delay > 0 and not stop.wait(delay):
            delay = self._paused_for()

    def _reserve(self) -> float:
        with self._lock:
            now = time.monotonic()
            slot = max(self._next, now - self._allowance)
            self._next = slot + self._interval
            return max(slot, self._paused_until) - now

    def _paused_for(self) -> float:
        with self._lock:
            return self._paused_until - time.monotonic()
