"""Runs of one partition at a time: tenants, and windows of time (PROTOCOL 20)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from capricious import Capricious, Fate
from hypothesis import given, settings
from hypothesis import strategies as st
from nursery import Nursery
from worlds import World, project_of, world

from dagster_retl.engine.phase import Phase
from dagster_retl.engine.run import Report
from dagster_retl.errors import CancelledError, ConfigurationError, GuardTrippedError, LeaseHeldError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import Guard, RunOptions
from dagster_retl.service import Service
from dagster_retl.testing import Rules

CONFIG = {"concurrency": 1}
TENANTS: dict[str, Any] = {
    "source_query": "SELECT id, name, score FROM t WHERE tenant = :partition ORDER BY id",
    "partitions": ["eu", "us"],
    "sync_mode": "mirror",
    "guards": {"deletes": "100%", "shrink": "100%"},
}
DAYS: dict[str, Any] = {
    "source_query": "SELECT id, name, score FROM t WHERE changed >= :partition_start AND changed < :partition_end",
    "partitions": {"type": "daily", "start": date(2026, 1, 1)},
}


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad" if str(record["name"]).startswith("bad") else None


@contextmanager
def parted_world(folder: Path, *, column: str = "tenant VARCHAR", **sync: Any) -> Iterator[World]:
    with Capricious(Rules(refuse=refuse_bad)) as http:
        project = project_of(folder, http.url, config=CONFIG, **sync)
        with Service(project) as service:
            made = World(project, service, http, folder / "warehouse.duckdb")
            made.sql(f"CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2), {column})")
            yield made


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[World]:
    with parted_world(tmp_path, **TENANTS) as made:
        yield made


@pytest.fixture
def days(tmp_path: Path) -> Iterator[World]:
    with parted_world(tmp_path, column="changed TIMESTAMP", **DAYS) as made:
        yield made


def put(made: World, *rows: tuple[int, str, str]) -> None:
    """Rows as (id, name, where it belongs), instead of those with the same id."""
    for key, name, where in rows:
        made.sql("DELETE FROM t WHERE id = ?", [key])
        made.sql("INSERT INTO t VALUES (?, ?, 1.5, ?)", [key, name, where])


def run(made: World, key: str, **options: Any) -> Report:
    partition = made.service.partition("things", key)
    return made.service.run("things", RunOptions(partition=partition, **options))


def killed(made: World, nursery: Nursery, fate: Fate, *, sync: Mapping[str, Any] = TENANTS, **options: Any) -> None:
    """A run in a process of its own that dies with its first request under way."""
    assert isinstance(made.http, Capricious)
    made.http.expect([fate])
    made.http.meet(nursery.begin(made.project.base, made.http.url, config=CONFIG, sync=plain(sync), options=options))
    assert nursery.end().killed
    made.http.calm()


def plain(sync: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(sync, default=str))


def counts(report: Report) -> tuple[int, ...]:
    """read, written, failed, unchanged, skipped, deleted"""
    found = report.run.counters
    assert found.balanced()
    return (found.read, found.written, found.failed, found.unchanged, found.skipped, found.deleted)


def test_a_run_removes_only_what_its_partition_held(tenants: World) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "eu"), (3, "c", "us"))
    assert counts(run(tenants, "eu")) == (2, 2, 0, 0, 0, 0)
    assert counts(run(tenants, "us")) == (1, 1, 0, 0, 0, 0)
    tenants.sql("DELETE FROM t WHERE id IN (2, 3)")
    assert counts(run(tenants, "eu", overrides=frozenset({Guard.DELETES}))) == (1, 0, 0, 1, 0, 1)
    assert tenants.names() == {"1": "a", "3": "c"}
    assert counts(run(tenants, "us", overrides=frozenset({Guard.DELETES, Guard.SHRINK}))) == (0, 0, 0, 0, 0, 1)
    assert tenants.names() == {"1": "a"}


def test_a_key_that_is_found_elsewhere_moves_there(tenants: World) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "us"))
    run(tenants, "eu")
    run(tenants, "us")
    put(tenants, (1, "a", "us"))
    assert counts(run(tenants, "us")) == (2, 0, 0, 2, 0, 0)
    assert counts(run(tenants, "eu", overrides=frozenset({Guard.SHRINK}))) == (0, 0, 0, 0, 0, 0)
    assert tenants.names() == {"1": "a", "2": "b"}


@pytest.mark.parametrize("name", ["bad", "changed"])
def test_it_moves_whatever_becomes_of_its_row(tenants: World, name: str) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "us"), (3, "c", "eu"))
    run(tenants, "eu")
    run(tenants, "us")
    put(tenants, (1, name, "us"))
    run(tenants, "us")
    assert counts(run(tenants, "eu")) == (1, 0, 0, 1, 0, 0)
    assert tenants.names() == {"1": "a" if name == "bad" else name, "2": "b", "3": "c"}


def test_dead_letters_close_only_when_their_own_partition_lacks_them(tenants: World) -> None:
    put(tenants, (1, "bad", "eu"), (2, "b", "us"))
    run(tenants, "eu")
    run(tenants, "us")
    assert tenants.letters()[1].partition == "=eu"
    tenants.sql("DELETE FROM t WHERE id = 1")
    run(tenants, "us")
    assert set(tenants.letters()) == {1}
    run(tenants, "eu")
    assert tenants.letters() == {}


def test_rows_without_a_key_have_an_entry_in_each_partition(tenants: World) -> None:
    tenants.sql("INSERT INTO t VALUES (NULL, 'x', 1, 'eu'), (NULL, 'y', 1, 'us'), (NULL, 'z', 1, 'us')")
    run(tenants, "eu")
    run(tenants, "us")
    rows = sorted((letter.partition, letter.rows) for letter in tenants.service.dead_letters())
    assert rows == [("=eu", 1), ("=us", 2)]
    tenants.sql("DELETE FROM t WHERE tenant = 'us'")
    run(tenants, "us")
    assert [letter.partition for letter in tenants.service.dead_letters()] == ["=eu"]


def test_guards_look_at_the_partition_alone(tmp_path: Path) -> None:
    guarded = {**TENANTS, "guards": {"deletes": "10%", "shrink": "50%"}}
    with parted_world(tmp_path, **guarded) as made:
        put(made, *((n, "a", "eu") for n in range(5)), *((n, "b", "us") for n in range(100, 300)))
        run(made, "eu")
        run(made, "us")
        made.sql("DELETE FROM t WHERE id < 3")
        with pytest.raises(GuardTrippedError, match="gave 2 rows, 5 the last time"):
            run(made, "eu")
        made.sql("DELETE FROM t WHERE id < 5")
        with pytest.raises(GuardTrippedError, match="5 of 5 records would be deleted"):
            run(made, "eu")
        made.sql("DELETE FROM t WHERE id > 270")
        with pytest.raises(GuardTrippedError, match="29 of 200 records"):
            run(made, "us")


def test_a_full_refresh_sends_one_partition_and_is_finished_when_it_was_killed(
    tmp_path: Path, nursery: Nursery
) -> None:
    with parted_world(tmp_path, **TENANTS) as made:
        put(made, (1, "a", "eu"), (2, "b", "us"), (3, "c", "eu"))
        run(made, "eu")
        run(made, "us")
        put(made, (3, "c", "us"))
        killed(made, nursery, "kill", full_refresh=True, partition={"key": "us"})
        before = made.writes()
        assert counts(run(made, "eu")) == (1, 0, 0, 1, 0, 1)
        assert counts(run(made, "us"))[1] == 2  # 2, which was forgotten, and 3, which moved and was removed there
        assert counts(run(made, "us", full_refresh=True)) == (2, 2, 0, 0, 0, 0)
        assert made.writes() == before + 5
        assert counts(run(made, "eu")) == (1, 0, 0, 1, 0, 0)
        assert made.names() == {"1": "a", "2": "b", "3": "c"}


def test_a_full_refresh_sends_what_came_from_another_partition_too(tenants: World) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "us"))
    run(tenants, "eu")
    run(tenants, "us")
    put(tenants, (1, "a", "us"))
    assert counts(run(tenants, "us", full_refresh=True)) == (2, 2, 0, 0, 0, 0)


def test_a_key_of_a_later_window_is_skipped(days: World) -> None:
    put(days, (1, "old", "2026-01-01 10:00"), (2, "x", "2026-01-01 11:00"))
    run(days, "2026-01-01")
    put(days, (1, "new", "2026-01-02 10:00"))
    assert counts(run(days, "2026-01-02")) == (1, 1, 0, 0, 0, 0)
    days.sql("INSERT INTO t VALUES (1, 'old', 1.5, '2026-01-01 10:00')")
    assert counts(run(days, "2026-01-01")) == (2, 0, 0, 1, 1, 0)
    assert counts(run(days, "2026-01-01", full_refresh=True)) == (2, 1, 0, 0, 1, 0)
    assert days.names() == {"1": "new", "2": "x"}


def test_a_later_version_counts_though_it_failed(days: World) -> None:
    put(days, (1, "old", "2026-01-01 10:00"))
    run(days, "2026-01-01")
    days.sql("INSERT INTO t VALUES (1, 'bad', 1.5, '2026-01-02 10:00')")
    run(days, "2026-01-02")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    [letter] = days.letters().values()
    days.sql("UPDATE t SET name = 'older' WHERE name = 'old'")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    days.service.resolve([letter.id], "skipped", actor="me")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    days.sql("UPDATE t SET name = 'fixed' WHERE name = 'bad'")
    assert counts(run(days, "2026-01-02")) == (1, 1, 0, 0, 0, 0)
    assert days.names() == {"1": "fixed"}


def test_a_later_version_counts_though_none_was_ever_delivered(days: World) -> None:
    put(days, (1, "bad", "2026-01-02 10:00"))
    run(days, "2026-01-02")
    days.sql("INSERT INTO t VALUES (1, 'old', 1.5, '2026-01-01 10:00')")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    [letter] = days.letters().values()
    days.service.resolve([letter.id], "skipped", actor="me")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    assert counts(run(days, "2026-01-02")) == (1, 0, 0, 0, 1, 0)
    assert days.names() == {}


def test_a_later_version_counts_though_nobody_knows_whether_it_arrived(days: World, nursery: Nursery) -> None:
    put(days, (1, "new", "2026-01-02 10:00"))
    killed(days, nursery, "kill_applied", sync=DAYS, partition={"key": "2026-01-02", **window(2)})
    days.sql("INSERT INTO t VALUES (1, 'old', 1.5, '2026-01-01 10:00')")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    assert days.names() == {"1": "new"}


def window(day: int) -> dict[str, str]:
    return {"start": f"2026-01-{day:02}T00:00:00Z", "end": f"2026-01-{day + 1:02}T00:00:00Z"}


def test_a_version_that_a_person_pushed_counts_as_of_its_window(days: World) -> None:
    put(days, (1, "bad", "2026-01-02 10:00"))
    run(days, "2026-01-02")
    [letter] = days.letters().values()
    days.service.resolve([letter.id], "manual_push", actor="me")
    days.sql("INSERT INTO t VALUES (1, 'old', 1.5, '2026-01-01 10:00')")
    assert counts(run(days, "2026-01-01")) == (1, 0, 0, 0, 1, 0)
    assert counts(run(days, "2026-01-02")) == (1, 0, 0, 1, 0, 0)
    assert days.writes() == 0


def test_windows_of_another_length_take_over(days: World) -> None:
    put(days, (1, "a", "2026-01-01 10:00"), (2, "b", "2026-01-20 10:00"))
    run(days, "2026-01-01")
    run(days, "2026-01-20")
    monthly = days.with_sync(partitions={"type": "monthly", "start": date(2026, 1, 1)}, sync_mode="mirror")
    put(days, (1, "a2", "2026-01-05 10:00"))
    assert counts(run(monthly, "2026-01-01")) == (2, 1, 0, 1, 0, 0)
    daily = days.with_sync(sync_mode="mirror")
    assert counts(run(daily, "2026-01-01")) == (0, 0, 0, 0, 0, 0)
    assert days.names() == {"1": "a2", "2": "b"}


def test_equal_rows_without_a_key_are_sent_in_each_partition(tmp_path: Path) -> None:
    keyless = {
        **TENANTS,
        "sync_mode": "insert",
        "field_mappings": [{"source": "name", "destination": "id"}],
    }
    with world(tmp_path, Rules(), **keyless) as made:
        made.sql("ALTER TABLE t ADD COLUMN tenant VARCHAR")
        made.sql("INSERT INTO t VALUES (1, 'x', 1, 'eu'), (2, 'x', 1, 'eu'), (3, 'x', 1, 'us')")
        assert counts(run(made, "eu"))[1] == 2
        assert counts(run(made, "us"))[1] == 1
        assert counts(run(made, "us"))[1] == 0
        assert made.writes() == 3


def test_replays_and_keys_stay_in_their_partition(tenants: World) -> None:
    put(tenants, (1, "bad", "eu"), (2, "b", "us"), (3, "c", "eu"))
    run(tenants, "eu")
    run(tenants, "us")
    [letter] = tenants.letters().values()
    put(tenants, (1, "good", "eu"))
    [(_, options)] = tenants.service.replays([letter.id])
    assert options.partition == Partition("eu")
    assert counts(tenants.service.run("things", options)) == (1, 1, 0, 0, 0, 0)
    assert counts(run(tenants, "us", keys=({"id": 3},))) == (0, 0, 0, 0, 0, 0)
    assert tenants.names() == {"1": "good", "2": "b", "3": "c"}
    assert tenants.letters() == {}


def test_replays_of_two_partitions_are_two_runs(tenants: World) -> None:
    put(tenants, (1, "bad", "eu"), (2, "bad", "us"))
    run(tenants, "eu")
    run(tenants, "us")
    ids = [letter.id for letter in tenants.letters().values()]
    replays = tenants.service.replays(ids)
    assert {options.partition: len(options.replay) for _, options in replays} == {
        Partition("eu"): 1,
        Partition("us"): 1,
    }


def test_a_suspect_is_removed_by_its_own_partition_only(tenants: World, nursery: Nursery) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "us"))
    run(tenants, "us")
    killed(tenants, nursery, "kill_applied", partition={"key": "eu"})
    put(tenants, (1, "a", "nowhere"))
    assert counts(run(tenants, "us")) == (1, 0, 0, 1, 0, 0)
    assert tenants.names() == {"1": "a", "2": "b"}
    assert counts(run(tenants, "eu")) == (0, 0, 0, 0, 0, 1)
    assert tenants.names() == {"2": "b"}


def test_a_delete_sync_forgets_only_what_left_its_partition(tmp_path: Path) -> None:
    with parted_world(tmp_path, **{**TENANTS, "sync_mode": "delete"}) as made:
        put(made, (1, "a", "eu"), (2, "b", "us"))
        assert counts(run(made, "eu"))[1] == 1
        assert counts(run(made, "us"))[1] == 1
        assert counts(run(made, "eu")) == (1, 0, 0, 1, 0, 0)
        made.sql("DELETE FROM t WHERE id = 1")
        run(made, "eu")
        put(made, (1, "a", "eu"))
        assert counts(run(made, "eu"))[1] == 1


def test_a_baseline_of_one_partition(tenants: World) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "us"))
    assert counts(run(tenants, "eu", baseline=True)) == (1, 0, 0, 1, 0, 0)
    assert counts(run(tenants, "us")) == (1, 1, 0, 0, 0, 0)
    assert tenants.names() == {"2": "b"}


def test_what_is_missing_is_said(tenants: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing says which one") as caught:
        tenants.run()
    assert "such as eu" in str(caught.value.hint)
    with pytest.raises(ConfigurationError, match="no partition 'eur'"):
        run(tenants, "eur")
    plain = tenants.with_sync(partitions=None)
    with pytest.raises(ConfigurationError, match="the sync has no partitions"):
        plain.run()
    silent = tenants.with_sync(source_query="SELECT id, name, score FROM t")
    with pytest.raises(ConfigurationError, match="says nothing of the partition"):
        silent.service.validate(silent.project.syncs[0])
    edges = tenants.with_sync(source_query="SELECT id, name, score FROM t WHERE changed > :partition_start")
    with pytest.raises(ConfigurationError, match="edge of a window"):
        run(edges, "eu")


def test_partitions_wait_for_one_another_and_not_for_themselves(tenants: World) -> None:
    put(tenants, (1, "a", "eu"), (2, "b", "us"))
    other = tenants.service.queue("things", RunOptions(partition=Partition("eu")))
    lease = tenants.service.store.leases.acquire(tenants.project.syncs[0].id, other.id)
    with pytest.raises(LeaseHeldError):
        run(tenants, "eu")
    entered: list[Phase] = []

    def seen(phase: Phase, counters: object) -> None:
        entered.append(phase)
        if phase is Phase.WAIT:
            with tenants.service.store.begin() as conn:
                tenants.service.store.leases.release(lease, conn)

    options = RunOptions(partition=Partition("us"))
    assert counts(tenants.service.run("things", options, on_phase=seen))[1] == 1
    assert entered[:2] == [Phase.WAIT, Phase.RECOVER]


def test_a_run_that_waits_can_be_stopped(tenants: World) -> None:
    other = tenants.service.queue("things", RunOptions(partition=Partition("eu")))
    tenants.service.store.leases.acquire(tenants.project.syncs[0].id, other.id)
    stop = threading.Event()
    with pytest.raises(CancelledError):
        tenants.service.run(
            "things", RunOptions(partition=Partition("us")), stop=stop, on_phase=lambda phase, counters: stop.set()
        )
    assert tenants.service.runs("things")[0].status.value == "cancelled"


PLACES = ("eu", "us", "asia")
_CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 4), st.sampled_from(["a", "b", "bad"]), st.sampled_from(PLACES)),
        st.tuples(st.just("drop"), st.integers(1, 4)),
        st.tuples(st.just("run"), st.sampled_from(PLACES), st.booleans()),
    ),
    max_size=14,
)


def test_whatever_happened_one_run_of_each_partition_makes_it_right(tmp_path_factory: pytest.TempPathFactory) -> None:
    whatever_happens(tmp_path_factory, examples=6)


@pytest.mark.long
def test_whatever_happened_often(tmp_path_factory: pytest.TempPathFactory) -> None:
    whatever_happens(tmp_path_factory, examples=100)


def whatever_happens(tmp_path_factory: pytest.TempPathFactory, *, examples: int) -> None:
    """Random stories, that hypothesis tells."""

    @settings(max_examples=examples, deadline=None, database=None)
    @given(_CHANGES)
    def story(changes: list[tuple[Any, ...]]) -> None:
        tell(tmp_path_factory.mktemp("parts"), changes)

    story()


def tell(folder: Path, changes: list[tuple[Any, ...]]) -> None:
    everything = frozenset({Guard.DELETES, Guard.SHRINK, Guard.FAILURES})
    sync = {**TENANTS, "partitions": list(PLACES)}
    with parted_world(folder, **sync) as made:
        for change in changes:
            match change:
                case ("put", key, name, where):
                    put(made, (key, name, where))
                case ("drop", key):
                    made.sql("DELETE FROM t WHERE id = ?", [key])
                case ("run", where, fresh):
                    counts(run(made, where, overrides=everything, full_refresh=fresh))
        for where in (*PLACES, *PLACES):  # what moved is removed from one before the other adds it again
            counts(run(made, where, overrides=everything))
        rows = made.query("SELECT id, name FROM t")
        good = {str(key): name for key, name in rows if name != "bad"}
        found = made.names()
        assert {key: name for key, name in found.items() if key in good} == good
        assert set(made.letters()) == {key for key, name in rows if name == "bad"}
        assert set(found) - set(good) <= {str(key) for key, name in rows if name == "bad"}
