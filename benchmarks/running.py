"""Running drivers: each in a process of its own, against a fresh service, several times, and checking what arrived."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from data import QUERY, Postgres
from environments import Peer, prepare
from measure import MARK
from server import Server

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that moves rows. peer: None for what runs in this project's environment."""

    name: str
    driver: str
    peer: Peer | None = None

    @classmethod
    def of(cls, peer: Peer) -> Tool:
        """Another tool, by its name and version."""
        return cls(f"{peer.name} {peer.version}", peer.driver, peer)


OURS = Tool("dagster-retl", "ours.py")
BARE = Tool("bare loop", "bare_loop.py")


@dataclass(frozen=True, slots=True)
class Load:
    """How rows are to be sent. latency: seconds before the service answers."""

    latency: float = 0.0
    batch_rows: int = 200
    concurrency: int = 8
    one_by_one: bool = False

    @property
    def bound(self) -> float | None:
        """Rows a second that the latency allows; None without latency."""
        if not self.latency:
            return None
        return (1 if self.one_by_one else self.batch_rows) * self.concurrency / self.latency


@dataclass(slots=True)
class Result:
    """What a tool did, once for each repetition. problem: why there is nothing to show, or what arrived wrongly."""

    tool: str
    rows: int
    seconds: list[float] = field(default_factory=list)
    sending: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    problem: str | None = None

    @property
    def rate(self) -> float:
        """Rows a second of the whole run, the median."""
        return self.rows / statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def sending_rate(self) -> float:
        """Rows a second between the first request and the last answer, the median."""
        return self.rows / statistics.median(self.sending) if self.sending else 0.0

    def add(self, told: Mapping[str, Any], sending: float | None = None) -> None:
        """Note one repetition."""
        self.seconds.append(told["seconds"])
        self.cpu.append(told["cpu"])
        self.memory.append(told["memory"])
        if sending is not None:
            self.sending.append(sending)


class DriverError(Exception):
    """A driver that ended with an error; the message is its last line."""


def drive(driver: str, settings: Mapping[str, Any], python: Path | None = None) -> dict[str, Any]:
    """Run a driver in a process of its own. Raises `DriverError`."""
    command = [str(python or sys.executable), str(HERE / driver), json.dumps(settings)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode or MARK not in ended.stdout:
        raise DriverError((ended.stderr.strip() or "it said nothing").splitlines()[-1][:200])
    told: dict[str, Any] = json.loads(ended.stdout.split(MARK)[1].splitlines()[0])
    return told


def first_syncs(warehouse: Postgres, load: Load, tools: Sequence[tuple[Tool, int, int]]) -> list[Result]:
    """Every tool sends its whole table to an empty service. tools: (tool, rows, repetitions), which take turns."""
    results = [Result(tool.name, rows) for tool, rows, _ in tools]
    for turn in range(max(times for _, _, times in tools)):
        for (tool, rows, times), result in zip(tools, results, strict=True):
            if turn < times and result.problem is None:
                result.problem = _turn(warehouse, load, tool, rows, result)
    return results


def _turn(warehouse: Postgres, load: Load, tool: Tool, rows: int, result: Result) -> str | None:
    """Once. Returns what went wrong."""
    if tool.peer is not None and (reason := prepare(tool.peer)):
        return reason
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="retl-bench-"))
        server = stack.enter_context(Server(latency=load.latency))
        settings = _settings(warehouse.table(rows), rows, load, folder, server.url)
        try:
            told = drive(tool.driver, settings, tool.peer.python if tool.peer else None)
        except DriverError as error:
            return f"it failed: {error}"
        result.add(told, server.stats()["seconds"])
        return difference(warehouse.expected(rows).as_dict(), server.digest())


def _settings(url: str, rows: int, load: Load, folder: str, destination: str) -> dict[str, Any]:
    return {
        "folder": folder,
        "warehouse": url,
        "host": parse_qs(urlsplit(url).query)["host"][0],
        "database": urlsplit(url).path[1:],
        "query": QUERY,
        "rows": rows,
        "destination": destination,
        "batch_rows": load.batch_rows,
        "concurrency": load.concurrency,
        "one_by_one": load.one_by_one,
    }


def difference(expected: Mapping[str, int], arrived: Mapping[str, int]) -> str | None:
    """What is wrong with what arrived; None when all of it is right."""
    wrong = [
        f"{name} {arrived[name]} instead of {expected[name]}" for name in expected if arrived[name] != expected[name]
    ]
    return f"not what the query says: {', '.join(wrong)}" if wrong else None
