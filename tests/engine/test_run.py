"""Runs from end to end: a DuckDB warehouse, a real store, a loopback service that enforces its rules."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from dagster_retl.errors import ConfigurationError, DestinationError, GuardTrippedError, RetlError, StateMissingError
from dagster_retl.model.runs import AccountChange, Guard, RunOptions, RunStatus
from dagster_retl.testing.fake_http import Rules
from dagster_retl.testing.server import Trouble


def no_bad(record: Any) -> str | None:
    return "that is a bad name" if str(record.get("name", "")).startswith("bad") else None


@pytest.fixture
def upsert(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, Rules(refuse=no_bad)) as made:
        yield made


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, Rules(refuse=no_bad), sync_mode="mirror") as made:
        yield made


def balanced(made: World) -> None:
    for run in made.service.runs(limit=200):
        assert run.counters.balanced(), run


def test_first_run_sends_all_and_the_second_nothing(upsert: World) -> None:
    upsert.put(*[(n, f"n{n}", Decimal("1.50") * n) for n in range(25)])
    first = upsert.run().run
    assert (first.status, first.counters.read, first.counters.written) == (RunStatus.SUCCEEDED, 25, 25)
    assert upsert.records["3"] == {"id": 3, "name": "n3", "score": Decimal("4.50")}
    requests = len(upsert.http.requests)
    second = upsert.run().run
    assert (second.counters.unchanged, second.counters.written) == (25, 0)
    assert len(upsert.http.requests) == requests
    balanced(upsert)


def test_only_what_changed_is_sent(upsert: World) -> None:
    upsert.put((1, "a", 1), (2, "b", 2), (3, "c", 3))
    upsert.run()
    upsert.put((2, "B", 2), (4, "d", 4))
    upsert.sql("DELETE FROM t WHERE id = 3")
    before = upsert.writes()
    counters = upsert.run().run.counters
    assert (counters.read, counters.written, counters.unchanged, counters.removed) == (3, 2, 1, 0)
    assert sorted(change.key for change in upsert.http.applied[before:]) == ["2", "4"]
    assert "3" in upsert.records


def test_a_key_that_left_and_came_back_is_not_sent_again(upsert: World) -> None:
    upsert.put((1, "a", 1), (2, "b", 2))
    upsert.run()
    upsert.sql("DELETE FROM t WHERE id = 2")
    upsert.run()
    upsert.put((2, "b", 2))
    assert upsert.run().run.counters.unchanged == 2


def test_mirror_deletes_what_left_the_query(mirror: World) -> None:
    mirror.put(*[(n, f"n{n}", n) for n in range(5)])
    mirror.run()
    mirror.sql("DELETE FROM t WHERE id IN (1, 2)")
    counters = mirror.run().run.counters
    assert (counters.removed, counters.deleted, counters.unchanged) == (2, 2, 3)
    assert sorted(mirror.records) == ["0", "3", "4"]
    balanced(mirror)


def test_refused_rows_become_dead_letters_and_the_others_arrive(upsert: World) -> None:
    upsert.put((1, "good", 1), (2, "bad one", 2), (3, "fine", 3))
    report = upsert.run()
    assert report.run.status is RunStatus.SUCCEEDED
    assert (report.run.counters.written, report.run.counters.failed, report.run.counters.dead_letters_opened) == (
        2,
        1,
        1,
    )
    (letter,) = upsert.service.dead_letters()
    assert (letter.error_code, letter.vendor_code, letter.record_keys) == (
        "DESTINATION_VALIDATION",
        "INVALID",
        {"id": 2},
    )
    assert "bad name" in letter.message
    assert letter.attempts == 1


def test_a_dead_letter_is_tried_again_and_closes_when_its_row_is_accepted(upsert: World) -> None:
    upsert.put((1, "good", 1), (2, "bad one", 2))
    upsert.run()
    upsert.run()
    (letter,) = upsert.service.dead_letters()
    assert letter.attempts == 2
    upsert.put((2, "mended", 2))
    counters = upsert.run().run.counters
    assert (counters.written, counters.dead_letters_resolved) == (1, 1)
    assert upsert.service.dead_letters() == []
    assert upsert.names()["2"] == "mended"


def test_after_max_attempts_a_row_is_skipped_until_it_changes(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=no_bad), max_attempts=2) as made:
        made.put((1, "bad", 1), (2, "good", 2))
        for _ in range(2):
            assert made.run().run.counters.failed == 1
        requests = len(made.http.requests)
        assert made.run().run.counters.skipped == 1
        assert len(made.http.requests) == requests
        assert len(made.service.dead_letters()) == 1
        made.put((1, "bad again", 1))
        assert made.run().run.counters.failed == 1
        balanced(made)


def test_null_and_duplicate_keys_fail_and_resolve(upsert: World) -> None:
    upsert.sql("INSERT INTO t VALUES (NULL, 'x', 1), (NULL, 'y', 1), (7, 'p', 1), (7, 'q', 2), (8, 'ok', 1)")
    counters = upsert.run().run.counters
    assert (counters.read, counters.written, counters.failed) == (5, 1, 4)
    letters = {letter.error_code: letter for letter in upsert.service.dead_letters()}
    assert (letters["MISSING_KEY"].rows, letters["DUPLICATE_SOURCE_KEY"].rows) == (2, 2)
    assert letters["MISSING_KEY"].record_keys == {}
    upsert.sql("DELETE FROM t WHERE id IS NULL OR name = 'q'")
    upsert.run()
    assert upsert.service.dead_letters() == []


def test_a_row_whose_expression_fails_is_a_failed_row(tmp_path: Path) -> None:
    mappings = [
        {"source": "id", "destination": "id", "key": True},
        {"source": "name::INTEGER", "destination": "number"},
    ]
    with world(tmp_path, field_mappings=mappings) as made:
        made.put((1, "12", 1), (2, "twelve", 2))
        counters = made.run().run.counters
        assert (counters.written, counters.failed) == (1, 1)
        (letter,) = made.service.dead_letters()
        assert (letter.error_code, letter.record_keys) == ("MAPPING_ERROR", {"id": 2})
        assert "number" in letter.message
        assert "twelve" not in letter.message


def test_present_though_failed_in_mirror(mirror: World) -> None:
    mirror.put((1, "a", 1), (2, "b", 2), (3, "c", 3))
    mirror.run()
    mirror.put((2, "bad now", 2))
    mirror.run()
    assert mirror.names() == {"1": "a", "2": "b", "3": "c"}


def test_insert_sends_each_key_once(tmp_path: Path) -> None:
    operations = {"POST": "insert"}
    with world(tmp_path, Rules(operations=operations), sync_mode="insert") as made:
        made.put((1, "a", 1))
        made.run()
        made.put((1, "edited", 1), (2, "b", 2))
        counters = made.run().run.counters
        assert (counters.written, counters.skipped) == (1, 1)
        assert made.names() == {"1": "a", "2": "b"}
        balanced(made)


def test_rows_without_a_key_are_all_inserted_once(tmp_path: Path) -> None:
    mappings = [{"source": "id", "destination": "id"}, {"source": "name", "destination": "name"}]
    with world(tmp_path, Rules(operations={"POST": "upsert"}), sync_mode="insert", field_mappings=mappings) as made:
        made.sql("INSERT INTO t VALUES (1, 'same', 1), (1, 'same', 1), (2, 'other', 1)")
        assert made.run().run.counters.written == 3
        made.sql("INSERT INTO t VALUES (1, 'same', 1)")
        counters = made.run().run.counters
        assert (counters.written, counters.unchanged) == (1, 3)


@pytest.mark.parametrize(("on_missing", "failed", "skipped"), [("skip", 0, 1), ("fail", 1, 0)])
def test_update_never_creates(tmp_path: Path, on_missing: str, failed: int, skipped: int) -> None:
    rules = Rules(operations={"PATCH": "update"})
    config = {"method": "PATCH", "body": "object", "results": None, "batch_rows": None}
    with world(tmp_path, rules, sync_mode="update", on_missing=on_missing, config=config) as made:
        made.http.records["things"] = {"1": {"id": 1, "name": "old"}}
        made.put((1, "new", 1), (2, "absent", 2))
        counters = made.run().run.counters
        assert (counters.written, counters.failed, counters.skipped) == (1, failed, skipped)
        assert made.names() == {"1": "new"}
        assert len(made.service.dead_letters()) == failed
        balanced(made)


def test_delete_mode_deletes_the_rows_of_the_query_once(tmp_path: Path) -> None:
    with world(tmp_path, sync_mode="delete") as made:
        made.http.records["things"] = {str(n): {"id": n, "name": "x"} for n in range(4)}
        made.put((1, "a", 1), (2, "b", 2), (9, "never there", 9))
        counters = made.run().run.counters
        assert counters.written == 3
        assert sorted(made.records) == ["0", "3"]
        assert made.run().run.counters.unchanged == 3
        made.sql("DELETE FROM t")
        made.run()
        made.put((1, "a", 1))
        assert made.run().run.counters.written == 1


def test_full_refresh_sends_everything_again(upsert: World) -> None:
    upsert.put((1, "a", 1), (2, "b", 2))
    upsert.run()
    upsert.http.records.clear()
    counters = upsert.run(full_refresh=True).run.counters
    assert counters.written == 2
    assert upsert.run().run.counters.unchanged == 2


def test_a_limit_cuts_what_is_sent(upsert: World) -> None:
    upsert.put(*[(n, f"n{n}", n) for n in range(8)])
    counters = upsert.run(limit=3).run.counters
    assert (counters.read, counters.written, counters.skipped) == (8, 3, 5)
    assert upsert.run().run.counters.written == 5


def test_a_run_by_key_sends_that_key(upsert: World) -> None:
    upsert.put((1, "a", 1), (2, "b", 2))
    counters = upsert.run(keys=({"id": "2"},)).run.counters
    assert (counters.read, counters.written) == (1, 1)
    assert upsert.names() == {"2": "b"}


def test_dry_run_writes_nothing(mirror: World) -> None:
    mirror.put((1, "a", 1), (2, "b", 2))
    report = mirror.run(dry_run=True)
    assert (report.plan.totals.added, mirror.writes()) == (2, 0)
    sample = report.plan.samples[0]
    assert (sample.change, sample.record_keys, sample.values["name"]) == ("create", {"id": 1}, "a")
    assert mirror.service.store.snapshots.pointer(mirror.project.syncs[0].id) is None


def test_a_replay_writes_what_is_true_now(upsert: World) -> None:
    upsert.put((1, "bad", 1), (2, "bad too", 2))
    upsert.run()
    letters = {letter.record_keys["id"]: letter.id for letter in upsert.service.dead_letters()}
    upsert.put((1, "mended", 1))
    [(_, options)] = upsert.service.replays([letters[1]])
    counters = upsert.service.run("things", options).run.counters
    assert (counters.read, counters.written) == (1, 1)
    assert upsert.names() == {"1": "mended"}
    assert [letter.record_keys for letter in upsert.service.dead_letters()] == [{"id": 2}]


def test_a_replay_of_a_key_that_left_says_so_and_sends_nothing(upsert: World) -> None:
    upsert.put((1, "bad", 1))
    upsert.run()
    (letter,) = upsert.service.dead_letters()
    upsert.sql("DELETE FROM t")
    requests = len(upsert.http.requests)
    [(_, options)] = upsert.service.replays([letter.id])
    upsert.service.run("things", options)
    assert len(upsert.http.requests) == requests
    assert upsert.service.dead_letter(letter.id).resolution == "source_row_missing"


def test_a_skipped_version_is_silent_until_it_changes(upsert: World) -> None:
    upsert.put((1, "bad", 1))
    upsert.run()
    upsert.service.resolve([letter.id for letter in upsert.service.dead_letters()], "skipped", actor="test")
    counters = upsert.run().run.counters
    assert (counters.skipped, counters.failed) == (1, 0)
    upsert.put((1, "good", 1))
    assert upsert.run().run.counters.written == 1


def test_a_manual_push_is_taken_as_accepted(upsert: World) -> None:
    upsert.put((1, "bad", 1))
    upsert.run()
    upsert.service.resolve([letter.id for letter in upsert.service.dead_letters()], "manual_push", actor="test")
    assert upsert.run().run.counters.unchanged == 1


def test_unmapped_columns_never_cause_a_write(upsert: World) -> None:
    upsert.put((1, "a", 1))
    upsert.run()
    wider = upsert.with_sync(source_query="SELECT id, name, score, now() AS seen FROM t")
    with wider.service:
        assert wider.run().run.counters.unchanged == 1


def test_a_changed_object_starts_a_new_epoch(upsert: World) -> None:
    upsert.put((1, "bad", 1), (2, "b", 2))
    upsert.run()
    moved = upsert.with_sync(object_name="others")
    with moved.service:
        assert moved.run().run.counters.written == 1
        assert {letter.resolution for letter in moved.service.dead_letters(resolved=True)} == {"config_changed"}
        assert len(moved.service.dead_letters()) == 1


def repoint(made: World) -> None:
    """The same service under another name, which is another account."""
    other = made.http.url.replace("127.0.0.1", "localhost")
    destination = made.project.destinations["http_service"]
    config = {**destination.config, "url": f"{other}/v1/{{object}}"}
    moved = {"http_service": destination.model_copy(update={"config": config})}
    made.service.project = made.project.model_copy(update={"destinations": moved})


class TestGuards:
    def test_too_many_deletes(self, mirror: World) -> None:
        mirror.put(*[(n, f"n{n}", n) for n in range(100)])
        mirror.run()
        mirror.sql("DELETE FROM t WHERE id < 20")
        with pytest.raises(GuardTrippedError, match="20 of 100 records would be deleted"):
            mirror.run()
        run = mirror.service.runs()[0]
        assert (run.status, run.error_code, run.guard) == (RunStatus.FAILED, "GUARD_TRIPPED", "deletes")
        assert len(mirror.records) == 100
        run = mirror.run(overrides=frozenset({Guard.DELETES})).run
        assert run.counters.deleted == 20
        assert any("`deletes` was overridden: 20 of 100 records" in warning for warning in run.warnings)

    def test_an_empty_source(self, mirror: World) -> None:
        mirror.put((1, "a", 1))
        mirror.run()
        mirror.sql("DELETE FROM t")
        with pytest.raises(GuardTrippedError):
            mirror.run()
        assert mirror.records
        mirror.run(overrides=frozenset({Guard.DELETES, Guard.SHRINK}))
        assert not mirror.records

    def test_a_field_that_the_destination_does_not_have(self, tmp_path: Path) -> None:
        with world(tmp_path, config={"fields": ["id", "nome", "score"]}) as made:
            made.put((1, "a", 1))
            with pytest.raises(GuardTrippedError, match=r"no field 'name' \(did you mean 'nome'\?\)"):
                made.run()
            assert made.writes() == 0

    def test_every_row_refused_stops_the_run(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=lambda record: "no such field"), config={"concurrency": 2}) as made:
            made.sql("INSERT INTO t SELECT n, 'x', 1 FROM range(1000) r(n)")
            with pytest.raises(GuardTrippedError, match="were all refused"):
                made.run()
            run = made.service.runs()[0]
            assert run.guard == "failures"
            assert 100 <= run.counters.failed < 300
            balanced(made)
            run = made.run(overrides=frozenset({Guard.FAILURES})).run
            assert run.counters.failed == 1_000
            assert any("`failures` was overridden: the first 1" in warning for warning in run.warnings)

    def test_another_account(self, upsert: World, tmp_path: Path) -> None:
        upsert.put((1, "a", 1))
        upsert.run()
        repoint(upsert)
        with pytest.raises(GuardTrippedError, match="now reaches account") as caught:
            upsert.run()
        assert "--reset" in str(caught.value)
        run = upsert.run(account_change=AccountChange.KEEP_SNAPSHOT).run
        assert run.counters.unchanged == 1
        assert any("the snapshot was kept" in warning for warning in run.warnings)

    def test_another_account_whatever_it_is(self, upsert: World) -> None:
        upsert.put((1, "a", 1))
        upsert.run()
        repoint(upsert)
        run = upsert.run(overrides=frozenset({Guard.ACCOUNT})).run
        assert run.counters.written == 1
        assert any("`account` was overridden" in warning for warning in run.warnings)


def test_refused_credentials_end_the_run_without_dead_letters(tmp_path: Path) -> None:
    with world(tmp_path, Rules(token="right"), config={"auth": {"type": "bearer", "token": "wrong-token"}}) as made:
        made.put(*[(n, "x", n) for n in range(30)])
        with pytest.raises(DestinationError, match="token"):
            made.run()
        run = made.service.runs()[0]
        assert (run.error_code, run.counters.skipped, run.counters.failed) == ("AUTH", 30, 0)
        assert made.service.dead_letters() == []
        balanced(made)


def test_a_poisoned_batch_is_bisected(tmp_path: Path) -> None:
    rules = Rules(refuse=no_bad, refusals="whole")
    with world(tmp_path, rules, config={"batch_rows": 50}) as made:
        made.put(*[(n, "bad" if n in (3, 41) else f"n{n}", n) for n in range(50)])
        counters = made.run().run.counters
        assert (counters.written, counters.failed) == (48, 2)
        assert all(count == 1 for count in made.http.applications().values())


@pytest.mark.parametrize("status", [500, 503])
def test_a_passing_outage_loses_nothing(upsert: World, status: int) -> None:
    upsert.http.disturb(Trouble(status=status), times=2)
    upsert.put(*[(n, f"n{n}", n) for n in range(30)])
    counters = upsert.run().run.counters
    assert (counters.written, counters.retries) == (30, 2)


def test_rate_limit_waits_are_not_attempts(upsert: World) -> None:
    upsert.http.disturb(Trouble(status=429, headers={"Retry-After": "0.05"}), times=8)
    upsert.put((1, "a", 1))
    counters = upsert.run().run.counters
    assert (counters.written, counters.retries) == (1, 0)


def test_missing_state_is_an_error_not_an_empty_snapshot(upsert: World) -> None:
    upsert.put((1, "a", 1))
    upsert.run()
    for file in (upsert.service.state.folder / upsert.project.syncs[0].id).glob("g-*"):
        file.unlink()
    writes = upsert.writes()
    with pytest.raises(StateMissingError, match="--reset"):
        upsert.run()
    assert upsert.writes() == writes
    assert upsert.run(account_change=AccountChange.RESET).run.counters.written == 1
    assert upsert.run().run.counters.unchanged == 1


def test_a_query_that_fails_writes_nothing(upsert: World) -> None:
    broken = upsert.with_sync(source_query="SELECT id, nam, score FROM t")
    with broken.service, pytest.raises(RetlError) as caught:
        broken.run()
    assert caught.value.code in ("SOURCE_QUERY", "SOURCE_COLUMN_MISSING")
    run = upsert.service.runs()[0]
    assert (run.status, run.counters.read) == (RunStatus.FAILED, 0)


def test_an_unsupported_mode_is_refused(tmp_path: Path) -> None:
    with world(tmp_path, config={"delete": None}, sync_mode="mirror") as made, pytest.raises(ConfigurationError):
        made.run()


@pytest.mark.parametrize("mode", ["upsert", "insert"])
def test_fields_may_have_the_names_of_our_own_columns(tmp_path: Path, mode: str) -> None:
    names = ["key", "n", "record_keys", "fingerprint", "error_field", "error", "unsendable", "document", "content"]
    mappings: list[dict[str, Any]] = [{"source": "id", "destination": "id", "key": mode == "upsert"}]
    mappings += [{"source": f"name || '-{name}'", "destination": name} for name in names]
    with world(tmp_path, field_mappings=mappings, sync_mode=mode) as made:
        made.put((1, "a", 1), (2, "b", 2))
        assert made.run().run.counters.written == 2
        assert made.records["2"] == {"id": 2} | {name: f"b-{name}" for name in names}
        sample = made.service.plan("things", RunOptions(full_refresh=True)).samples[0]
        assert sample.values == {"id": 1} | {name: f"a-{name}" for name in names}


def test_a_full_refresh_of_keyless_inserts_sends_all_again(tmp_path: Path) -> None:
    mappings = [{"source": "id", "destination": "id"}]
    with world(tmp_path, sync_mode="insert", field_mappings=mappings) as made:
        made.put((1, "a", 1))
        made.run()
        assert made.run(full_refresh=True).run.counters.written == 1
