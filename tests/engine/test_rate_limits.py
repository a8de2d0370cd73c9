"""Whole runs against services that limit their clients."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import select
from worlds import RESULTS, World, project_of, world

from dagster_retl.errors import CancelledError, DestinationError, ErrorCode
from dagster_retl.service import Service
from dagster_retl.store.schema import rate_budgets
from dagster_retl.testing.fake_http import FakeHttpService, Rules
from dagster_retl.testing.server import Received, Reply, Trouble

HERE = Path(__file__).parent
ONE_BY_ONE = {"body": "object", "batch_rows": None}


def fill(made: World, rows: int) -> None:
    made.sql(f"INSERT INTO t SELECT i, 'n' || i, i FROM range({rows}) AS r(i)")


def budgets(made: World) -> list[Any]:
    with made.service.store.begin() as conn:
        return list(conn.execute(select(rate_budgets)).all())


class Windows(FakeHttpService):
    """So many requests in each second of the clock, and it says how many are left."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._second = 0
        self._used = 0
        self.refused = 0
        self._count = threading.Lock()

    def handle(self, request: Received) -> Reply:
        with self._count:
            second = math.floor(time.time())
            self._used = self._used + 1 if second == self._second else 1
            self._second = second
            left = self._limit - self._used
            self.refused += left < 0
        headers = {"X-RateLimit-Remaining": str(max(0, left)), "X-RateLimit-Reset": str(second + 1)}
        reply = Reply(429) if left < 0 else super().handle(request)
        return Reply(reply.status, reply.body, {**reply.headers, **headers})


class Crowded(FakeHttpService):
    """Takes so many requests at once, each for a moment."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._inside = 0
        self.refused = 0
        self._count = threading.Lock()

    def handle(self, request: Received) -> Reply:
        with self._count:
            if self._inside >= self._most:
                self.refused += 1
                return Reply(429, headers={"Retry-After": "0.02"})
            self._inside += 1
        time.sleep(0.01)
        with self._count:
            self._inside -= 1
        return super().handle(request)


def start(
    folder: Path, http: FakeHttpService, store: str, config: dict[str, Any], rows: int
) -> subprocess.Popen[bytes]:
    """A process that runs a sync of its own, with a warehouse of its own."""
    folder.mkdir()
    with duckdb.connect(str(folder / "warehouse.duckdb")) as warehouse:
        warehouse.execute(f"CREATE TABLE t AS SELECT i AS id, 'n' || i AS name, i AS score FROM range({rows}) AS r(i)")
    settings = json.dumps({"store": store, "sync": {"slug": folder.name}, "config": config})
    paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "run_things.py"), str(folder), http.url, settings]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_keep_one_limit_together(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Each alone would use all of it: without each other's knowledge they are refused dozens of times."""
    store = f"sqlite:///{tmp_path / 'retl.db'}"
    if kind == "postgres":
        store = str(request.getfixturevalue("postgres_url"))
    config = {**ONE_BY_ONE, "rate_limit": 60, "burst": 4, "concurrency": 4}
    with FakeHttpService(Rules(rate=60, burst=12), record=False) as http:
        processes = [start(tmp_path / name, http, store, config, 90) for name in ("a", "b")]
        assert [process.wait() for process in processes] == [0, 0]
        assert len(http.applied) == 180
        assert http.refused_by_rate <= 2


def test_one_process_is_not_refused(tmp_path: Path) -> None:
    with world(tmp_path, Rules(rate=100, burst=10), config={**ONE_BY_ONE, "rate_limit": 100, "burst": 5}) as made:
        fill(made, 150)
        assert made.run().run.counters.written == 150
        assert made.http.refused_by_rate <= 1
        (budget,) = budgets(made)
        assert budget.account.startswith("http:127.0.0.1:")


def test_a_destination_without_a_limit_costs_the_store_nothing(tmp_path: Path) -> None:
    with world(tmp_path, config=ONE_BY_ONE) as made:
        fill(made, 20)
        made.run()
        assert budgets(made) == []


def test_what_answers_say_is_left_is_used_without_a_refusal(tmp_path: Path) -> None:
    with Windows(limit=12) as http:
        project = project_of(tmp_path, http.url, config={**ONE_BY_ONE, "concurrency": 4})
        with Service(project) as service:
            made = World(project, service, http, tmp_path / "warehouse.duckdb")
            made.sql("CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2))")
            fill(made, 40)
            report = made.run()
    assert report.run.counters.written == 40
    assert http.refused <= 1  # answers may overtake one another


def test_fewer_requests_are_in_flight_after_refusals(tmp_path: Path) -> None:
    with Crowded(most=3) as http:
        project = project_of(tmp_path, http.url, config={**ONE_BY_ONE, "concurrency": 16})
        with Service(project) as service:
            made = World(project, service, http, tmp_path / "warehouse.duckdb")
            made.sql("CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2))")
            fill(made, 200)
            report = made.run()
    assert (report.run.counters.written, report.run.counters.retries) == (200, 0)
    assert http.refused < 120


def test_people_are_told_how_long_a_run_waited(tmp_path: Path) -> None:
    with world(tmp_path, config={"concurrency": 1}) as made:
        made.put((1, "a", 1))
        made.http.disturb(Trouble(status=429, headers={"Retry-After": "1.1"}))
        assert made.run().run.warnings == ("waited 1 s for the destination's rate limit",)
        made.put((1, "b", 1))
        assert made.run().run.warnings == ()


def test_a_day_is_not_waited_for(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.http.disturb(Trouble(status=429, headers={"Retry-After": "86400"}))
        with pytest.raises(DestinationError, match="wants no request for 86,400 s") as caught:
            made.run()
        assert caught.value.code is ErrorCode.QUOTA_EXHAUSTED
        counters = made.service.runs()[0].counters
        assert (counters.skipped, counters.failed, counters.dead_letters_opened) == (1, 0, 0)
        assert made.run().run.counters.written == 1


def stop_after_a_request(made: World, stop: threading.Event) -> None:
    while not made.http.requests:
        time.sleep(0.01)
    time.sleep(0.2)
    stop.set()


def test_a_stop_ends_a_long_wait_without_another_request(tmp_path: Path) -> None:
    with world(tmp_path, config={"concurrency": 1}) as made:
        made.put((1, "a", 1))
        made.http.disturb(Trouble(status=429, headers={"Retry-After": "60"}))
        stop = threading.Event()
        stopping = threading.Thread(target=stop_after_a_request, args=(made, stop))
        stopping.start()
        started = time.monotonic()
        with pytest.raises(CancelledError):
            made.service.run("things", stop=stop)
        stopping.join()
        assert time.monotonic() - started < 50
        assert len(made.http.requests) == 1
        counters = made.service.runs()[0].counters
        assert (counters.skipped, counters.failed, counters.unknown) == (1, 0, 0)


def test_rows_that_are_over_a_limit_wait_and_the_others_are_done(tmp_path: Path) -> None:
    results = {**RESULTS, "codes": {"SLOW_DOWN": "RATE_LIMIT"}}
    with world(tmp_path, config={"results": results}) as made:
        made.put((1, "a", 1), (2, "b", 1))
        slow = {"errors": [{"index": 0, "code": "SLOW_DOWN", "message": "later"}]}
        made.http.disturb(Trouble(body=json.dumps(slow).encode(), apply=True), times=2)
        counters = made.run().run.counters
        assert (counters.written, counters.failed, counters.retries) == (2, 0, 0)
        assert [len(request.json()) for request in made.http.requests] == [2, 1, 1]
