"""The cases: what is measured, at which size, and what each should reach."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import Postgres, duckdb_table
from environments import DLT, DRT
from running import BARE, OURS, Load, Result, Tool, difference, drive, first_syncs
from server import Server


@dataclass(frozen=True, slots=True)
class Goal:
    """What one number should reach; `at_most` where less is better."""

    what: str
    value: float
    target: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it does."""
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case found. bound: rows a second that the service's latency allows."""

    title: str
    results: Sequence[Result]
    goals: Sequence[Goal] = ()
    bound: float | None = None
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. rows: of a batched case; single: seconds that a case of one row a request should take."""

    rows: int
    duckdb_rows: int
    memory_rows: tuple[int, int]
    single: float
    times: int
    peer_rows: int
    peer_times: int


SMALL = Size(100_000, 200_000, (100_000, 400_000), single=3.0, times=3, peer_rows=20_000, peer_times=1)
FULL = Size(1_000_000, 10_000_000, (1_000_000, 10_000_000), single=15.0, times=3, peer_rows=100_000, peer_times=3)

Case = Callable[[Postgres, Size], Outcome]


def ratio(results: Sequence[Result], over: Tool) -> float:
    """Our rate over another one's; 0 without one."""
    rates = {result.tool: result.rate for result in results}
    return rates[OURS.name] / rates[over.name] if rates.get(over.name) else 0.0


def _batched(warehouse: Postgres, size: Size, load: Load, title: str, bare_goal: float) -> Outcome:
    tools = [(OURS, size.rows, size.times), (BARE, size.rows, size.times)]
    tools += [(Tool.of(peer), size.peer_rows, size.peer_times) for peer in (DLT, DRT)]
    results = first_syncs(warehouse, load, tools)
    goals = [Goal("rate over the bare loop's", ratio(results, BARE), bare_goal)]
    if load.bound:
        goals.append(Goal("delivery over the latency bound", results[0].sending_rate / load.bound, 0.55))
        goals.append(Goal("rate over dlt's", ratio(results, Tool.of(DLT)), 8))
        goals.append(Goal("rate over drt's", ratio(results, Tool.of(DRT)), 14))
    return Outcome(title, results, goals, load.bound)


def no_latency(warehouse: Postgres, size: Size) -> Outcome:
    """Batches, to a service that answers at once: what is measured is CPU."""
    title = "First sync, Postgres → HTTP, 200 rows a request, no latency, 8 in flight"
    return _batched(warehouse, size, Load(0.0, concurrency=8), title, 1.1)


def some_latency(warehouse: Postgres, size: Size) -> Outcome:
    """Batches, to a service some way off."""
    title = "First sync, Postgres → HTTP, 200 rows a request, 20 ms, 32 in flight"
    return _batched(warehouse, size, Load(0.02, concurrency=32), title, 1.15)


def _single(warehouse: Postgres, size: Size, concurrency: int, goal: float) -> Outcome:
    load = Load(0.05, concurrency=concurrency, one_by_one=True)
    rows = int(concurrency / load.latency * size.single)
    tools = [(OURS, rows, 1), (BARE, rows, 1), (Tool.of(DRT), int(size.single / load.latency), 1)]
    results = first_syncs(warehouse, load, tools)
    reached = results[0].sending_rate / (load.bound or 1)
    title = f"First sync, Postgres → HTTP, one row a request, 50 ms, {concurrency} in flight"
    return Outcome(title, results, [Goal("delivery over the latency bound", reached, goal)], load.bound)


def single_32(warehouse: Postgres, size: Size) -> Outcome:
    """One row a request, an ordinary number in flight."""
    return _single(warehouse, size, 32, 0.9)


def single_100(warehouse: Postgres, size: Size) -> Outcome:
    """One row a request, very many in flight."""
    return _single(warehouse, size, 100, 0.7)


def unchanged_postgres(warehouse: Postgres, size: Size) -> Outcome:
    """A second run that finds nothing to do, against reading alone."""
    extraction, unchanged, problem = _unchanged(warehouse.table(size.rows), size.rows, size.times)
    unchanged.problem = problem
    times = extraction.rate / unchanged.rate
    title = "Unchanged sync, Postgres"
    return Outcome(title, [unchanged, extraction], [Goal("time over extraction alone", times, 2, at_most=True)])


def unchanged_duckdb(warehouse: Postgres, size: Size) -> Outcome:
    """The same from DuckDB, where reading costs next to nothing."""
    with tempfile.TemporaryDirectory(prefix="retl-bench-") as folder:
        url = duckdb_table(Path(folder) / "warehouse.duckdb", size.duckdb_rows)
        extraction, unchanged, problem = _unchanged(url, size.duckdb_rows, size.times)
    unchanged.problem = problem
    ten_million = 10_000_000 / unchanged.rate
    goal = Goal("seconds for 10M rows at this rate", ten_million, 15, at_most=True)
    return Outcome("Unchanged sync, DuckDB", [unchanged, extraction], [goal])


