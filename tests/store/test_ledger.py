"""The ledger, suspects, acceptances and snapshot pointers: what a commit reads and writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from dagster_retl.errors import RetlError
from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.store import Store
from dagster_retl.store.suspects import Suspect

POINTER = Pointer(
    sync_id="s",
    epoch="e",
    account_id="00D1",
    account_name="Acme",
    identity="https://acme.example",
    generation="s/g-1.parquet",
    rows=2**33,
    checksum="blake2b:00:1",
    fingerprint_version=1,
    source_rows=12,
    watermark="2025-01-01",
)


def test_what_was_started_and_answered_is_read_back(store: Store) -> None:
    before = store.now()
    with store.begin() as conn:
        started_at = store.ledger.start(conn, "r1", "s", range(450))
    assert before <= from_text(started_at) <= store.now()
    with store.begin() as conn:
        store.ledger.record(conn, "r1", {449: b"\x00answers\xff"})
        store.ledger.start(conn, "r1", "s", [])
    batches = list(store.ledger.batches("r1"))
    assert [batch.number for batch in batches] == list(range(450))
    assert {batch.started_at for batch in batches} == {started_at}
    assert [batch.outcomes for batch in batches if batch.outcomes is not None] == [b"\x00answers\xff"]
    assert batches[449].answered_at is not None
    assert batches[449].answered_at >= started_at
    assert batches[0].answered_at is None


def test_a_batch_starts_once_and_is_answered_after_it_started(store: Store) -> None:
    with store.begin() as conn:
        store.ledger.start(conn, "r1", "s", [1])
    with pytest.raises(IntegrityError), store.begin() as conn:
        store.ledger.start(conn, "r1", "s", [1])
    with (
        pytest.raises(RetlError, match=r"run r1 has an answer to a batch that never started, among \[2\]"),
        store.begin() as conn,
    ):
        store.ledger.record(conn, "r1", {2: b""})


def test_unfolded_runs_come_oldest_first_until_they_are_forgotten(store: Store) -> None:
    for run, sync in (("r2", "s"), ("r1", "s"), ("r3", "t")):
        with store.begin() as conn:
            store.ledger.start(conn, run, sync, [0, 1])
    assert store.ledger.unfolded("s") == ["r2", "r1"]
    with store.begin() as conn:
        assert store.ledger.forget(conn, "r2") == 2
    assert store.ledger.unfolded("s") == ["r1"]
    assert list(store.ledger.batches("r2")) == []


def test_suspects_belong_to_an_epoch_and_are_removed_by_id(store: Store) -> None:
    until = to_text(store.now() + timedelta(minutes=15))
    with store.begin() as conn:
        store.suspects.add(conn, "s", "e", [Suspect("k1", '{"Id":1}', "f1", until), Suspect("k1", "{}", None, until)])
        store.suspects.add(conn, "s", "old", [Suspect("k9", "{}", "f9", until)])
        store.suspects.add(conn, "s", "e", [])
    table = store.suspects.table("s", "e")
    assert table.select(["key", "record_keys", "fingerprint", "until"]).to_pylist() == [
        {"key": "k1", "record_keys": '{"Id":1}', "fingerprint": "f1", "until": until},
        {"key": "k1", "record_keys": "{}", "fingerprint": None, "until": until},
    ]
    with store.begin() as conn:
        assert store.suspects.remove(conn, table.column("id").to_pylist()[:1]) == 1
    assert store.suspects.table("s", "e").column("fingerprint").to_pylist() == [None]
    assert store.suspects.table("s", "old").num_rows == 1
    assert store.suspects.table("t", "e").num_rows == 0


def test_many_suspects_are_read_and_removed(store: Store) -> None:
    until = to_text(store.now())
    with store.begin() as conn:
        store.suspects.add(conn, "s", "e", [Suspect(f"k{number}", "{}", None, until) for number in range(12_345)])
    table = store.suspects.table("s", "e")
    assert len(set(table.column("key").to_pylist())) == 12_345
    with store.begin() as conn:
        assert store.suspects.remove(conn, table.column("id").to_pylist()) == 12_345
    assert store.suspects.table("s", "e").num_rows == 0


def test_the_pointer_is_swapped(store: Store) -> None:
    assert store.snapshots.pointer("s") is None
    with store.begin() as conn:
        assert not store.snapshots.mark_stale(conn, "s")
        store.snapshots.save(conn, POINTER)
    saved = store.snapshots.pointer("s")
    assert saved is not None
    assert saved.updated_at is not None
    assert saved.rows == 2**33
    assert (saved.generation, saved.watermark, saved.stale) == ("s/g-1.parquet", "2025-01-01", False)
    with store.begin() as conn:
        store.snapshots.save(conn, replace(saved, generation="s/g-2.parquet"))
    swapped = store.snapshots.pointer("s")
    assert swapped is not None
    assert swapped.generation == "s/g-2.parquet"
    assert swapped.updated_at is not None
    assert swapped.updated_at >= saved.updated_at


def test_a_full_refresh_marks_the_snapshot_and_clears_the_watermark(store: Store) -> None:
    with store.begin() as conn:
        store.snapshots.save(conn, POINTER)
        assert store.snapshots.mark_stale(conn, "s")
    pointer = store.snapshots.pointer("s")
    assert pointer is not None
    assert (pointer.stale, pointer.watermark, pointer.generation) == (True, None, "s/g-1.parquet")
