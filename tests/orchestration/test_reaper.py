"""The reaper: runs whose process died are closed with honest counters, and Dagster hears of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import update
from worlds import World, world

from dagster_retl.engine.reap import close_dead_runs
from dagster_retl.errors import ErrorCode
from dagster_retl.model.project import Project
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.orchestration.reaper import reaper_sensor
from dagster_retl.service import Service
from dagster_retl.store.clock import to_text
from dagster_retl.store.schema import leases

HERE = Path(__file__).parent
CONFIG = {"concurrency": 3, "batch_rows": 10}
ROWS = 200


def tick(project: Project, instance: dg.DagsterInstance) -> str:
    """One tick of a fresh reaper; what it says it did."""
    context = dg.build_sensor_context(instance=instance)
    result = reaper_sensor(project, lambda: Service.open(project))(context)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def wait_until(condition: Callable[[], bool], child: subprocess.Popen[bytes], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.stderr and child.stderr.read().decode()
        assert time.monotonic() < until, "the run did not get that far"
        time.sleep(0.005)


@contextmanager
def killed(made: World, script: Path, *arguments: str, home: Path | None = None) -> Iterator[None]:
    """After a run in a process of its own was killed in the middle of its delivery."""
    made.http.latency = 0.03
    made.sql("INSERT INTO t SELECT n, 'name ' || n, n FROM range(?) r(n)", [ROWS])
    paths = os.pathsep.join([str(HERE.parent), str(script.parent), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": paths, **({"DAGSTER_HOME": str(home)} if home else {})},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: made.writes() >= 60, child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    time.sleep(0.1)  # what was in the socket when the process died is applied by now
    made.http.latency = 0
    yield


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, config=CONFIG, sync_mode="mirror") as made:
        yield made


@pytest.fixture
def dead(made: World, tmp_path: Path) -> Iterator[Run]:
    """A run whose process was killed."""
    settings = json.dumps({"config": CONFIG, "sync": {"sync_mode": "mirror"}})
    script = HERE.parent / "engine" / "run_things.py"
    with killed(made, script, str(tmp_path), made.http.url, settings):
        yield made.service.runs()[0]


def expire(made: World) -> None:
    """As if a minute had passed since the last heartbeat."""
    with made.service.store.begin() as conn:
        conn.execute(update(leases).values(expires_at=to_text(made.service.store.now(conn))))


def test_a_run_of_a_dead_process_is_closed_and_its_books_balance(made: World, dead: Run) -> None:
    assert dead.status is RunStatus.RUNNING
    with dg.DagsterInstance.ephemeral() as instance:
        assert dead.id in tick(made.project, instance)
        assert tick(made.project, instance) == "no run has lost its process"
    closed = made.service.run_of(dead.id)
    assert (closed.status, closed.error_code) == (RunStatus.FAILED, ErrorCode.INTERRUPTED)
    assert closed.finished_at is not None
    assert closed.counters.balanced()
    assert closed.counters.read == ROWS
    assert closed.counters.written <= made.writes()
    assert 1 <= closed.counters.unknown < ROWS  # what was on its way, or marked as started a little ahead
    holder = made.service.store.leases.holder(closed.sync_id)
    assert holder is not None
    assert holder.run_id == dead.id
    assert made.service.store.ledger.unfolded(closed.sync_id) == [dead.id]


def test_the_next_run_finishes_the_work_and_keeps_the_ending(made: World, dead: Run) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick(made.project, instance)
    before = made.service.run_of(dead.id)
    last = made.run().run
    after = made.service.run_of(dead.id)
    assert (after.status, after.error_code, after.counters) == (before.status, before.error_code, before.counters)
    assert last.counters.unchanged == before.counters.written
    assert len(made.records) == ROWS
    assert made.service.store.leases.expired() == []


def test_counters_of_a_run_whose_manifest_cannot_be_read_say_so(made: World, dead: Run, tmp_path: Path) -> None:
    for file in (tmp_path / "state").rglob("*.parquet"):
        file.unlink()
    store = made.service.store
    [closed] = close_dead_runs(store, made.service.state, made.project.engine, store.leases.expired())
    assert closed.id == dead.id
    assert closed.counters == Counters(read=ROWS, unknown=ROWS)
    assert "count as unknown until the next run" in closed.warnings[0]


def run_with_lease(made: World, *, dagster_run_id: str | None = None) -> Run:
    """A run that has its lease, and a process (this one) that sends no heartbeat."""
    store, sync = made.service.store, made.project.syncs[0]
    run = store.runs.create(sync.id, sync.slug, dagster_run_id=dagster_run_id)
    store.leases.acquire(sync.id, run.id)
    return run


def test_a_run_that_somebody_took_over_is_left_alone(made: World) -> None:
    store, run = made.service.store, run_with_lease(made)
    expire(made)
    holders = store.leases.expired()
    run_with_lease(made)
    assert close_dead_runs(store, made.service.state, made.project.engine, holders) == []
    assert made.service.run_of(run.id).status is RunStatus.QUEUED


def test_a_run_that_woke_up_again_is_left_alone(made: World) -> None:
    store, sync = made.service.store, made.project.syncs[0]
    run = store.runs.create(sync.id, sync.slug)
    lease = store.leases.acquire(sync.id, run.id)
    expire(made)
    holders = store.leases.expired()
    store.leases.heartbeat(lease)
    assert close_dead_runs(store, made.service.state, made.project.engine, holders) == []


def test_a_run_that_died_before_its_plan_counts_nothing(made: World) -> None:
    store, run = made.service.store, run_with_lease(made)
    expire(made)
    [closed] = close_dead_runs(store, made.service.state, made.project.engine, store.leases.expired())
    assert (closed.id, closed.error_code, closed.counters) == (run.id, ErrorCode.INTERRUPTED, Counters())


def test_a_dagster_run_that_knows_of_the_dead_step_goes_on(made: World) -> None:
    """As when the multiprocess executor lost one step's process: the others are alive."""

    @dg.op
    def things(context: dg.OpExecutionContext) -> None:
        run_with_lease(made, dagster_run_id=context.run_id)
        raise dg.Failure("the process of this step died")

    @dg.op
    def witness(context: dg.OpExecutionContext) -> None:
        expire(made)
        assert "Dagster runs ended: none" in tick(made.project, context.instance)

    @dg.job
    def both() -> None:
        things()
        witness()

    with dg.DagsterInstance.ephemeral() as instance:
        result = both.execute_in_process(instance=instance, raise_on_error=False)
        assert [event.step_key for event in result.get_step_success_events()] == ["witness"]
        assert instance.get_run_records()[0].dagster_run.status is dg.DagsterRunStatus.FAILURE


