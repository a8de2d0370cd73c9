"""Rate budgets: moments to send at, handed out to many threads and processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from dagster_retl.store.budgets import Budget, claim
from dagster_retl.store.database import Database
from dagster_retl.store.schema import rate_budgets
from dagster_retl.store.store import Store

NAME = "http:crm.example:42"
EPSILON = 1e-6


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.1, 1.0]),
    st.integers(1, 12),
)
def test_no_window_holds_more_than_its_share_and_the_burst(
    asked: list[tuple[float, int]], interval: float, burst: int
) -> None:
    now, line, sent = 1_000.0, 0.0, []
    for pause, tokens in asked:
        now += pause
        first, line = claim(line, now=now, tokens=tokens, interval=interval, burst=burst)
        sent += [max(now, first + n * interval) for n in range(tokens)]
    sent.sort()
    for i, start in enumerate(sent):
        for j in range(i, len(sent)):
            assert j - i + 1 <= (sent[j] - start) / interval + burst + EPSILON


@given(st.lists(st.integers(1, 20), min_size=2, max_size=20))
def test_a_line_without_a_gap_wastes_nothing(chunks: list[int]) -> None:
    line = 1_000.0
    for tokens in chunks:
        first, after = claim(line, now=1_000.0, tokens=tokens, interval=0.5, burst=1)
        assert first == line
        line = after
    assert line == 1_000.0 + sum(chunks) * 0.5


def test_moments_follow_one_another(store: Store) -> None:
    first, second = (store.budgets.reserve(NAME, 3, rate=10, margin=2.0) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.interval == pytest.approx(0.2)
    assert first.first >= first.now - EPSILON
    assert second.first == pytest.approx(first.first + 3 * 0.2)


def test_accounts_do_not_mind_one_another(store: Store) -> None:
    store.budgets.reserve(NAME, 1000, rate=1)
    other = store.budgets.reserve("http:other:1", 1, rate=1)
    assert other is not None
    assert other.first <= other.now + EPSILON


def test_a_burst_leaves_at_once(store: Store) -> None:
    given = store.budgets.reserve(NAME, 6, rate=10, burst=5)
    assert given is not None
    moments = [given.first + n * given.interval - given.now for n in range(6)]
    assert [moment <= EPSILON for moment in moments] == [True] * 5 + [False]


def test_without_any_rate_there_is_nothing_to_take(store: Store) -> None:
    assert store.budgets.look(NAME) == Budget(0.0, None)
    assert store.budgets.reserve(NAME, 3, rate=None) is None
    store.budgets.learn(NAME, 4.0)
    given = store.budgets.reserve(NAME, 3, rate=None)
    assert given is not None
    assert given.interval == 0.25


@pytest.mark.parametrize(("learnt", "interval"), [(2.0, 0.5), (100.0, 0.1)])
def test_the_lower_of_two_rates_counts(store: Store, learnt: float, interval: float) -> None:
    store.budgets.learn(NAME, learnt)
    given = store.budgets.reserve(NAME, 1, rate=10)
    assert given is not None
    assert given.interval == pytest.approx(interval)
    assert store.budgets.look(NAME).rate == learnt


def test_a_pause_holds_the_line_up_and_a_shorter_one_does_not_end_it(store: Store) -> None:
    store.budgets.pause(NAME, 50)
    store.budgets.pause(NAME, 1)
    given = store.budgets.reserve(NAME, 1, rate=10)
    assert given is not None
    assert 49 < given.first - given.now <= 50
    assert 49 < store.budgets.look(NAME).pause <= 50


def test_a_clock_that_was_set_back_holds_nobody_up(store: Store) -> None:
    store.budgets.pause(NAME, 50)
    store.budgets.reserve(NAME, 100, rate=1)
    with store.begin() as conn:
        conn.execute(update(rate_budgets).values(updated_at="2999-01-01T00:00:00.000000Z"))
    assert store.budgets.look(NAME).pause == 0
    given = store.budgets.reserve(NAME, 1, rate=10)
    assert given is not None
    assert given.first <= given.now + EPSILON


def test_threads_share_a_line(store: Store) -> None:
    taken: list[float] = []

    def take() -> None:
        for _ in range(10):
            given = store.budgets.reserve(NAME, 2, rate=50)
            assert given is not None
            taken.extend([given.first, given.first + given.interval])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 160
    assert all(later - earlier >= 0.02 - EPSILON for earlier, later in pairwise(sorted(taken)))


PROCESS = """
import json, sys
from dagster_retl.store.store import Store
with Store.open(sys.argv[1]) as store:
    given = [store.budgets.reserve(sys.argv[2], 3, rate=100.0) for _ in range(40)]
    print(json.dumps([each.first + n * each.interval for each in given for n in range(3)]))
"""


def test_processes_share_a_line(store: Store, store_url: str) -> None:
    command = [sys.executable, "-c", PROCESS, store_url, NAME]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    taken = sorted(moment for process in running for moment in json.loads(process.communicate()[0]))
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(taken) == 360
    assert all(later - earlier >= 0.01 - EPSILON for earlier, later in pairwise(taken))


def test_a_budget_waits_for_no_disk_and_the_ledger_does(store_url: str, store: Store) -> None:
    database = Database(store_url)
    setting = text("PRAGMA synchronous" if database.sqlite else "SHOW synchronous_commit")
    with database.begin_volatile() as conn:
        assert conn.scalar(setting) in (1, "off")
    with database.begin() as conn:
        assert conn.scalar(setting) in (2, "on")
    database.close()


def test_a_reservation_does_not_wait_for_the_store_longer_than_its_moment_is_true(store: Store) -> None:
    """A writer holds the store; what is reserved after that is counted from then."""
    reserved = []
    store.budgets.reserve(NAME, 1, rate=1000)
    with store.begin() as conn:
        conn.execute(update(rate_budgets).values(rate=None))  # locks the row, on SQLite everything
        asked = time.time()
        thread = threading.Thread(target=lambda: reserved.append(store.budgets.reserve(NAME, 1, rate=1000)))
        thread.start()
        time.sleep(0.3)
    thread.join()
    assert reserved[0] is not None
    assert reserved[0].first >= asked + 0.25
