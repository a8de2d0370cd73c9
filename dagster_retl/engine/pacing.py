"""When the next request may leave: a rate with a burst, what answers say is left, and pauses that they ask for."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from dagster_retl.connectors.limits import LimitState
from dagster_retl.engine.budget import OwnBudget, RateBudget
from dagster_retl.store.budgets import claim

MARGIN = 1.015
"""How much longer than 1 / rate we wait: what leaves on time arrives a little early or late."""
LONGEST_WAIT = 60.0
"""Seconds after which a limit is tried again, whatever it said of its end."""

_AHEAD = 0.05
"""Seconds of the budget that one process takes at a time: they are lost to the others if it does not use them."""
_MOST_TOKENS = 20
_STORE_TIMES = 4
"""A store that is slow to answer is asked for so many times what is used meanwhile."""
_SLEEPS_WELL = 0.02
"""Seconds: sleeping that long again costs less than the refusal that it prevents."""
_LOOK_EVERY = 1.0
"""Seconds between looks at what other processes have been told."""
_GLANCE = 1.0
"""Seconds between looks at whether the run may go on, while it waits."""
_LONGEST_WINDOW = 60.0
"""Seconds: a longer window (a day's quota) says how much there is, not how fast it may be used."""


class Pacer:
    """Lets requests leave at the right moments; shared by all threads of a delivery.

    rate: requests a second, None for no limit. burst: how many may leave at once after a pause. budget:
    of the account; without one, nobody else is thought of.
    """

    def __init__(self, rate: float | None, burst: int = 1, budget: RateBudget | None = None) -> None:
        self._rate = rate
        self._burst = max(burst, 1)
        self._budget = budget or OwnBudget()
        self._lock = threading.Lock()
        self._moments: deque[float] = deque()
        self._interval = 0.0
        self._line = 0.0
        self._chunk = 1
        self._given_at = -math.inf
        self._took = 0.0
        self._learnt: float | None = None
        self._looked_at = -_LOOK_EVERY
        self._paused_until = 0.0
        self._told_until = 0.0
        self._paused = 0.0
        self._sent = 0
        self._flying: set[int] = set()
        self._left = 0
        self._left_until = 0.0

    @property
    def paused(self) -> float:
        """Seconds for which the destination let everybody wait so far."""
        return self._paused - max(0.0, self._paused_until - time.monotonic())

    def wait(self, stop: threading.Event, check: Callable[[], None] = lambda: None) -> int:
        """Sleep until a request may leave, or until `stop` is set. Returns the request's number.

        check: called now and then while it sleeps; raises what ends the wait.
        """
        moment, mine = self._next()
        while not stop.is_set():
            delay = moment - time.monotonic()
            if delay > 0:
                stop.wait(min(delay, _GLANCE))
                check()
            elif not mine:
                moment, mine = self._next()
            else:
                number, moment, mine = self._leave()
                if number:
                    return number
        return 0

    def pause(self, seconds: float) -> None:
        """Nobody sends for this long, in any process: the destination said so."""
        with self._lock:
            until = time.monotonic() + seconds
            self._stand_still(until)
            tell = until > self._told_until + 0.1  # many workers are told the same at once
            if tell:
                self._told_until = until
        if tell and seconds > 0:
            self._budget.pause(seconds)

    def done(self, number: int) -> None:
        """Request `number` is not on its way any more."""
        with self._lock:
            self._flying.discard(number)

    def heard(self, number: int, state: LimitState, *, throttled: bool = False) -> None:
        """What the answer to request `number` said of a limit."""
        reset = min(state.reset or 0.0, LONGEST_WAIT)
        if state.remaining is not None and reset:
            with self._lock:
                self._left = state.remaining - self._uncounted(number)
                self._left_until = time.monotonic() + reset
            if state.remaining == 0:
                self.pause(reset)
        rate = state.rate
        if rate and (state.window or 0.0) <= _LONGEST_WINDOW and (throttled or self._learnt):
            self._learn(rate)

    def _uncounted(self, number: int) -> int:
        """How many requests the destination may not have counted when it answered that one."""
        return self._sent - number + sum(other < number for other in self._flying)

    def _learn(self, rate: float) -> None:
        with self._lock:
            known, self._learnt = self._learnt, rate
        if known != rate:
            self._budget.learn(rate)

    def _stand_still(self, until: float) -> None:
        since = max(time.monotonic(), self._paused_until)
        if until > since:
            self._paused += until - since
            self._paused_until = until
            self._moments.clear()

    def _next(self) -> tuple[float, bool]:
        """When to look again, and whether a request may leave then."""
        with self._lock:
            now = time.monotonic()
            if now >= self._looked_at + _LOOK_EVERY:
                self._look(now)
            held_until = self._held_until(now)
            if held_until > now:
                return held_until, False
            if self._rate is None and self._learnt is None:
                return now, True
            return self._moment(now), True

    def _look(self, now: float) -> None:
        self._looked_at = now
        budget = self._budget.look()
        self._learnt = budget.rate
        self._stand_still(time.monotonic() + budget.pause)

    def _held_until(self, now: float) -> float:
        if self._left <= 0 and now < self._left_until:
            return max(self._paused_until, min(self._left_until, now + 0.05))
        return self._paused_until

    def _leave(self) -> tuple[int, float, bool]:
        """The number of a request that leaves now; 0 if it must not after all: when to try, and whether it may then.

        Whoever was late would come too close before the next one, who is not: so that one waits a little.
        """
        with self._lock:
            now = time.monotonic()
            if self._held_until(now) > now:
                return 0, now, False
            if self._interval >= _SLEEPS_WELL:
                first, line = claim(self._line, now=now, tokens=1, interval=self._interval / MARGIN, burst=self._burst)
                if first > now:
                    return 0, first, True
                self._line = line
            self._sent += 1
            self._left -= 1
            self._flying.add(self._sent)
            return self._sent, now, True

    def _moment(self, now: float) -> float:
        """The next moment of the budget. Those that nobody used in time are lost."""
        stale = now - (self._burst - 1) * self._interval
        while self._moments and self._moments[0] < stale:
            self._moments.popleft()
            self._chunk = 1
        if not self._moments and not self._reserve():
            return now
        return self._moments.popleft()

    def _reserve(self) -> bool:
        """Take moments for as many requests as are likely to use them: more, if the last were gone too soon."""
        asked = time.monotonic()
        if asked - self._given_at < self._chunk * self._interval:
            ahead = max(min(_AHEAD, _MOST_TOKENS * self._interval), _STORE_TIMES * self._took)
            self._chunk = min(2 * self._chunk, max(1, int(ahead / self._interval)))
        given = self._budget.reserve(self._chunk, rate=self._rate, burst=self._burst, margin=MARGIN)
        self._given_at = time.monotonic()
        self._took = min(self._given_at - asked, _LOOK_EVERY)
        if given is None:
            return False
        self._interval = given.interval
        self._moments.extend(given.first + n * given.interval for n in range(self._chunk))
        return True
