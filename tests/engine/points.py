"""The named points of a run, at which tests kill it or let it stand still.

    deliver recorder commit 2
    │       │        │      └ how often that happened in this phase and thread
    │       │        └ what is about to happen
    │       └ the thread
    └ the phase of the run (`start` before its first)

What can happen: `enter`, a phase begins; `begin` and `commit`, the store's transaction is about to;
`committed`, it was; and what Python does with the files of the state: `mkdir`, `open` (to flush or
read it), `rename`, `remove`, `listdir`.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from dagster_retl.engine.phase import Phase

_FILE_EVENTS = {
    "open": "open",
    "os.mkdir": "mkdir",
    "os.rename": "rename",
    "os.remove": "remove",
    "os.listdir": "listdir",
}


class Points:
    """Calls `reached` with the name of each point, in the thread that got there. One per process: hooks stay.

    alone: only while no other thread is inside a transaction, which would be paused as well.
    """

    def __init__(self, reached: Callable[[str], None], *, alone: bool = False) -> None:
        self._reached = reached
        self._turn = threading.RLock() if alone else None
        self._phase = "start"
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._mine = threading.local()

    def enter(self, phase: Phase, _: object = None) -> None:
        """For `Service.run(on_phase=…)`."""
        self._phase = phase.value
        self._reach("enter")

    def watch(self, engine: Engine, state: Path) -> None:
        """Tell of the transactions of a store and the files of a state as well."""
        event.listen(engine, "checkout", self._is_taken)
        event.listen(engine, "commit", self._commits)
        event.listen(engine, "checkin", self._is_back)
        sys.addaudithook(lambda name, arguments: self._file(name, arguments, str(state)))

    def _is_taken(self, *_: object) -> None:
        """A connection leaves its pool, before the begin of its transaction."""
        if self._turn is not None:
            self._turn.acquire()
            self._mine.open = getattr(self._mine, "open", 0) + 1
        self._reach("begin")

    def _commits(self, _: object) -> None:
        self._mine.commits = True
        self._reach("commit")

    def _is_back(self, *_: object) -> None:
        """A connection goes back to its pool, after the end of its transaction."""
        if getattr(self._mine, "commits", None):
            self._mine.commits = False
            self._reach("committed")
        if self._turn is not None and getattr(self._mine, "open", None):
            self._mine.open -= 1
            self._turn.release()

    def _file(self, name: str, arguments: tuple[Any, ...], state: str) -> None:
        if name in _FILE_EVENTS and str(arguments[0]).startswith(state):
            self._reach(_FILE_EVENTS[name])

    def _reach(self, what: str) -> None:
        thread = threading.current_thread().name.removeprefix("retl-").replace("MainThread", "main")
        kind = f"{self._phase} {thread} {what}"
        with self._lock:
            self._counts[kind] += 1
            name = f"{kind} {self._counts[kind]}"
        with self._turn or nullcontext():
            self._reached(name)
