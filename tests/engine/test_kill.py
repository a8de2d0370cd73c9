"""A run that is killed at any moment costs nothing: the next one finishes the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from dagster_retl.errors import LeaseHeldError
from dagster_retl.model.runs import RunStatus
from dagster_retl.testing.fake_http import Rules

HERE = Path(__file__).parent
CONCURRENCY = 3
BATCH = 10
IN_FLIGHT = CONCURRENCY * BATCH
SENT_AGAIN = 2 * IN_FLIGHT
"""Each worker may have a batch on its way and one whose answer is not written down yet."""
STARTED = 4 * IN_FLIGHT
"""Where sending again does no harm, batches are marked as started a little ahead."""
CONFIG = {"concurrency": CONCURRENCY, "batch_rows": BATCH}


def start(
    made: World,
    folder: Path,
    *,
    sync: dict[str, Any] | None = None,
    store: str | None = None,
    state: str | None = None,
) -> subprocess.Popen[bytes]:
    settings = json.dumps({"config": CONFIG, "sync": sync or {}, "store": store, "state": state})
    paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(HERE / "run_things.py"), str(folder), made.http.url, settings],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
    )


def wait_until(condition: Callable[[], bool], child: subprocess.Popen[bytes], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()[1].decode()
        assert time.monotonic() < until, "the run did not get that far"
        time.sleep(0.005)


def kill_at(made: World, folder: Path, rows: int, **how: Any) -> None:
    """Start a run in a process of its own and kill it once the service applied so many rows."""
    child = start(made, folder, **how)
    wait_until(lambda: made.writes() >= rows, child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    time.sleep(0.1)  # what was in the socket when the process died is applied by now


def fill(made: World, rows: int) -> None:
    made.sql("INSERT INTO t SELECT n, 'name ' || n, n FROM range(?) r(n)", [rows])


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize("killed_at", [1, 100, 290])
def test_a_killed_run_loses_nothing_and_repeats_only_what_was_in_flight(
    tmp_path: Path, store: str | None, killed_at: int
) -> None:
    with world(tmp_path, store=store, config=CONFIG, sync_mode="mirror") as made:
        made.http.latency = 0.02
        fill(made, 300)
        kill_at(made, tmp_path, killed_at, sync={"sync_mode": "mirror"}, store=store)
        made.http.latency = 0
        made.run()
        assert sorted(made.records, key=int) == [str(n) for n in range(300)]
        repeated = [key for key, count in made.http.applications().items() if count > 1]
        assert len(repeated) <= SENT_AGAIN
        last, killed = made.service.runs()
        assert (killed.status, killed.error_code) == (RunStatus.FAILED, "INTERRUPTED")
        assert killed.counters.balanced()
        assert killed.counters.read == 300
        assert killed.counters.unknown <= STARTED
        assert last.counters.unchanged == killed.counters.written
        assert last.counters.unchanged + last.counters.written == 300
        assert made.service.dead_letters() == []


def test_killed_twice_in_a_row(tmp_path: Path) -> None:
    with world(tmp_path, config=CONFIG) as made:
        made.http.latency = 0.02
        fill(made, 300)
        kill_at(made, tmp_path, 60)
        kill_at(made, tmp_path, 150)
        made.http.latency = 0
        counters = made.run().run.counters
        assert len(made.records) == 300
        assert all(run.counters.balanced() for run in made.service.runs())
        assert counters.unchanged >= 150 - 2 * SENT_AGAIN  # of either kill


def test_an_insert_that_was_in_flight_is_held_until_somebody_knows(tmp_path: Path) -> None:
    rules = Rules(operations={"POST": "insert"})
    with world(tmp_path, rules, config={**CONFIG, "settle": 0.0}, sync_mode="insert") as made:
        made.http.latency = 0.05
        fill(made, 200)
        child = start(made, tmp_path, sync={"sync_mode": "insert"})
        wait_until(lambda: made.writes() >= 50, child)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        time.sleep(0.2)
        made.http.latency = 0
        made.run()
        letters = made.service.dead_letters(limit=200)
        assert 0 < len(letters) <= IN_FLIGHT
        assert {(letter.error_code, letter.held) for letter in letters} == {("UNKNOWN_OUTCOME", True)}
        assert all(count == 1 for count in made.http.applications().values())
        held = {str(letter.record_keys["id"]) for letter in letters}
        assert {str(n) for n in range(200)} - set(made.records) <= held
        assert made.run(full_refresh=False).run.counters.skipped == len(letters)


def test_a_live_run_makes_the_newcomer_stop(tmp_path: Path) -> None:
    with world(tmp_path, config=CONFIG) as made:
        made.http.latency = 0.05
        fill(made, 300)
        child = start(made, tmp_path)
        try:
            wait_until(lambda: made.writes() > 0, child)
            with pytest.raises(LeaseHeldError) as caught:
                made.run()
            assert caught.value.run_id == made.service.runs(status=RunStatus.RUNNING)[0].id
            refused = made.service.runs()[0]
            assert (refused.status, refused.error_code) == (RunStatus.FAILED, "LEASE_HELD")
        finally:
            child.wait(30)
            child.communicate()
        assert len(made.records) == 300


def test_a_run_that_was_told_to_stop_ends_at_a_batch_boundary(tmp_path: Path) -> None:
    with world(tmp_path, config=CONFIG) as made:
        made.http.latency = 0.05
        fill(made, 3_000)
        child = start(made, tmp_path)
        wait_until(lambda: made.writes() > 0, child)
        child.send_signal(signal.SIGINT)
        child.communicate()
        made.http.latency = 0
        run = made.service.runs()[0]
        assert (run.status, run.error_code) == (RunStatus.CANCELLED, "CANCELLED")
        assert run.counters.balanced()
        assert run.counters.unknown == 0
        assert run.counters.written == len(made.records)
        assert made.run().run.counters.written == 3_000 - run.counters.written
