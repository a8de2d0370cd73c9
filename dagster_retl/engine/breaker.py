"""When a destination is down rather than a batch bad, and when every row is refused for one reason."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from dagster_retl.changes.outcomes import Status
from dagster_retl.engine.answers import Answer
from dagster_retl.errors import DestinationError, ErrorCode, GuardTrippedError


class Breaker:
    """Tells a destination that is down from a batch that it cannot bear. Shared by all workers.

    It opens after `threshold` outages in a row without a single answer between them. Halving a batch
    of n rows down to the one that the destination cannot bear meets log2(n) outages in a row, so the
    threshold lies above that. And it opens at once when a batch got no answer at all while nobody
    else got one either.
    """

    def __init__(self, batch_rows: int) -> None:
        self._threshold = max(3, batch_rows.bit_length() + 2)
        self._in_a_row = 0
        self._answers = 0
        self._lock = threading.Lock()

    @property
    def answers(self) -> int:
        """How many answers there were so far."""
        return self._answers

    def answered(self) -> None:
        with self._lock:
            self._answers += 1
            self._in_a_row = 0

    def outage(self, error: DestinationError, *, silent_since: int | None) -> DestinationError | None:
        """Count an outage; the error to end the run with, once the breaker is open.

        silent_since: for a batch without any answer, what `answers` was when it was first sent.
        """
        with self._lock:
            self._in_a_row += 1
            opened = self._in_a_row >= self._threshold or silent_since == self._answers
        if not opened:
            return None
        return DestinationError(
            f"the destination is down: {error.message}",
            code=ErrorCode.DESTINATION_DOWN,
            vendor_code=error.vendor_code,
            ambiguous=error.ambiguous,
            hint="Nothing was lost: the next run sends what this one could not.",
        )


class RefusalWatch:
    """Stops a run whose first rows are all refused for one reason: that is a mistake, not bad rows.

    stops: false where somebody overrode the guard; then `overridden` says what it would have stopped.
    """

    def __init__(self, rows: int = 100, *, enabled: bool = True, stops: bool = True) -> None:
        self.overridden: GuardTrippedError | None = None
        self._stops = stops
        self._rows = rows
        self._reasons: Counter[tuple[str, str | None]] = Counter()
        self._watching = enabled
        self._lock = threading.Lock()

    def saw(self, answers: Sequence[Answer]) -> None:
        """Raises `GuardTrippedError` once enough rows were answered, all refused for the same reason."""
        with self._lock:
            if not self._watching:
                return
            self._count(answers)
            refused = sum(self._reasons.values())
            if not self._watching or refused < self._rows or len(self._reasons) > 1:
                return
            self._watching = False
            code, vendor_code = next(iter(self._reasons))
        message = next(answer.fault.message for answer in answers if answer.fault is not None)
        error = GuardTrippedError(
            f"the first {refused} rows were all refused with {vendor_code or code}: {message}",
            guard="failures",
            hint="Mend the mapping or the destination; `--override failures` sends the rest all the same.",
        )
        if self._stops:
            raise error
        self.overridden = error

    def _count(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer.status is Status.FAILED and answer.fault is not None:
                self._reasons[answer.fault.code, answer.fault.vendor_code] += 1
            elif answer.status is not Status.NOT_SENT:
                self._watching = False
