"""A sync whose state is on an object store keeps every promise that one with a local folder keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from nursery import locked, stir, stop
from object_server import SECRET, Bucket, Proxy
from programs import free_port
from read_generations import ROWS, read_until
from sqlalchemy import event
from test_kill import CONFIG, SENT_AGAIN, fill, start, wait_until
from worlds import World, world

from dagster_retl.engine.recall import Chosen, recall_latest
from dagster_retl.errors import ErrorCode, RetlError, StateMissingError
from dagster_retl.model.runs import AccountChange, RunOptions, RunStatus
from dagster_retl.service import Service
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State, generation_name
from dagster_retl.store.store import Store

HERE = Path(__file__).parent


@pytest.fixture
def made(tmp_path: Path, bucket: Bucket) -> Iterator[World]:
    with world(tmp_path, state=bucket.url(), config=CONFIG) as world_:
        yield world_


def generations(made: World, bucket: Bucket) -> set[str]:
    return bucket.names(f"state/{made.project.syncs[0].id}/g-")


def moved(made: World, url: str) -> World:
    """The same world, whose state is said to be somewhere else."""
    project = made.project.model_copy(update={"state": url})
    return World(project, Service(project), made.http, made.warehouse)


def test_first_run_unchanged_run_and_a_change(made: World, bucket: Bucket, tmp_path: Path) -> None:
    fill(made, 100)
    assert made.run().run.counters.written == 100
    assert len(generations(made, bucket)) == 1
    unchanged = made.run().run.counters
    assert (unchanged.unchanged, unchanged.requests) == (100, 0)
    assert len(generations(made, bucket)) == 1
    made.put((7, "seven", 7))
    changed = made.run().run.counters
    assert (changed.written, changed.unchanged) == (1, 99)
    assert len(generations(made, bucket)) == 2
    assert not (tmp_path / "state").exists()


def test_copies_on_this_machine_go_with_the_run(made: World, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    engine = made.project.engine.model_copy(update={"spill": str(spill)})
    service = Service(made.project.model_copy(update={"engine": engine}))
    fill(made, 20)
    for _ in range(2):
        service.run("things")
        service.run("things", RunOptions(dry_run=True))
    service.close()
    assert list(spill.iterdir()) == []


def test_a_killed_run_is_finished_by_the_next_one(made: World, bucket: Bucket, tmp_path: Path) -> None:
    made.http.latency = 0.02
    fill(made, 300)
    child = start(made, tmp_path, state=bucket.url())
    wait_until(lambda: made.writes() >= 100, child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    made.http.latency = 0
    last = made.run().run.counters
    killed = made.service.runs()[1]
    assert (killed.status, killed.error_code) == (RunStatus.FAILED, "INTERRUPTED")
    assert killed.counters.balanced()
    assert len(made.records) == 300
    assert last.unchanged == killed.counters.written >= 100 - SENT_AGAIN
    assert len([key for key, count in made.http.applications().items() if count > 1]) <= SENT_AGAIN


def test_a_generation_that_somebody_deleted_is_not_an_empty_snapshot(made: World, bucket: Bucket) -> None:
    fill(made, 20)
    made.run()
    (generation,) = generations(made, bucket)
    bucket.delete(generation)
    requests = made.writes()
    with pytest.raises(StateMissingError) as caught:
        made.run()
    assert generation.rpartition("/")[2] in caught.value.message
    assert made.writes() == requests
    failed = made.service.runs()[0]
    assert (failed.status, failed.error_code) == (RunStatus.FAILED, "STATE_MISSING")
    with pytest.raises(StateMissingError):
        made.run(dry_run=True)
    assert made.run(account_change=AccountChange.RESET).run.counters.written == 20
    assert made.run().run.counters.unchanged == 20


@pytest.mark.long
def test_a_store_that_does_not_answer_is_not_an_empty_snapshot(made: World, bucket: Bucket) -> None:
    fill(made, 20)
    made.run()
    requests = made.writes()
    unreachable = moved(made, bucket.url(endpoint=f"127.0.0.1:{free_port()}"))
    with pytest.raises(RetlError) as caught:
        unreachable.run()
    assert caught.value.code is ErrorCode.STATE_UNAVAILABLE
    assert made.writes() == requests
    failed = made.service.runs()[0]
    assert (failed.status, failed.error_code) == (RunStatus.FAILED, "STATE_UNAVAILABLE")
    assert failed.counters.balanced()
    assert SECRET not in str(failed.error_message)
    unreachable.service.close()
    assert made.run().run.counters.unchanged == 20


@pytest.mark.long
def test_a_store_that_is_gone_when_the_run_folds_costs_nothing(made: World, bucket: Bucket) -> None:
    """All was sent, and the next generation cannot be uploaded: the ledger keeps the answers."""
    fill(made, 100)
    with Proxy(bucket.endpoint) as proxy:
        cut = moved(made, bucket.url(endpoint=proxy.endpoint))

        def once_sent(_: Any) -> None:
            if made.writes() == 100:
                proxy.allowance = 0

        event.listen(cut.service.store.engine, "commit", once_sent)
        with pytest.raises(RetlError) as caught:
            cut.run()
        cut.service.close()
    assert caught.value.code is ErrorCode.STATE_UNAVAILABLE
    assert generations(made, bucket) == set()
    assert made.run().run.counters.unchanged == 100
    assert all(count == 1 for count in made.http.applications().values())


@pytest.mark.long
def test_a_run_does_not_fail_because_old_files_cannot_be_removed(
    made: World, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    fill(made, 20)
    with Proxy(bucket.endpoint) as proxy:
        cut = moved(made, bucket.url(endpoint=proxy.endpoint))

        def once_committed(_: Any) -> None:
            if generations(made, bucket):
                proxy.allowance = 0

        event.listen(cut.service.store.engine, "commit", once_committed)
        assert cut.run().run.status is RunStatus.SUCCEEDED
        cut.service.close()
    assert "stay for now" in caplog.text
    assert SECRET not in caplog.text
    assert made.run().run.counters.unchanged == 20


def test_a_plan_while_a_run_is_under_way(made: World, bucket: Bucket, tmp_path: Path) -> None:
    fill(made, 200)
    made.run()
    made.sql("UPDATE t SET name = 'x' || name")
    made.http.latency = 0.05
    child = start(made, tmp_path, state=bucket.url())
    try:
        wait_until(lambda: made.writes() > 200, child)
        stop(child.pid)
        while locked(tmp_path / "retl.db"):  # it was stopped inside a transaction
            stir(child.pid)
        plan = made.run(dry_run=True).plan
        assert (plan.totals.read, plan.totals.send) == (200, 200)
        assert any("under way" in warning for warning in plan.warnings)
    finally:
        child.send_signal(signal.SIGCONT)
        child.communicate()
    assert made.run(dry_run=True).plan.totals.send == 0


# Readers without a lease


def generation(number: int) -> Any:
    def fill(path: Path) -> int:
        with duckdb.connect() as connection:
            connection.execute(f"COPY (SELECT '{number}' AS key FROM range({ROWS})) TO '{path}' (FORMAT parquet)")
        return ROWS

    return fill


def replace_snapshot(store: Store, state: State, number: int) -> Pointer:
    """What a run does in the end; the old generations go at once."""
    stored = state.write(generation_name(store.uuid, "s", number), generation(number))
    pointer = Pointer("s", "epoch", "a", "a", "a", stored.name, ROWS, stored.checksum, 1, source_rows=number)
    with store.begin() as conn:
        store.snapshots.save(conn, pointer)
    state.collect("s", {stored.name}, timedelta(minutes=-10), store_uuid=store.uuid)
    return pointer


@pytest.fixture(params=["local", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "state")
    return str(request.getfixturevalue("bucket").url())


def test_a_reader_that_misses_its_file_reads_the_pointer_again(place: str, tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store, State.open(place) as state:
        replace_snapshot(store, state, 0)
        numbers = iter(range(1, 100))

        def overtaken(pointer: Pointer | None) -> Chosen:
            """Three runs end between the look at the pointer and the look at the file, once."""
            assert pointer is not None
            if pointer.source_rows == 0:
                for _ in range(3):
                    replace_snapshot(store, state, next(numbers))
            return Chosen(pointer, "as it is")

        with State.open(place) as reader:
            chosen, memory = recall_latest(store, reader, "s", overtaken)
            assert chosen.pointer.source_rows == 3
            assert duckdb.connect().execute(f"SELECT min(key) FROM '{memory.generation}'").fetchone() == ("3",)


def test_a_reader_whose_file_is_lost_says_so(place: str, tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store, State.open(place) as state:
        replace_snapshot(store, state, 0)
        state.collect("s", set(), timedelta(minutes=-10), store_uuid=store.uuid, generations=0)
        asked = []

        def choose(pointer: Pointer | None) -> Chosen:
            assert pointer is not None
            asked.append(pointer)
            return Chosen(pointer, "as it is")

        with State.open(place) as reader, pytest.raises(StateMissingError):
            recall_latest(store, reader, "s", choose)
        assert len(asked) == 1


def test_readers_see_whole_generations_while_they_are_replaced_and_collected(place: str, tmp_path: Path) -> None:
    store_url, last = f"sqlite:///{tmp_path / 'retl.db'}", 25
    with Store.open(store_url) as store, State.open(place) as state, ThreadPoolExecutor(2) as pool:
        replace_snapshot(store, state, 0)
        threads = [pool.submit(read_until, store_url, place, last) for _ in range(2)]
        command = [sys.executable, str(HERE / "read_generations.py"), store_url, place, str(last)]
        environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(1, last + 1):
            replace_snapshot(store, state, number)
        output, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors.decode()
        told = [*(thread.result(timeout=120) for thread in threads), json.loads(output)]
    for reader in told:
        numbers = reader["numbers"]
        assert numbers == sorted(numbers)
        assert numbers[-1] == last
