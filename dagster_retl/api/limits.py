"""How often a key may ask: a bucket of tokens for each, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_FULL_AGAIN = 1_000
"""So many buckets are kept before those that are full are dropped."""


class RateLimiter:
    """rate: requests a second of each key. burst: how many may come at once after a pause. Safe for threads."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """0 when the request may come in, or else the seconds after which it may."""
        with self._lock:
            now = self._clock()
            tokens, at = self._buckets.get(key, (float(self._burst), now))
            tokens = min(float(self._burst), tokens + (now - at) * self._rate)
            waits = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
            self._buckets[key] = (tokens if waits else tokens - 1, now)
            self._forget_idle_ones(now)
            return waits

    def _forget_idle_ones(self, now: float) -> None:
        if len(self._buckets) > _FULL_AGAIN:
            full = self._burst / self._rate
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket[1] < full}
