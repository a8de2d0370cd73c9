"""Runs in the store: their life, their counters, and lists of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagster_retl.errors import CancelledError, NotFoundError
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import AccountChange, Guard, RunOptions, RunStatus
from dagster_retl.store.runs import options_from_json, options_to_json
from dagster_retl.store.store import Store

COUNTERS = Counters(read=10, written=7, failed=2, unchanged=1, requests=3, bytes_sent=2**40)


def test_a_run_s_life(store: Store) -> None:
    run = store.runs.create("s", "Accounts", RunOptions(full_refresh=True), trigger="api")
    assert (run.status, run.sync_name, run.full_refresh, run.trigger) == (RunStatus.QUEUED, "Accounts", True, "api")
    assert run.counters == Counters()
    with store.begin() as conn:
        store.runs.start(conn, run.id, token=3, epoch="e")
    assert store.runs.epoch_of(run.id) == "e"
    assert store.runs.plan_of(run.id) is None
    with store.begin() as conn:
        store.runs.set_plan(conn, run.id, {"manifest": "m", "totals": {"added": 3}})
    store.runs.progress(run.id, COUNTERS)
    assert store.runs.get(run.id).counters == COUNTERS
    with store.begin() as conn:
        store.runs.finish(conn, run.id, RunStatus.SUCCEEDED, COUNTERS, warnings=["two rows failed"])
    ended = store.runs.get(run.id)
    assert (ended.status, ended.warnings) == (RunStatus.SUCCEEDED, ("two rows failed",))
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert run.created_at <= ended.started_at <= ended.finished_at
    assert store.runs.plan_of(run.id) == {"manifest": "m", "totals": {"added": 3}}


def test_books_that_do_not_balance_are_told(store: Store) -> None:
    run = store.runs.create("s", "n")
    with store.begin() as conn:
        store.runs.finish(conn, run.id, RunStatus.FAILED, replace(COUNTERS, written=6, removed=2), warnings=["first"])
    first, unbalanced = store.runs.get(run.id).warnings
    assert first == "first"
    assert "of 10 rows 1 are not accounted for, and of 2 removals 2" in unbalanced


def test_progress_after_the_end_changes_nothing(store: Store) -> None:
    run = store.runs.create("s", "n")
    with store.begin() as conn:
        store.runs.start(conn, run.id, token=1)
        store.runs.finish(conn, run.id, RunStatus.FAILED, COUNTERS, error_code="AUTH", error_message="no", guard=None)
    store.runs.progress(run.id, replace(COUNTERS, read=99))
    assert store.runs.get(run.id).counters == COUNTERS


def test_a_retried_attempt_starts_without_the_last_one_s_error(store: Store) -> None:
    run = store.runs.create("s", "n")
    with store.begin() as conn:
        store.runs.start(conn, run.id, token=1)
        store.runs.finish(conn, run.id, RunStatus.FAILED, COUNTERS, error_code="DESTINATION_DOWN", guard="deletes")
        store.runs.start(conn, run.id, token=2)
    again = store.runs.get(run.id)
    assert (again.status, again.error_code, again.guard, again.finished_at) == (RunStatus.RUNNING, None, None, None)


def test_a_run_cancelled_while_queued_does_not_start(store: Store) -> None:
    run = store.runs.create("s", "n")
    with store.begin() as conn:
        store.runs.finish(conn, run.id, RunStatus.CANCELLED, Counters())
    with pytest.raises(CancelledError, match=run.id), store.begin() as conn:
        store.runs.start(conn, run.id, token=1)
    assert store.runs.get(run.id).status is RunStatus.CANCELLED


def test_unknown_runs_are_named(store: Store) -> None:
    with pytest.raises(NotFoundError, match="retl_run_x"):
        store.runs.get("retl_run_x")
    with pytest.raises(NotFoundError, match="retl_run_x"), store.begin() as conn:
        store.runs.finish(conn, "retl_run_x", RunStatus.FAILED, Counters())


def test_options_survive() -> None:
    options = RunOptions(
        dry_run=True,
        limit=3,
        keys=({"Id": 7},),
        replay=("retl_dlq_1",),
        overrides=frozenset({Guard.DELETES, Guard.SHRINK}),
        account_change=AccountChange.KEEP_SNAPSHOT,
    )
    assert options_from_json(options_to_json(options)) == options
    assert options_to_json(RunOptions()) == {}
    assert options_from_json({}) == RunOptions()
    baseline = RunOptions(baseline=True)
    assert options_from_json(options_to_json(baseline)) == baseline


def test_pages_are_stable_while_runs_are_added(store: Store) -> None:
    with store.begin() as conn:  # on both databases some of these share a microsecond, or nearly
        ids = [store.runs.create("s" if number % 2 else "t", "n", conn=conn).id for number in range(7)]
    first = store.runs.list(limit=3)
    store.runs.create("s", "n")
    last = first[-1]
    second = store.runs.list(limit=10, before=(last.created_at, last.id))
    assert {run.id for run in first + second} == set(ids)
    assert len(first + second) == 7
    moments = [(run.created_at, run.id) for run in first + second]
    assert moments == sorted(moments, reverse=True)


def test_lists_are_filtered(store: Store) -> None:
    mine, other = store.runs.create("s", "n"), store.runs.create("t", "n")
    with store.begin() as conn:
        store.runs.start(conn, other.id, token=1)
    assert [run.id for run in store.runs.list("s")] == [mine.id]
    assert [run.id for run in store.runs.list(status=RunStatus.RUNNING)] == [other.id]
    assert store.runs.list("s", RunStatus.RUNNING) == []


def test_runs_are_found_by_their_dagster_run(store: Store) -> None:
    first = store.runs.create("s", "n", dagster_run_id="d1", dagster_step="retl__s")
    queued = store.runs.create("t", "n")
    store.runs.link_dagster(queued.id, "d1", "retl__t")
    found = store.runs.find("d1", "retl__s")
    assert found is not None
    assert (found.id, found.dagster_run_id) == (first.id, "d1")
    linked = store.runs.find("d1", "retl__t")
    assert linked is not None
    assert linked.id == queued.id
    assert store.runs.find("d1", "other") is None
