"""Baselines: what the query gives counts as delivered, and nothing is sent."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest
from capricious import Capricious
from nursery import Nursery
from test_protocol import APPLIED, land, late_world, letters, refuse_bad, renamed_account, rest, script, store
from test_watermark import mark, moving_world, put
from worlds import World, world

from dagster_retl.errors import CancelledError, ConfigurationError, GuardTrippedError
from dagster_retl.model.runs import AccountChange, RunOptions, RunStatus
from dagster_retl.store.runs import options_to_json
from dagster_retl.testing.fake_http import Rules

KEYLESS = [{"source": "id", "destination": "id"}, {"source": "name", "destination": "name"}]


def snapshot(made: World) -> list[tuple[Any, ...]]:
    pointer = made.service.store.snapshots.pointer(made.project.syncs[0].id)
    if pointer is None or pointer.generation is None:
        return []
    path = made.service.state.local_path(pointer.generation, pointer.checksum or "")
    return duckdb.sql(f"SELECT key, record_keys, fingerprint FROM '{path}' ORDER BY key").fetchall()


def test_nothing_is_sent_and_the_next_run_has_nothing_to_do(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1), (2, "b", 1))
        counters = made.run(baseline=True).run.counters
        assert (counters.read, counters.unchanged, counters.written, counters.requests) == (2, 2, 0, 0)
        assert made.run().run.counters.unchanged == 2
        made.put((2, "B", 1), (3, "c", 1))
        assert made.run().run.counters.written == 2
        assert made.names() == {"2": "B", "3": "c"}
        assert [request.method for request in made.http.requests] == ["POST"]


@pytest.mark.parametrize(
    "sync",
    [
        {"sync_mode": "upsert"},
        {"sync_mode": "mirror"},
        {"sync_mode": "insert"},
        {"sync_mode": "insert", "field_mappings": KEYLESS},
        {"sync_mode": "update"},
        {"sync_mode": "delete"},
        {"change_detection": "none"},
    ],
    ids=["upsert", "mirror", "insert", "insert without key", "update", "delete", "none"],
)
def test_the_snapshot_is_that_of_a_run_that_delivered_everything(tmp_path: Path, sync: dict[str, Any]) -> None:
    found = []
    for baseline in (True, False):
        folder = tmp_path / str(baseline)
        folder.mkdir()
        with world(folder, **sync) as made:
            made.http.records["things"] = {"1": {"id": 1}, "2": {"id": 2}, "3": {"id": 3}}
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            if made.project.syncs[0].key_fields:
                made.run(keys=({"id": 3},))
                made.sql("INSERT INTO t VALUES (2, 'twin', 1), (NULL, 'lost', 1)")
            made.put((3, "C", 1))
            made.run(baseline=baseline)
            found.append((snapshot(made), sorted(letters(made), key=str)))
    assert found[0] == found[1]
    assert found[0][0]


def test_rows_that_fail_before_they_are_sent_have_dead_letters(tmp_path: Path) -> None:
    mappings = [
        {"source": "id", "destination": "id", "key": True},
        {"source": "CAST(name AS INTEGER)", "destination": "name"},
    ]
    with world(tmp_path, field_mappings=mappings) as made:
        made.put((1, "1", 1), (2, "two", 1))
        made.sql("INSERT INTO t VALUES (NULL, '3', 1), (4, '4', 1), (4, '4', 2)")
        counters = made.run(baseline=True).run.counters
        assert (counters.read, counters.unchanged, counters.failed) == (5, 1, 4)
        assert {key: letter.error_code for key, letter in letters(made).items()} == {
            2: "MAPPING_ERROR",
            4: "DUPLICATE_SOURCE_KEY",
            "MISSING_KEY": "MISSING_KEY",
        }


class TestDeadLetters:
    def test_those_of_rows_that_count_as_delivered_close(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), max_attempts=1) as made:
            made.put((1, "bad", 1), (2, "b", 1))
            made.run()
            letter = letters(made)[1]
            assert made.run().run.counters.skipped == 1
            counters = made.run(baseline=True).run.counters
            assert (counters.unchanged, counters.dead_letters_resolved) == (2, 1)
            assert made.service.dead_letter(letter.id).resolution == "baseline"
            assert made.run().run.counters.unchanged == 2

    def test_a_held_insert_is_still_for_people_to_decide(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.http.disturb(APPLIED)
            made.run()
            made.put((2, "b", 1))
            counters = made.run(baseline=True).run.counters
            assert (counters.unchanged, counters.skipped) == (1, 1)
            assert letters(made)[1].held

    def test_what_was_skipped_by_a_person_stays_so(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad)) as made:
            made.put((1, "bad", 1))
            made.run()
            made.service.resolve([letters(made)[1].id], "skipped", actor="me")
            assert made.run(baseline=True).run.counters.skipped == 1
            made.put((1, "good", 1))
            assert made.run().run.counters.written == 1


class TestSuspects:
    def test_what_may_still_arrive_is_still_overwritten(self, tmp_path: Path) -> None:
        with late_world(tmp_path) as made:
            made.put((1, "B", 1))
            script(made, *["late"] * 4)
            made.run()
            made.put((1, "A", 1))
            made.run(baseline=True)
            land(made)
            assert made.names() == {"1": "B"}
            made.run()
            assert made.names() == {"1": "A"}

    def test_what_can_arrive_no_more_is_settled(self, tmp_path: Path) -> None:
        """A person says that the destination is as the query is: that is after it landed."""
        with late_world(tmp_path) as made:
            made.put((1, "B", 1))
            script(made, *["late"] * 4)
            made.run()
            rest(made)
            made.put((1, "A", 1))
            made.run(baseline=True)
            assert store(made, "SELECT count(*) FROM suspects") == [(0,)]
            assert made.run().run.counters.unchanged == 1


class TestKills:
    @pytest.mark.parametrize("moment", range(8, 34, 2))
    def test_a_kill_costs_nothing(self, tmp_path: Path, nursery: Nursery, moment: int) -> None:
        """Either all of it happened or none: the snapshot, and the letters of rows that count as delivered."""
        with late_world(tmp_path, max_attempts=1) as made:
            made.put((1, "bad", 1), (2, "b", 1))
            made.run()
            before = snapshot(made)
            made.put((2, "B", 1), (3, "c", 1))
            assert isinstance(made.http, Capricious)
            sync = made.project.syncs[0].model_dump(exclude_unset=True, mode="json")
            options = options_to_json(RunOptions(baseline=True))
            made.http.meet(nursery.begin(tmp_path, made.http.url, sync=sync, options=options, die_at=moment))
            killed = nursery.end().killed
            taken = snapshot(made) != before
            assert killed or taken
            assert set(letters(made)) == (set() if taken else {1})
            made.http.rules = Rules()
            made.service.resolve([letter.id for letter in letters(made).values()], "again", actor="me")
            counters = made.run().run.counters
            assert (counters.written, counters.unchanged) == ((0, 3) if taken else (3, 0))
            assert all(run.counters.balanced() and run.status.ended for run in made.service.runs())

    def test_one_that_is_stopped_changes_nothing(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            stop = threading.Event()
            stop.set()
            with pytest.raises(CancelledError):
                made.service.run("things", RunOptions(baseline=True), stop=stop)
            (run,) = made.service.runs()
            assert (run.status, run.counters.skipped) == (RunStatus.CANCELLED, 1)
            assert made.run().run.counters.written == 1


class TestModes:
    def test_it_lets_an_insert_without_key_go_on_after_its_mapping_changed(self, tmp_path: Path) -> None:
        """PROTOCOL 21."""
        with world(tmp_path, sync_mode="insert", field_mappings=KEYLESS) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            wider = made.with_sync(field_mappings=[*KEYLESS, {"source": "score", "destination": "score"}])
            with wider.service:
                with pytest.raises(ConfigurationError, match="insert every row again") as caught:
                    wider.run()
                assert "`retl baseline things`" in str(caught.value.hint)
                assert wider.run(baseline=True).run.counters.unchanged == 2
                made.put((3, "c", 1))
                assert wider.run().run.counters.written == 1
            assert set(made.http.applications().values()) == {1}

    def test_in_delete_the_records_count_as_deleted(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="delete") as made:
            made.http.records["things"] = {"1": {"id": 1}}
            made.put((1, "a", 1))
            made.run(baseline=True)
            assert made.run().run.counters.unchanged == 1
            made.sql("DELETE FROM t")
            made.run()
            made.put((1, "a", 1))
            made.run()
            assert made.records == {}

    def test_in_mirror_removals_stay_due(self, tmp_path: Path) -> None:
        """Nobody said that the records are gone which the query does not name."""
        with world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            made.run()
            made.sql("DELETE FROM t WHERE id = 1")
            counters = made.run(baseline=True).run.counters
            assert (counters.removed, counters.deleted, counters.delete_skipped) == (1, 0, 1)
            assert made.run().run.counters.deleted == 1
            assert sorted(made.records) == ["2", "3"]

    def test_an_incomplete_source_stops_it(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            made.run()
            made.sql("DELETE FROM t WHERE id > 1")
            with pytest.raises(GuardTrippedError, match="shrink"):
                made.run(baseline=True)

    def test_another_account_that_has_the_rows_already(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            made.run()
            made.service.project = renamed_account(made)
            with pytest.raises(GuardTrippedError, match="now reaches account"):
                made.run(baseline=True)
            made.run(baseline=True, account_change=AccountChange.RESET)
            assert made.run().run.counters.unchanged == 1

    def test_it_ends_a_full_refresh_that_was_killed(self, tmp_path: Path) -> None:
        with late_world(tmp_path) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            store(made, "UPDATE snapshots SET stale = TRUE")
            made.run(baseline=True)
            assert made.run().run.counters.unchanged == 2


def test_a_watermark_goes_on_from_there(tmp_path: Path) -> None:
    with moving_world(tmp_path) as made:
        put(made, (1, "a", 10), (None, "lost", 20), (2, "b", 30))
        made.run(baseline=True)
        assert mark(made) == "20"
        made.sql("DELETE FROM t WHERE id IS NULL")
        made.run()
        put(made, (3, "c", 40))
        assert made.run().run.counters.written == 1
        assert made.names() == {"3": "c"}


def test_it_reads_below_the_watermark(tmp_path: Path) -> None:
    with moving_world(tmp_path) as made:
        put(made, (1, "a", 10), (2, "b", 20))
        made.run()
        assert made.run(baseline=True).run.counters.read == 2


def test_it_leaves_no_history_of_rows_that_were_sent(tmp_path: Path) -> None:
    with late_world(tmp_path) as made:
        made.put((1, "a", 1))
        made.run(baseline=True)
        assert store(made, "SELECT count(*) FROM row_history") == [(0,)]
        made.put((1, "b", 1))
        made.run()
        assert store(made, "SELECT count(*) FROM row_history") == [(1,)]


def test_a_dry_run_of_it_changes_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.run(baseline=True, dry_run=True)
        assert snapshot(made) == []


@pytest.mark.parametrize("more", [{"limit": 1}, {"keys": ({"id": 1},)}, {"full_refresh": True}, {"replay": ("x",)}])
def test_what_says_which_rows_to_send_cannot_go_with_it(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a baseline takes the whole result"):
        RunOptions(baseline=True, **more)
