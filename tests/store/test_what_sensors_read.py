"""What the alert sensor and the reaper ask the store, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunOptions, RunStatus
from dagster_retl.store.clock import to_text
from dagster_retl.store.schema import leases
from dagster_retl.store.store import Store


def ended(store: Store, status: RunStatus, code: ErrorCode | None = None, *, dry_run: bool = False) -> str:
    run = store.runs.create("s", "things", RunOptions(dry_run=dry_run))
    with store.begin() as conn:
        store.runs.finish(conn, run.id, status, Counters(), error_code=code)
    return run.id


def test_the_last_attempt_is_the_one_that_ended_last(store: Store) -> None:
    slow = store.runs.create("s", "things")
    fast = ended(store, RunStatus.FAILED, ErrorCode.AUTH)
    assert store.runs.last_attempts(["s", "never run"]).keys() == {"s"}
    assert store.runs.last_attempts(["s"])["s"].id == fast
    with store.begin() as conn:
        store.runs.finish(conn, slow.id, RunStatus.SUCCEEDED, Counters())
    assert store.runs.last_attempts(["s"])["s"].id == slow.id


@pytest.mark.parametrize(
    ("status", "code", "dry_run"),
    [
        (RunStatus.CANCELLED, ErrorCode.CANCELLED, False),
        (RunStatus.SUCCEEDED, None, True),
        (RunStatus.FAILED, ErrorCode.LEASE_HELD, False),
    ],
)
def test_what_tried_nothing_is_no_attempt(
    store: Store, status: RunStatus, code: ErrorCode | None, dry_run: bool
) -> None:
    attempt = ended(store, RunStatus.SUCCEEDED)
    ended(store, status, code, dry_run=dry_run)
    store.runs.create("s", "things")
    assert store.runs.last_attempts(["s"])["s"].id == attempt


def test_a_holder_is_confirmed_dead_only_while_it_is(store: Store) -> None:
    run = store.runs.create("s", "things")
    lease = store.leases.acquire("s", run.id)
    with store.begin() as conn:
        conn.execute(update(leases).values(expires_at=to_text(store.now(conn))))
    [holder] = store.leases.expired()
    with store.begin() as conn:
        assert store.leases.confirm_dead(conn, holder)
    store.leases.heartbeat(lease)
    with store.begin() as conn:
        assert not store.leases.confirm_dead(conn, holder)
    store.leases.release(lease)
    with store.begin() as conn:
        assert not store.leases.confirm_dead(conn, holder)


def test_the_last_whole_runs_of_many_syncs(store: Store) -> None:
    for sync_id in ("a", "b", "never"):
        for options in (RunOptions(), RunOptions(limit=1), RunOptions(keys=({"id": 1},)), RunOptions(dry_run=True)):
            run = store.runs.create(sync_id, sync_id, options)
            if sync_id != "never":
                with store.begin() as conn:
                    store.runs.finish(conn, run.id, RunStatus.SUCCEEDED, Counters())
    first = {sync_id: store.whole_runs.successes(["a", "b", "never", "unknown"])[sync_id].id for sync_id in ("a", "b")}
    failed = store.runs.create("b", "b", RunOptions(full_refresh=True))
    with store.begin() as conn:
        store.runs.finish(conn, failed.id, RunStatus.FAILED, Counters(), error_code=ErrorCode.AUTH)
    successes = store.whole_runs.successes(["a", "b", "never", "unknown"])
    attempts = store.whole_runs.attempts(["a", "b", "never", "unknown"])
    assert {sync_id: run.id for sync_id, run in successes.items()} == first
    assert {sync_id: run.id for sync_id, run in attempts.items()} == {"a": first["a"], "b": failed.id}
    assert successes["a"].options == {}
    assert store.whole_runs.successes([]) == {}
