"""Where the moments to send at come from: the budget that all processes share, or one of one's own.

Moments here are `time.monotonic()` of this process; the store's are by the store's clock.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.model.rows import Account
from dagster_retl.store.budgets import Budget, Budgets, claim

_OFFSET_SECONDS = 60.0
"""How long the best estimate of how far two clocks lie apart is kept: they drift."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When requests may leave: the first at `first`, each next one `interval` seconds later."""

    first: float
    interval: float


class RateBudget(Protocol):
    """The budget of one account."""

    def reserve(self, tokens: int, *, rate: float | None, burst: int, margin: float) -> Moments | None:
        """Take the next moments; None where no rate is known.

        rate: requests a second; None: as learnt. margin: how much longer than 1 / rate they lie apart.
        """
        ...

    def pause(self, seconds: float) -> None:
        """Nobody sends for this long."""
        ...

    def learn(self, rate: float) -> None:
        """Remember the requests a second that the destination says it takes."""
        ...

    def look(self) -> Budget:
        """What is known of the account."""
        ...


def account_name(connector: AnyConnector, account: Account) -> str:
    """The account's name in the store: the same for every destination that reaches it."""
    return f"{connector.spec.name}:{connector.identity()}:{account.id}"


class SharedBudget:
    """The account's budget in the store."""

    def __init__(self, budgets: Budgets, account: str) -> None:
        self._budgets = budgets
        self._account = account
        self._offset = 0.0
        self._error = float("inf")
        self._estimated_at = 0.0

    def reserve(self, tokens: int, *, rate: float | None, burst: int, margin: float) -> Moments | None:
        asked = time.monotonic()
        reserved = self._budgets.reserve(self._account, tokens, rate=rate, burst=burst, margin=margin)
        if reserved is None:
            return None
        self._estimate(asked, time.monotonic(), reserved.now)
        return Moments(reserved.first + self._offset, reserved.interval)

    def pause(self, seconds: float) -> None:
        self._budgets.pause(self._account, seconds)

    def learn(self, rate: float) -> None:
        self._budgets.learn(self._account, rate)

    def look(self) -> Budget:
        return self._budgets.look(self._account)

    def _estimate(self, asked: float, answered: float, now: float) -> None:
        """The quickest answer tells best how far the clocks lie apart: it is off by half its time at most."""
        error = (answered - asked) / 2
        if error <= self._error or answered - self._estimated_at > _OFFSET_SECONDS:
            self._offset, self._error, self._estimated_at = (asked + answered) / 2 - now, error, answered


class OwnBudget:
    """A budget that nobody else knows of; safe to share between threads."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._paused_until = 0.0
        self._rate: float | None = None
        self._lock = threading.Lock()

    def reserve(self, tokens: int, *, rate: float | None, burst: int, margin: float) -> Moments | None:
        with self._lock:
            rates = [each for each in (rate, self._rate) if each]
            if not rates:
                return None
            interval = margin / min(rates)
            line = max(self._next_at, self._paused_until)
            first, self._next_at = claim(line, now=time.monotonic(), tokens=tokens, interval=interval, burst=burst)
        return Moments(first, interval)

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def learn(self, rate: float) -> None:
        self._rate = rate

    def look(self) -> Budget:
        return Budget(max(0.0, self._paused_until - time.monotonic()), self._rate)
