"""Counts of dead letters, which take long where there are a million: then they are good for a moment.

What took more than 50 ms to count is given again for ten times as long; `computed_at` says when it was counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from dagster_retl.model.runs import DeadLetterStats
from dagster_retl.service import Service

SLOW = 0.05
"""Seconds; what was counted faster is counted anew each time."""

_SHARE = 10  # a tenth of the time at most goes into counting
_MOST = 1_000  # different questions that are remembered

Question = tuple[str | None, datetime | None, frozenset[str] | None]
"""Of which sync, since when, among which syncs."""


class Statistics:
    """Counts, and remembers what took long. Safe for threads."""

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[Question, tuple[float, DeadLetterStats]] = {}

    def of(self, question: Question) -> DeadLetterStats:
        """The counts, as they are or were a moment ago."""
        kept = self._kept(question)
        if kept is not None:
            return kept
        began = self._clock()
        sync_id, since, among = question
        counted = self._service.store.dead_letters.stats(sync_id, since, among=among)
        took = self._clock() - began
        if took > SLOW:
            self._keep(question, counted, took)
        return counted

    def forget(self) -> None:
        """Somebody resolved entries here: count anew."""
        with self._lock:
            self._found.clear()

    def _kept(self, question: Question) -> DeadLetterStats | None:
        with self._lock:
            until, found = self._found.get(question, (0.0, None))
        return found if self._clock() < until else None

    def _keep(self, question: Question, counted: DeadLetterStats, took: float) -> None:
        with self._lock:
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[question] = (self._clock() + _SHARE * took, counted)
