"""A fault server that also kills and pauses its clients, as a script says."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from nursery import stir, stop

from dagster_retl.testing import FaultServer, Received, Reply, Rules, Trouble, faults

Fate = Literal[
    "ok", "lost", "applied", "late", "reset", "reset_applied", "slow", "html", "locked_out",
    "kill", "kill_applied", "kill_late", "pause",
]  # fmt: skip
"""What becomes of a request. `late`: it is applied when `land` says so, long after its client gave
up; `kill…`: its client dies; `pause`: its client stands still until `resume`, and so does the request."""

SLOW = 0.4
"""Seconds that a slow answer takes; its client must be less patient."""

_FAULTS = {
    "ok": faults.ok(),
    "lost": faults.unavailable(),
    "applied": faults.unavailable(applied=True),
    "late": faults.late_unavailable(),
    "reset": faults.reset(),
    "reset_applied": faults.reset(applied=True),
    "slow": faults.latency(SLOW),
    "html": faults.html(None, applied=True),
    "locked_out": faults.expired_token(),
}


@dataclass(frozen=True)
class Sent:
    """One row of a request. content: its name; None: it is to be deleted."""

    key: int
    content: str | None


class Capricious(FaultServer):
    """See the module. `sent` gets each row of each request as it arrives.

    only: ignore requests whose header `X-World` is another: those of worlds that are no more.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.sent: Callable[[Sent], None] = lambda row: None
        self.wipe = False
        self.only: str | None = None
        self.paused = threading.Event()
        self.arrived = threading.Event()
        self._resume = threading.Event()
        self._client = 0
        self._client_known = threading.Event()
        self._fates = {
            **_FAULTS,
            "kill": Trouble(reset="before", after=self._kill),
            "kill_applied": Trouble(reset="after", after=self._kill),
            "kill_late": Trouble(reset="before", late=math.inf, after=self._kill),
            "pause": Trouble(before=self._pause, after=self._let_go_on, rewrite=_not_a_refusal),
        }

    def expect(self, script: Iterable[Fate], *, wipe: bool = False) -> None:
        """What happens to the requests of the client that comes next; those after them are answered well.

        wipe: right before its first request, all records are lost.
        """
        self.calm()
        self.script(*(replace(self._fates[fate], name=fate) for fate in script))
        self.wipe = wipe
        self.paused.clear()
        self.arrived.clear()
        self._resume.clear()
        self._client_known.clear()

    def meet(self, pid: int) -> None:
        """The process that sends the requests."""
        self._client = pid
        self._client_known.set()

    def stir(self) -> None:
        """Let the client that stands still go on for a moment."""
        stir(self._client)

    def resume(self) -> None:
        """Let the request and its client go on that stand still; `arrived` is set when the request is applied."""
        self._resume.set()

    def answer(self, request: Received) -> tuple[Reply | None, Trouble | None]:
        if self.only is not None and request.headers.get("x-world") != self.only:
            return None, None
        if self.wipe:
            self._lose_everything()
        for row in rows_of(request):
            self.sent(row)
        return super().answer(request)

    def _lose_everything(self) -> None:
        self.wipe = False
        self.records.clear()
        self.late.clear()

    def _kill(self) -> None:
        os.kill(self._known_client(), signal.SIGKILL)

    def _pause(self) -> None:
        stop(self._known_client())
        self.paused.set()
        self._resume.wait(120)

    def _let_go_on(self) -> None:
        self.arrived.set()
        with contextlib.suppress(ProcessLookupError):  # it may have been killed while it stood still
            os.kill(self._client, signal.SIGCONT)

    def _known_client(self) -> int:
        assert self._client_known.wait(10)
        return self._client


def _not_a_refusal(reply: Reply) -> Reply:
    """Nothing that would make the client halve its batch: a lease that really ran out would forbid that."""
    return Reply(401) if reply.status == 400 else reply


def rows_of(request: Received) -> list[Sent]:
    """What a request asks for."""
    if request.method == "DELETE":
        return [Sent(int(request.path.rpartition("/")[2]), None)]
    body: Any = json.loads(request.body)
    rows = body if isinstance(body, list) else [body]
    return [Sent(row["id"], row["name"]) for row in rows]