def _unchanged(url: str, rows: int, times: int) -> tuple[Result, Result, str | None]:
    """Extraction alone, unchanged runs, and what went wrong with these."""
    extraction, unchanged = Result("extraction alone", rows), Result(OURS.name, rows)
    with tempfile.TemporaryDirectory(prefix="retl-bench-") as folder, Server(keep=False) as server:
        settings = {
            "folder": folder,
            "warehouse": url,
            "destination": server.url,
            "batch_rows": 2_000,
            "concurrency": 8,
        }
        drive(OURS.driver, settings)
        requests = server.stats()["requests"]
        told: Mapping[str, Any] = {}
        for _ in range(times):
            extraction.add(drive(OURS.driver, {**settings, "extract_only": True}))
            told = drive(OURS.driver, settings)
            unchanged.add(told)
        more = server.stats()["requests"] - requests
    problem = f"{more} requests were sent" if more else None
    return extraction, unchanged, problem or _counted(told, rows)


def _counted(told: Mapping[str, Any], rows: int) -> str | None:
    return None if told.get("unchanged") == rows else f"{told.get('unchanged')} rows unchanged instead of {rows}"


def rate_limits(warehouse: Postgres, size: Size) -> Outcome:
    """How much of a rate limit is used, and how often it is overstepped."""
    results, goals = [], []
    for rate, burst, share, refusals in ((200.0, 10, 0.97, 0), (20.0, 1, 0.95, 5)):
        result, used, refused = _limited(warehouse, rate, burst, int(rate * size.single) + burst)
        results.append(result)
        name = f"{rate:g}/s, burst {burst}"
        goals.append(Goal(f"{name}: share of the limit that was used", used, share))
        goals.append(Goal(f"{name}: answers 429", refused, refusals, at_most=True))
    return Outcome("A rate limit, one row a request, 8 in flight", results, goals)


def _limited(warehouse: Postgres, rate: float, burst: int, rows: int) -> tuple[Result, float, int]:
    result = Result(f"{OURS.name}, {rate:g}/s, burst {burst}", rows)
    with tempfile.TemporaryDirectory(prefix="retl-bench-") as folder, Server(rate=rate, burst=burst) as server:
        settings: dict[str, Any] = {"folder": folder, "warehouse": warehouse.table(rows), "destination": server.url}
        settings |= {"concurrency": 8, "one_by_one": True, "rate_limit": rate, "batch_rows": 1}
        told = drive(OURS.driver, settings)
        stats = server.stats()
        result.add(told, stats["seconds"])
        result.problem = difference(warehouse.expected(rows).as_dict(), server.digest())
    possible = burst + rate * stats["seconds"]
    return result, rows / possible, stats["refused"]


def memory(warehouse: Postgres, size: Size) -> Outcome:
    """Peak memory of a first sync at two sizes, from DuckDB into batches of 200."""
    results = [_memory(rows) for rows in size.memory_rows]
    small, large = (max(result.memory) for result in results)
    times = size.memory_rows[1] / size.memory_rows[0]
    goals = [
        Goal(f"MB at {size.memory_rows[0]:,} rows", small / 1e6, 400, at_most=True),
        Goal(f"peak at {times:g} times the rows over that", large / small, 1.2, at_most=True),
    ]
    return Outcome("Peak memory of a first sync, DuckDB → HTTP", results, goals)


def _memory(rows: int) -> Result:
    result = Result(OURS.name, rows)
    with tempfile.TemporaryDirectory(prefix="retl-bench-") as folder, Server(keep=False) as server:
        url = duckdb_table(Path(folder) / "warehouse.duckdb", rows)
        settings: dict[str, Any] = {"folder": folder, "warehouse": url, "destination": server.url}
        # The warehouse is in the same process; what it keeps in memory of its own file is not the engine's.
        settings |= {"batch_rows": 200, "concurrency": 8, "connect_args": {"memory_limit": "64MB"}}
        result.add(drive(OURS.driver, settings), server.stats()["seconds"])
        arrived = server.stats()["rows"]
    result.problem = None if arrived == rows else f"{arrived} rows arrived"
    return result


SALESFORCE_ROWS = 100_000


def salesforce(warehouse: Postgres, size: Size) -> Outcome:
    """A first sync into the fake Salesforce, both ways: what is measured is mostly what the fake takes for it."""
    results = [_salesforce(api) for api in ("collections", "bulk")]
    return Outcome("First sync, DuckDB → fake Salesforce, Account by external id", results)


def _salesforce(api: str) -> Result:
    result = Result(f"{OURS.name}, {api}", SALESFORCE_ROWS)
    with tempfile.TemporaryDirectory(prefix="retl-bench-") as folder:
        url = duckdb_table(Path(folder) / "warehouse.duckdb", SALESFORCE_ROWS)
        command = [sys.executable, str(Path(__file__).parent / "salesforce_org.py")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as org:
            assert org.stdout is not None
            told = json.loads(org.stdout.readline())
            settings = {"folder": folder, "warehouse": url, "destination": told["url"], "app": told["app"], "api": api}
            counted = drive("ours_salesforce.py", settings)
            held = json.loads(org.communicate()[0].splitlines()[-1])
    result.add(counted)
    wanted = {"records": SALESFORCE_ROWS, "right": SALESFORCE_ROWS}
    exact = held == wanted and counted["written"] == SALESFORCE_ROWS
    result.problem = None if exact else f"{counted['written']} were written, and the org holds {held}"
    return result


CASES: Mapping[str, Case] = {
    "no-latency": no_latency,
    "latency": some_latency,
    "single-32": single_32,
    "single-100": single_100,
    "unchanged-postgres": unchanged_postgres,
    "unchanged-duckdb": unchanged_duckdb,
    "rate-limit": rate_limits,
    "memory": memory,
    "salesforce": salesforce,
}
