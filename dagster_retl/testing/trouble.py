"""What can go wrong with a request, and which request it happens to: as a script says, or as a seed draws."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from dagster_retl.testing.messages import Received, Reply

Which = Callable[[Received], bool]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with a request; several things may. `faults` has the usual ones ready-made.

    status: answer this instead (the request is not applied unless `apply`). headers: added to the
    answer, such as `Retry-After`. delay: seconds before the answer, after applying; `math.inf`: no
    answer, until the client gives up. body: these bytes instead of the answer's own. reset: drop
    the connection, before or after applying. truncate: announce the whole body and send half of
    it. drip: seconds before each byte of the body. apply: whether the request is applied, where
    that does not follow from the rest. late: it is applied only after so many later requests, or
    when the server is told to (`land`); `math.inf`: only then. rewrite: makes another answer of
    the service's own. before, after: called right before and right after the request is applied
    (or is not). name: what to call it.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    body: bytes | None = None
    reset: Literal["before", "after"] | None = None
    truncate: bool = False
    apply: bool | None = None
    drip: float = 0.0
    late: float | None = None
    rewrite: Callable[[Reply], Reply] | None = None
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    name: str = ""

    @property
    def applies(self) -> bool:
        """Whether the server does at once what the request asks, whatever it then answers."""
        if self.apply is not None:
            return self.apply
        return self.status is None and self.reset != "before" and self.late is None

    def change(self, reply: Reply) -> Reply:
        """What is answered instead of the service's own answer."""
        if self.rewrite:
            reply = self.rewrite(reply)
        status = reply.status if self.status is None else self.status
        # An answer that says something else than the request's own has none of its body either.
        body = reply.body if self.status is None else b""
        return Reply(status, body if self.body is None else self.body, {**reply.headers, **self.headers})


@dataclass(frozen=True, slots=True)
class Incident:
    """A request and the trouble that it ran into."""

    request: Received
    trouble: Trouble


@dataclass(slots=True)
class Late:
    """A request that is to be applied after so many more requests."""

    request: Received
    apply: Callable[[], object]
    waits_for: float


class Schedule:
    """Which request runs into which trouble: first what is scripted, then what is drawn."""

    def __init__(self) -> None:
        self._scripted: deque[tuple[Trouble, Which]] = deque()
        self._drawn: _Draw | None = None
        self._lock = threading.Lock()

    def script(self, trouble: Trouble, *, times: int = 1, where: Which = lambda request: True) -> None:
        """Let the next requests (those that `where` picks) run into trouble; later ones queue behind earlier ones."""
        with self._lock:
            self._scripted.extend([(trouble, where)] * times)

    def draw(self, seed: int | str, weights: Mapping[Callable[[], Trouble], float]) -> None:
        """Let requests that no script is about run into trouble at random.

        weights: makers of troubles, each with how often it is drawn, relative to the others. What
        a request runs into follows from the seed, its method, address and body, and how often it
        came before: the order in which threads send their requests makes no difference.
        """
        with self._lock:
            self._drawn = _Draw(seed, weights)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._scripted.clear()
            self._drawn = None

    def next(self, request: Received) -> Trouble | None:
        """The trouble of a request that arrives now."""
        if not self._scripted and self._drawn is None:
            return None
        with self._lock:
            for entry in self._scripted:
                if entry[1](request):
                    self._scripted.remove(entry)
                    return entry[0]
            return self._drawn.next(request) if self._drawn else None


class _Draw:
    """Troubles by chance, the same for the same seed and requests."""

    def __init__(self, seed: int | str, weights: Mapping[Callable[[], Trouble], float]) -> None:
        self._seed = seed
        self._weights = dict(weights)
        self._seen: Counter[str] = Counter()

    def next(self, request: Received) -> Trouble:
        body = hashlib.sha256(request.body).hexdigest()
        what = f"{request.method} {request.path}?{request.query} {body}"
        self._seen[what] += 1
        chance = Random(f"{self._seed} {self._seen[what]} {what}")  # noqa: S311 - chance, not a secret
        (make,) = chance.choices(list(self._weights), list(self._weights.values()))
        return make()
