"""Dead letters: what runs and people do to them, and what each of them sees."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dagster_retl.errors import ConfigurationError, ErrorCode, NotFoundError
from dagster_retl.model.runs import DeadLetter
from dagster_retl.store.clock import to_text
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.store import Store


def failure(key: str = "k", fingerprint: str | None = "f1", **changes: Any) -> Failure:
    values = {
        "key": key,
        "record_keys": f'{{"Id":"{key}"}}',
        "code": ErrorCode.DESTINATION_VALIDATION,
        "vendor_code": "BAD_EMAIL",
        "message": "not an e-mail address",
        "operation": "upsert",
        "fingerprint": fingerprint,
        "rejection": True,
    }
    return Failure(**(values | changes))


def fail(store: Store, *failures: Failure, run: str = "r1", epoch: str = "e", sync: str = "s") -> int:
    with store.begin() as conn:
        return store.dead_letters.fail(conn, sync, epoch, run, failures)


def close_keys(store: Store, *keys: str, reason: str = "accepted") -> int:
    with store.begin() as conn:
        return store.dead_letters.resolve_keys(conn, "s", "e", keys, reason)


def held(store: Store, *, settled: bool, key: str = "k") -> Failure:
    until = store.now() + timedelta(seconds=-1 if settled else 900)
    return failure(
        key,
        code=ErrorCode.UNKNOWN_OUTCOME,
        message="timed out",
        operation="insert",
        rejection=False,
        held=True,
        held_until=to_text(until),
    )


def only(store: Store, **filters: Any) -> DeadLetter:
    (entry,) = store.dead_letters.list(**filters)
    return entry


def planned(store: Store) -> dict[str, tuple[str | None, int, bool]]:
    rows = store.dead_letters.open_for_plan("s", "e").to_pylist()
    return {row["key"]: (row["fingerprint"], row["rejections"], row["held"]) for row in rows}


def silenced(store: Store) -> list[dict[str, Any]]:
    return list(store.dead_letters.silenced("s", "e").to_pylist())


def accepted(store: Store) -> list[tuple[str, str | None]]:
    return [(row["key"], row["fingerprint"]) for row in store.acceptances.table("s", "e").to_pylist()]


# What runs do


def test_a_first_failure_opens_an_entry(store: Store) -> None:
    assert fail(store, failure(rows=2)) == 1
    entry = only(store)
    assert entry.id.startswith("retl_dlq_")
    assert (entry.sync_id, entry.run_id, entry.error_code) == ("s", "r1", "DESTINATION_VALIDATION")
    assert (entry.record_keys, entry.vendor_code, entry.message) == ({"Id": "k"}, "BAD_EMAIL", "not an e-mail address")
    assert (entry.operation, entry.attempts, entry.rows) == ("upsert", 1, 2)
    assert entry.first_seen_at == entry.last_seen_at
    assert not entry.resolved
    assert store.dead_letters.get(entry.id) == entry


def test_failing_again_bumps_the_entry(store: Store) -> None:
    fail(store, failure(rows=2))
    first = only(store)
    again = failure(code=ErrorCode.CONFLICT, vendor_code=None, message="exists", operation="update")
    assert fail(store, again, run="r2") == 0
    entry = only(store)
    assert (entry.id, entry.first_seen_at, entry.attempts) == (first.id, first.first_seen_at, 2)
    assert entry.last_seen_at > first.last_seen_at
    assert (entry.run_id, entry.error_code, entry.message, entry.vendor_code) == ("r2", "CONFLICT", "exists", None)
    assert (entry.operation, entry.rows) == ("update", 1)


def test_rejections_count_one_version_and_outages_do_not_count(store: Store) -> None:
    outage: dict[str, Any] = {"code": ErrorCode.TIMEOUT, "rejection": False}
    steps = [
        (failure(), ("f1", 1, False)),
        (failure(), ("f1", 2, False)),
        (failure(**outage), ("f1", 2, False)),
        (failure(fingerprint="f2"), ("f2", 1, False)),
        (failure(fingerprint="f3", **outage), ("f3", 0, False)),
        (failure(fingerprint=None), (None, 1, False)),
        (failure(fingerprint=None), (None, 2, False)),
    ]
    for step, expected in steps:
        fail(store, step)
        assert planned(store) == {"k": expected}
    assert only(store).attempts == len(steps)


def test_a_key_that_fails_twice_in_one_call_is_one_entry(store: Store) -> None:
    assert fail(store, failure("a"), failure("b"), failure("a"), failure("a", message="last")) == 2
    assert {entry.record_keys["Id"]: (entry.attempts, entry.message) for entry in store.dead_letters.list()} == {
        "a": (3, "last"),
        "b": (1, "not an e-mail address"),
    }


def test_many_failures_in_one_call(store: Store) -> None:
    many = [failure(f"k{number}") for number in range(2_500)]
    assert fail(store, *many) == 2_500
    assert fail(store, *many, failure("new")) == 1
    assert store.dead_letters.count_open("s") == 2_501
    assert len(planned(store)) == 2_501
    assert close_keys(store, *(item.key for item in many)) == 2_500
    assert planned(store).keys() == {"new"}


def test_syncs_and_epochs_have_their_own_entries(store: Store) -> None:
    assert fail(store, failure()) + fail(store, failure(), epoch="old") + fail(store, failure(), sync="t") == 3
    with store.begin() as conn:
        assert store.dead_letters.resolve_other_epochs(conn, "s", "e") == 1
    assert only(store, resolved=True).resolution == "config_changed"
    assert store.dead_letters.count_open("s") == 1
    assert store.dead_letters.count_open("t") == 1


def test_an_accepted_key_closes_its_entry_and_a_later_failure_opens_another(store: Store) -> None:
    fail(store, failure(), failure("other"))
    assert close_keys(store, "k", "unknown") == 1
    closed = only(store, resolved=True)
    assert (closed.resolution, closed.resolved_at is not None) == ("accepted", True)
    assert close_keys(store, "k") == 0
    assert fail(store, failure()) == 1
    assert store.dead_letters.count_open("s") == 2


def test_messages_from_anywhere_can_be_stored(store: Store) -> None:
    fail(store, failure(message="x" * 5_000), failure("nul", message="a\0b\ud800", vendor_code="\0"))
    messages = {entry.record_keys["Id"]: entry.message for entry in store.dead_letters.list()}
    assert messages["k"] == "x" * 2_000 + " … (3000 characters more)"
    assert messages["nul"] == "a\ufffdb?"


def test_rows_without_a_key_share_an_entry_per_code(store: Store) -> None:
    def report(rows: int) -> int:
        with store.begin() as conn:
            return store.dead_letters.keyless(
                conn, "s", "e", "r1", ErrorCode.MISSING_KEY, rows=rows, message="the key is null"
            )

    assert report(0) == 0
    assert report(7) == 1
    assert report(3) == 0
    entry = only(store)
    assert (entry.record_keys, entry.rows, entry.attempts, entry.error_code) == ({}, 3, 2, "MISSING_KEY")
    assert report(0) == 0
    assert only(store, resolved=True).resolution == "fixed_at_source"
    assert store.dead_letters.list() == []


# Held inserts


def test_nothing_a_run_finds_releases_a_held_entry(store: Store) -> None:
    fail(store, held(store, settled=True))
    fail(store, failure(fingerprint="f2", message="conflict", code=ErrorCode.CONFLICT))
    assert close_keys(store, "k", reason="source_row_missing") == 0
    entry = only(store)
    assert (entry.held, entry.error_code, entry.message, entry.operation) == (
        True,
        "UNKNOWN_OUTCOME",
        "timed out",
        "insert",
    )
    assert entry.attempts == 2
    assert planned(store) == {"k": ("f1", 0, True)}


def test_an_ordinary_entry_becomes_held(store: Store) -> None:
    fail(store, failure())
    fail(store, held(store, settled=False))
    assert planned(store)["k"][2]
    assert only(store).error_code == "UNKNOWN_OUTCOME"


def test_nobody_decides_about_a_held_entry_before_it_settled(store: Store) -> None:
    fail(store, held(store, settled=False), failure("other"))
    ids = [entry.id for entry in store.dead_letters.list()]
    with pytest.raises(ConfigurationError, match=r"may still arrive until \d{4}-"):
        store.dead_letters.resolve(ids, "fixed", "ann")
    with pytest.raises(ConfigurationError, match="may still arrive"), store.begin() as conn:
        store.dead_letters.mark_replaying(conn, ids, "r2")
    assert store.dead_letters.count_open("s") == 2


@pytest.mark.parametrize("resolution", ["skipped", "manual_push", "it_is_there"])
def test_resolving_a_held_entry_says_that_it_arrived(store: Store, resolution: str) -> None:
    fail(store, held(store, settled=True))
    store.dead_letters.resolve([only(store).id], resolution, "ann")
    assert accepted(store) == [("k", "f1")]
    assert silenced(store) == []


def test_replaying_a_held_entry_says_that_it_did_not_arrive(store: Store) -> None:
    fail(store, held(store, settled=True))
    with store.begin() as conn:
        assert len(store.dead_letters.mark_replaying(conn, [only(store).id], "r2")) == 1
    assert planned(store) == {"k": ("f1", 0, False)}
    assert accepted(store) == []
    assert close_keys(store, "k") == 1


# What people do


def test_skipped_silences_this_version_until_the_row_changes(store: Store) -> None:
    fail(store, failure())
    assert store.dead_letters.resolve([only(store).id], "skipped", "ann") != []
    assert silenced(store) == [{"key": "k", "fingerprint": "f1", "partition": None}]
    assert accepted(store) == []
    fail(store, failure(fingerprint="f2"))
    assert silenced(store) == []


def test_a_silenced_version_is_not_silent_again_when_the_row_changed_in_between(store: Store) -> None:
    fail(store, failure())
    store.dead_letters.resolve([only(store).id], "skipped", "ann")
    assert close_keys(store, "k") == 0  # the changed row was accepted; there is no open entry
    assert silenced(store) == []


def test_manual_push_takes_the_version_as_accepted(store: Store) -> None:
    fail(
        store,
        failure("a"),
        failure("removed", None, operation="delete"),
        failure("unmapped", None, code=ErrorCode.MAPPING_ERROR),
    )
    ids = [entry.id for entry in store.dead_letters.list()]
    assert sorted(store.dead_letters.resolve(ids, "manual_push", "ann")) == sorted(ids)
    assert sorted(accepted(store)) == [("a", "f1"), ("removed", None)]
    with store.begin() as conn:
        taken = store.acceptances.table("s", "e").column("id").to_pylist()
        assert store.acceptances.remove(conn, taken) == 2
    assert accepted(store) == []


def test_every_other_resolution_only_closes(store: Store) -> None:
    fail(store, failure())
    entry = only(store)
    store.dead_letters.resolve([entry.id], "fixed_source_data", "ann")
    closed = store.dead_letters.get(entry.id)
    assert (closed.resolution, closed.resolved) == ("fixed_source_data", True)
    assert (silenced(store), accepted(store), planned(store)) == ([], [], {})
    assert [(log.actor, log.action, log.subject, log.detail) for _, log in store.audit.list()] == [
        ("ann", "dead_letter.resolve", entry.id, "fixed_source_data")
    ]


def test_resolving_is_all_or_nothing_on_unknown_ids(store: Store) -> None:
    fail(store, failure())
    entry = only(store)
    with pytest.raises(NotFoundError, match="retl_dlq_x, retl_dlq_y"):
        store.dead_letters.resolve([entry.id, "retl_dlq_x", "retl_dlq_y"], "fixed", "ann")
    assert not store.dead_letters.get(entry.id).resolved
    with pytest.raises(NotFoundError, match="retl_dlq_x"):
        store.dead_letters.get("retl_dlq_x")


def test_resolved_entries_stay_as_they_are(store: Store) -> None:
    fail(store, failure())
    entry = only(store)
    assert store.dead_letters.resolve([entry.id, entry.id], "first", "ann") == [entry.id]
    assert store.dead_letters.resolve([entry.id], "second", "ann") == []
    assert store.dead_letters.get(entry.id).resolution == "first"


@pytest.mark.parametrize("resolution", ["", "Skipped", "two words", "x" * 65, "skipped\n"])
def test_a_resolution_is_a_short_code(store: Store, resolution: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a resolution"):
        store.dead_letters.resolve([], resolution, "ann")


def test_a_replayed_entry_stays_open_and_its_count_starts_again(store: Store) -> None:
    fail(store, failure(), failure(), failure("other"))
    (entry,) = (item for item in store.dead_letters.list() if item.record_keys["Id"] == "k")
    with store.begin() as conn:
        assert store.dead_letters.mark_replaying(conn, [entry.id], "r2", actor="ann") == [entry.id]
    assert store.dead_letters.get(entry.id).replaying
    assert planned(store)["k"] == ("f1", 0, False)
    fail(store, failure(), run="r2")
    with store.begin() as conn:
        assert store.dead_letters.clear_replaying(conn, "r2") == 1
    again = store.dead_letters.get(entry.id)
    assert (again.replaying, again.resolved, again.attempts) == (False, False, 3)
    assert planned(store)["k"] == ("f1", 1, False)


# What people see


def test_pages_are_stable_while_entries_are_added(store: Store) -> None:
    for run in ("r1", "r2"):
        fail(store, *(failure(f"{run}-{number}") for number in range(5)), run=run)
    first = store.dead_letters.list("s", limit=4)
    fail(store, failure("newer"))
    second = store.dead_letters.list("s", limit=50, before=(first[-1].first_seen_at, first[-1].id))
    seen = [(entry.first_seen_at, entry.id) for entry in first + second]
    assert len(set(seen)) == 10
    assert seen == sorted(seen, reverse=True)


def test_lists_are_filtered(store: Store) -> None:
    fail(store, failure("a"))
    fail(store, failure("b", code=ErrorCode.CONFLICT), run="r2")
    fail(store, failure("c"), sync="t")
    close_keys(store, "a")
    letters = store.dead_letters
    assert [entry.record_keys["Id"] for entry in letters.list()] == ["c", "b"]
    assert only(store, sync_id="s").record_keys == {"Id": "b"}
    assert only(store, run_id="r2").record_keys == {"Id": "b"}
    assert only(store, error_code=ErrorCode.CONFLICT).record_keys == {"Id": "b"}
    assert only(store, resolved=True).record_keys == {"Id": "a"}
    assert letters.list("t", error_code="CONFLICT") == []


def test_stats_and_groups(store: Store) -> None:
    fail(store, failure("old"), failure("gone"))
    close_keys(store, "gone")
    since = store.now()
    fail(store, failure("a", rows=3), failure("b", code=ErrorCode.CONFLICT), sync="t")
    stats = store.dead_letters.stats()
    assert (stats.open_count, stats.resolved_count) == (3, 1)
    assert stats.by_error_code == {"CONFLICT": 1, "DESTINATION_VALIDATION": 2}
    recent = store.dead_letters.stats(since=since)
    assert (recent.open_count, recent.resolved_count) == (2, 0)
    assert store.dead_letters.stats("s", since).open_count == 0
    groups = [
        (group.sync_id, group.error_code, group.entries, group.rows) for group in store.dead_letters.open_groups()
    ]
    assert groups == [
        ("s", "DESTINATION_VALIDATION", 1, 1),
        ("t", "CONFLICT", 1, 1),
        ("t", "DESTINATION_VALIDATION", 1, 3),
    ]
    assert all(group.oldest <= group.newest for group in store.dead_letters.open_groups("t"))


def test_new_entries_are_found_from_a_cursor(store: Store) -> None:
    fail(store, failure("a"), failure("b"))
    seen = store.dead_letters.opened_since(None)
    assert {entry.record_keys["Id"] for entry in seen} == {"a", "b"}
    fail(store, failure("a"), failure("c"))
    close_keys(store, "c")
    last = (seen[-1].first_seen_at, seen[-1].id)
    assert [entry.record_keys["Id"] for entry in store.dead_letters.opened_since(last)] == ["c"]
