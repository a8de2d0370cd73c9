"""A service that does to requests what networks, outages and crashes do to them, as a script says."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dagster_retl.testing.fake_http import FakeHttpService, Rules
from dagster_retl.testing.server import Received, Reply

Fate = Literal[
    "ok", "lost", "applied", "late", "reset", "reset_applied", "slow", "html", "locked_out",
    "kill", "kill_applied", "kill_late", "pause",
]  # fmt: skip
"""What becomes of a request. `late`: it is applied when `land` says so, long after its client gave
up; `kill…`: its client dies; `pause`: its client stands still until `resume`, and so does the request."""

SLOW = 0.4
"""Seconds that a slow answer takes; its client must be less patient."""

_APPLIED = {"ok", "applied", "reset_applied", "slow", "html", "kill_applied"}
_AT_ONCE = {"Retry-After": "0"}
_ANSWERS: dict[str, Reply | None] = {
    "lost": Reply(503, headers=_AT_ONCE),
    "applied": Reply(503, headers=_AT_ONCE),
    "late": Reply(503, headers=_AT_ONCE),
    "html": Reply(200, b"<html>please log in</html>"),
    "locked_out": Reply(401),
}
"""What is answered; every other fate but `ok` and `slow` ends the connection."""


@dataclass(frozen=True)
class Sent:
    """One row of a request. content: its name; None: it is to be deleted."""

    key: int
    content: str | None


class Capricious(FakeHttpService):
    """See the module. `sent` gets each row of each request as it arrives.

    only: ignore requests whose header `X-World` is another: those of worlds that are no more.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.script: deque[Fate] = deque()
        self.sent: Callable[[Sent], None] = lambda row: None
        self.late: list[Received] = []
        self.wipe = False
        self.only: str | None = None
        self.paused = threading.Event()
        self._resume = threading.Event()
        self._client = 0
        self._client_known = threading.Event()

    def expect(self, script: Iterable[Fate], *, wipe: bool = False) -> None:
        """What happens to the requests of the client that comes next; those after them are answered well.

        wipe: right before its first request, all records are lost.
        """
        self.script = deque(script)
        self.wipe = wipe
        self.paused.clear()
        self._resume.clear()
        self._client_known.clear()

    def meet(self, pid: int) -> None:
        """The process that sends the requests."""
        self._client = pid
        self._client_known.set()

    def land(self) -> None:
        """Apply a request that nobody waits for any more."""
        self.handle(self.late.pop(0))

    def resume(self) -> None:
        self._resume.set()

    def handle(self, request: Received) -> Reply:
        """Only success is remembered under an idempotency key, so that a mended row may be sent under its own again."""
        key = request.headers.get("idempotency-key", "")
        known = key in self._answers
        reply = super().handle(request)
        if reply.status >= 400 and not known:
            self._answers.pop(key, None)
        return reply

    def answer(self, request: Received) -> tuple[Reply | None, bool]:
        if self.only is not None and request.headers.get("x-world") != self.only:
            return None, True
        self.requests.append(request)
        if self.wipe:
            self._lose_everything()
        for row in rows_of(request):
            self.sent(row)
        fate = self._next_fate()
        if fate == "pause":
            return self._pause(request), True
        reply = self.handle(request) if fate in _APPLIED else None
        if fate.endswith("late"):
            self.late.append(request)
        if fate.startswith("kill"):
            os.kill(self._known_client(), signal.SIGKILL)
        if fate == "slow":
            self._closing.wait(SLOW)
        return (reply if fate in ("ok", "slow") else _ANSWERS.get(fate)), True

    def _lose_everything(self) -> None:
        self.wipe = False
        self.records.clear()
        self.late.clear()

    def _next_fate(self) -> Fate:
        with self._lock:
            return self.script.popleft() if self.script else "ok"

    def _pause(self, request: Received) -> Reply:
        client = self._known_client()
        os.kill(client, signal.SIGSTOP)
        self.paused.set()
        self._resume.wait(60)
        reply = self.handle(request)
        os.kill(client, signal.SIGCONT)
        # Nothing that would make the client halve its batch: a lease that really ran out would forbid that.
        return Reply(401) if reply.status == 400 else reply

    def _known_client(self) -> int:
        assert self._client_known.wait(10)
        return self._client


def rows_of(request: Received) -> list[Sent]:
    """What a request asks for."""
    if request.method == "DELETE":
        return [Sent(int(request.path.rpartition("/")[2]), None)]
    body: Any = json.loads(request.body)
    rows = body if isinstance(body, list) else [body]
    return [Sent(row["id"], row["name"]) for row in rows]
