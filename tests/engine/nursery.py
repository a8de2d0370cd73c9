"""Runs in processes of their own, which may be killed at any moment, for a few milliseconds each.

A nursery is a process that has imported everything and started nothing: it forks a child for each
run. (A fresh interpreter takes most of a second to get that far.)
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import itertools
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from points import Points
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from worlds import project_of

from dagster_retl.errors import RetlError
from dagster_retl.service import Service
from dagster_retl.store.runs import options_from_json

HERE = Path(__file__).parent
_PR_SET_PDEATHSIG = 1

_IMPORTED_LATE = (
    "_strptime", "alembic.command", "anyio", "certifi", "concurrent.futures.thread", "dagster_retl.connectors.http",
    "httpcore", "pandas", "psutil", "psycopg", "pyarrow.pandas_compat", "pytz",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "sqlglot.dialects.duckdb",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a child ended. killed: by SIGKILL; error: code of the error that its run raised."""

    killed: bool
    error: str | None = None


class Nursery:
    """The parent's side. `begin` a child, know its `pid`, and wait for its `end`."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py")],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._heard: dict[str, Any] = {}
        self._child: int | None = None

    def begin(self, folder: Path, url: str, **how: Any) -> int:
        """Start a child with a run; returns its process id. See `_run` for `how`.

        There is one child at a time: one that a failed test left behind, standing still perhaps, is ended.
        """
        self.clear()
        assert self._process.stdin is not None
        self._heard = {}
        self._process.stdin.write(json.dumps({"folder": str(folder), "url": url, **how}).encode() + b"\n")
        self._child = int(self._hear("pid"))
        return self._child

    def over(self) -> bool:
        """Whether the child has something to say, which it does when it ends."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def end(self) -> Ended:
        """Wait until the child is gone."""
        status = self._hear("status")
        self._child = None
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"the child crashed: {status}"
        return Ended(killed, self._heard.get("error"))

    def clear(self) -> None:
        """End a child that nobody waited for."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            self._hear("status")
            self._child = None

    def _hear(self, word: str) -> Any:
        """The child and the nursery both talk: lines come in any order."""
        assert self._process.stdout is not None
        while word not in self._heard:
            line = self._process.stdout.readline()
            assert line, "the nursery is gone"
            self._heard |= json.loads(line)
        return self._heard[word]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped; the last of them may be in the middle of a system call."""
    try:
        tasks = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # one of them ended this very moment
        return False
    return set(tasks) == {"T"}


def stop(pid: int) -> None:
    """Let a process stand still: a signal takes a moment to reach every thread; until then they may send and write."""
    os.kill(pid, signal.SIGSTOP)
    while not stands_still(pid):
        os.kill(pid, 0)  # raises when it is gone
        time.sleep(0.001)


def stir(pid: int) -> None:
    """Let a process that stands still go on for a moment, as it was stopped inside a transaction perhaps."""
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.02)
    stop(pid)


def locked(store: Path) -> bool:
    """Whether somebody is inside a transaction that writes into a store in SQLite."""
    with contextlib.closing(sqlite3.connect(store, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def _die_at(engine: Engine, moment: int) -> None:
    """Kill this process when it begins or commits its n-th transaction: right before that, and right after the last."""
    moments = itertools.count()

    def tick(_: Any) -> None:
        if next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "begin", tick)
    event.listen(engine, "commit", tick)


def _run(command: Mapping[str, Any]) -> str | None:
    """The sync `things` of a folder, as `project_of` says it, with another `store` if need be.

    options: as the store writes them. die_at: see `_die_at`. kill_at, pause_at, record: see `_at_points`.
    forget: not a run, but the erasing of these key fields.
    """
    folder = Path(command["folder"])
    project = project_of(folder, command["url"], config=command.get("config"), **command.get("sync", {}))
    if command.get("store"):
        project = project.model_copy(update={"store": command["store"]})
    with Service(project) as service:
        if command.get("die_at") is not None:
            _die_at(service.store.engine, command["die_at"])
        points = Points(_at_points(command), alone=command.get("pause_at") is not None)
        points.watch(service.store.engine, service.state.folder)
        try:
            if "forget" in command:
                service.forget({"things": command["forget"]}, actor="me")
            else:
                service.run("things", options_from_json(command.get("options", {})), on_phase=points.enter)
        except RetlError as error:
            return str(error.code)
        except DBAPIError:
            return "the store's connection was lost"
    return None


def _at_points(command: Mapping[str, Any]) -> Callable[[str], None]:
    """What to do at the points of a run. record: append their names to this file."""
    signals = {command.get("kill_at"): signal.SIGKILL, command.get("pause_at"): signal.SIGSTOP}
    record = command.get("record")

    def reached(name: str) -> None:
        if record is not None:
            with Path(record).open("a") as names:
                names.write(f"{name}\n")
        if name in signals:
            # Of all threads this one takes it at once: not a step beyond the point.
            signal.pthread_kill(threading.get_ident(), signals[name])

    return reached


def _say(**words: Any) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def _die_with_parent() -> None:
    """A process that stands still outlives nobody: the kernel kills it when the one that made it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    _die_with_parent()
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _die_with_parent()
            _say(error=_run(json.loads(line)))
            os._exit(0)
        _say(pid=pid)
        _say(status=os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