def test_a_live_run_is_left_alone(made: World) -> None:
    run = run_with_lease(made)
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick(made.project, instance) == "no run has lost its process"
    assert made.service.run_of(run.id).status is RunStatus.QUEUED


def test_the_dagster_run_of_a_dead_process_ends_once_the_lease_expired(made: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        script = HERE / "run_in_dagster.py"
        with killed(made, script, str(tmp_path), made.http.url, json.dumps(CONFIG), home=home):
            [record] = instance.get_run_records()
            assert record.dagster_run.status is dg.DagsterRunStatus.STARTED
            tick(made.project, instance)
            [run] = made.service.runs()
            assert (run.dagster_run_id, run.error_code) == (record.dagster_run.run_id, ErrorCode.INTERRUPTED)
            assert instance.get_run_records()[0].dagster_run.status is dg.DagsterRunStatus.STARTED
            expire(made)
            assert record.dagster_run.run_id in tick(made.project, instance)
            assert instance.get_run_records()[0].dagster_run.status is dg.DagsterRunStatus.CANCELED
            assert tick(made.project, instance) == "no run has lost its process"


def test_the_sensor_runs_unless_writes_are_off(made: World) -> None:
    on = reaper_sensor(made.project, lambda: made.service)
    off = reaper_sensor(made.project.model_copy(update={"writes": False}), lambda: made.service)
    assert (on.name, on.minimum_interval_seconds) == ("retl_reaper", 30)
    assert on.default_status is dg.DefaultSensorStatus.RUNNING
    assert off.default_status is dg.DefaultSensorStatus.STOPPED
