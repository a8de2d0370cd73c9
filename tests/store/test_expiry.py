"""What goes when it was kept long enough, and what stays however old it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from dagster_retl.errors import ErrorCode
from dagster_retl.store.clock import to_text
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.schema import dead_letters, row_history, runs
from dagster_retl.store.store import Store

NOW = datetime(2025, 6, 1, tzinfo=UTC)
BEFORE = NOW - timedelta(days=30)


def day(number: int) -> str:
    """So many days ago."""
    return to_text(NOW - timedelta(days=number))


def add_run(store: Store, run_id: str, age: int, *, sync: str = "s", status: str = "succeeded", **values: Any) -> str:
    row = {
        "id": run_id, "sync_id": sync, "sync_name": sync, "status": status, "trigger": "manual", "options": "{}",
        "full_refresh": False, "dry_run": False, "counters": "{}", "warnings": "[]", "created_at": day(age),
        "finished_at": None if status in ("queued", "running") else day(age), **values,
    }  # fmt: skip
    with store.begin() as conn:
        conn.execute(insert(runs).values(row))
    return run_id


def add_letter(store: Store, entry_id: str, key: str, opened: int, resolved: int | None, **values: Any) -> None:
    row = {
        "id": entry_id, "sync_id": "s", "epoch": "e", "run_id": "r", "key": key, "record_keys": "{}",
        "error_code": "UNKNOWN", "message": "m", "operation": "upsert", "attempts": 1, "rejections": 1, "rows": 1,
        "held": False, "first_seen_at": day(opened), "last_seen_at": day(opened), "silenced": False,
        "resolved_at": None if resolved is None else day(resolved), **values,
    }  # fmt: skip
    with store.begin() as conn:
        conn.execute(insert(dead_letters).values(row))


def ids(store: Store, table: Any) -> list[str]:
    with store.engine.connect() as conn:
        return sorted(conn.scalars(select(table.c.id)))


class TestRuns:
    def test_old_ones_go(self, store: Store) -> None:
        add_run(store, "old", 40)
        add_run(store, "young", 20)
        add_run(store, "other sync", 50, sync="t")
        assert store.expiry.runs("s", BEFORE, 10) == 1
        assert ids(store, runs) == ["other sync", "young"]

    def test_a_few_at_a_time_the_oldest_first(self, store: Store) -> None:
        for age in range(40, 47):
            add_run(store, f"r{age}", age)
        assert [store.expiry.runs("s", BEFORE, 2) for _ in range(4)] == [2, 2, 2, 0]
        assert ids(store, runs) == ["r40"]

    def test_the_last_run_stays_and_the_last_that_tried(self, store: Store) -> None:
        add_run(store, "older try", 63)
        add_run(store, "last try", 62, status="failed")
        add_run(store, "cancelled", 61, status="cancelled")
        add_run(store, "turned away", 61, status="failed", error_code="LEASE_HELD")
        add_run(store, "dry", 60, dry_run=True)
        add_run(store, "last", 59, dry_run=True)
        store.expiry.runs("s", BEFORE, 10)
        assert ids(store, runs) == ["last", "last try"]

    @pytest.mark.parametrize("status", ["queued", "running"])
    def test_what_has_not_ended_stays(self, store: Store, status: str) -> None:
        add_run(store, "open", 60, status=status)
        add_run(store, "last", 1)
        assert store.expiry.runs("s", BEFORE, 10) == 0

    def test_a_run_that_ended_lately_stays(self, store: Store) -> None:
        add_run(store, "long", 60, finished_at=day(1))
        add_run(store, "last", 1)
        assert store.expiry.runs("s", BEFORE, 10) == 0

    def test_what_is_needed_stays(self, store: Store) -> None:
        for name in ("in the ledger", "of a letter", "of a replay", "of a resolved letter", "of the lease"):
            add_run(store, name, 60)
        add_run(store, "last", 1)
        with store.begin() as conn:
            store.ledger.start(conn, "in the ledger", "s", [1])
        add_letter(store, "l1", "a", 60, None, run_id="of a letter")
        add_letter(store, "l2", "b", 60, None, replay_run_id="of a replay")
        add_letter(store, "l3", "c", 60, 50, run_id="of a resolved letter")
        store.leases.acquire("s", "of the lease")
        assert store.expiry.runs("s", BEFORE, 10) == 1
        assert ids(store, runs) == ["in the ledger", "last", "of a letter", "of a replay", "of the lease"]


class TestDeadLetters:
    def test_resolved_ones_go(self, store: Store) -> None:
        add_letter(store, "open", "a", 90, None)
        add_letter(store, "old", "b", 90, 40)
        add_letter(store, "resolved lately", "c", 90, 20)
        assert store.expiry.dead_letters("s", BEFORE, 10) == 1
        assert ids(store, dead_letters) == ["open", "resolved lately"]

    def test_what_silences_stays(self, store: Store) -> None:
        add_letter(store, "silences", "a", 90, 80, silenced=True, fingerprint="f")
        add_letter(store, "silenced", "b", 90, 80, silenced=True, fingerprint="f")
        add_letter(store, "overtakes", "b", 70, 60)
        assert [store.expiry.dead_letters("s", BEFORE, 1) for _ in range(3)] == [1, 1, 0]
        assert ids(store, dead_letters) == ["silences"]
        assert store.dead_letters.silenced("s", "e").column("key").to_pylist() == ["a"]

    def test_an_overtaken_silence_goes_before_what_overtook_it(self, store: Store) -> None:
        add_letter(store, "zzz overtaken", "b", 90, 80, silenced=True, fingerprint="f")
        add_letter(store, "aaa overtakes", "b", 80, 70)
        assert store.expiry.dead_letters("s", BEFORE, 1) == 1
        assert ids(store, dead_letters) == ["aaa overtakes"]
        assert store.dead_letters.silenced("s", "e").num_rows == 0


def test_history(store: Store) -> None:
    with store.begin() as conn:
        for number, (age, sync) in enumerate([(40, "s"), (20, "s"), (40, "t")]):
            common = {"epoch": "e", "run_id": "r", "name": f"{sync}/{age}", "checksum": "c", "rows": 1}
            conn.execute(insert(row_history).values(sync_id=sync, created_at=day(age), **common))
            assert number < 3
    assert [store.expiry.history("s", BEFORE, 10) for _ in range(2)] == [1, 0]
    assert (store.history.names("s"), store.history.names("t")) == ({"s/20"}, {"t/40"})


def test_a_letter_that_opens_again_is_as_new(store: Store) -> None:
    """Nothing that goes is needed to count: the entry of a key that fails again is a new one."""
    add_letter(store, "old", "a", 90, 40)
    failure = Failure(
        key="a", record_keys="{}", code=ErrorCode.UNKNOWN, message="m", operation="upsert", rejection=True
    )
    store.expiry.dead_letters("s", BEFORE, 10)
    with store.begin() as conn:
        assert store.dead_letters.fail(conn, "s", "e", "r", [failure]) == 1
    assert store.dead_letters.count_open("s") == 1
