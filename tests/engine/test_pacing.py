"""Rates, bursts, pauses, and what answers say is left."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dagster_retl.connectors.limits import LimitState
from dagster_retl.engine.budget import Moments, OwnBudget, SharedBudget
from dagster_retl.engine.known_secrets import secrets_in
from dagster_retl.engine.pacing import MARGIN, Pacer
from dagster_retl.errors import LeaseLostError
from dagster_retl.model.redactor import Redactor
from dagster_retl.store.budgets import Budget
from dagster_retl.store.store import Store


class Counting(OwnBudget):
    """A budget that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.pauses: list[float] = []
        self.learnt: list[float] = []
        self.looks = 0

    def reserve(self, tokens: int, *, rate: float | None, burst: int, margin: float) -> Moments | None:
        self.asked.append(tokens)
        return super().reserve(tokens, rate=rate, burst=burst, margin=margin)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        super().pause(seconds)

    def learn(self, rate: float) -> None:
        self.learnt.append(rate)
        super().learn(rate)

    def look(self) -> Budget:
        self.looks += 1
        return super().look()


def send(pacer: Pacer, times: int, threads: int = 4) -> list[float]:
    """When requests left, in order."""
    left: list[float] = []
    stop = threading.Event()

    def work() -> None:
        for _ in range(times // threads):
            assert pacer.wait(stop)
            left.append(time.monotonic())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(left)


def waits(pacer: Pacer) -> bool:
    """Whether the next request would have to wait."""
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    return pacer.wait(stop) == 0


def test_a_rate_is_kept_by_many_threads_together() -> None:
    started = time.monotonic()
    left = send(Pacer(200.0), 40)
    assert left[-1] - started >= 39 * MARGIN / 200 - 0.001


def test_a_burst_leaves_at_once_and_the_rest_at_the_rate() -> None:
    pacer = Pacer(0.1, burst=5)
    stop = threading.Event()
    assert [pacer.wait(stop) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert waits(pacer)


def test_two_processes_worth_of_pacers_keep_one_rate(tmp_path: Path) -> None:
    started = time.monotonic()
    with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store:
        pacers = [Pacer(200.0, budget=SharedBudget(store.budgets, "a")) for _ in range(2)]
        threads = [threading.Thread(target=send, args=(pacer, 20)) for pacer in pacers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - started >= 39 * MARGIN / 200 - 0.005


def test_whoever_waits_takes_more_moments_at_once() -> None:
    budget = Counting()
    send(Pacer(400.0, budget=budget), 160, threads=8)
    assert max(budget.asked) >= 19  # 50 ms worth of them, more from a store that is slow
    assert len(budget.asked) < 30


def test_a_slow_store_is_asked_for_more_at_once() -> None:
    class Slow(Counting):
        def reserve(self, tokens: int, *, rate: float | None, burst: int, margin: float) -> Moments | None:
            time.sleep(0.1)
            return super().reserve(tokens, rate=rate, burst=burst, margin=margin)

    budget = Slow()
    send(Pacer(400.0, budget=budget), 320, threads=8)
    assert max(budget.asked) > 40


def test_whoever_comes_seldom_takes_one_at_a_time_and_wastes_none() -> None:
    budget = Counting()
    pacer = Pacer(400.0, budget=budget)
    stop = threading.Event()
    for _ in range(10):
        pacer.wait(stop)
        time.sleep(0.01)
    assert budget.asked == [1] * 10


def test_without_a_rate_nothing_is_reserved() -> None:
    budget = Counting()
    send(Pacer(None, budget=budget), 400)
    assert (budget.asked, budget.pauses) == ([], [])
    assert budget.looks < 100


def test_a_pause_holds_everybody_and_a_stop_ends_it() -> None:
    pacer = Pacer(None)
    pacer.pause(30)
    started = time.monotonic()
    assert waits(pacer)
    assert time.monotonic() - started < 20


def test_a_pause_counts_once_however_many_are_told() -> None:
    budget = Counting()
    pacer = Pacer(None, budget=budget)
    for _ in range(8):
        pacer.pause(0.2)
    send(pacer, 8, threads=8)
    assert len(budget.pauses) == 1
    assert 0.2 <= pacer.paused < 0.4


def test_what_is_left_of_a_pause_was_not_waited_for() -> None:
    pacer = Pacer(None)
    pacer.pause(30)
    assert pacer.paused < 20


def test_a_pause_reaches_other_processes(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store:
        for rate in (None, 1000.0):
            told, other = (Pacer(rate, budget=SharedBudget(store.budgets, f"a{rate}")) for _ in range(2))
            told.pause(30)
            assert waits(other)


def test_moments_that_were_taken_before_a_pause_are_void() -> None:
    pacer = Pacer(100.0)
    stop = threading.Event()
    for _ in range(6):
        pacer.wait(stop)
    pacer.pause(30)
    assert waits(pacer)


def test_a_pause_reaches_whoever_waits_for_a_moment() -> None:
    pacer = Pacer(1.0)
    stop = threading.Event()
    assert pacer.wait(stop)
    threading.Timer(0.05, pacer.pause, [30]).start()
    threading.Timer(1.5, stop.set).start()
    assert pacer.wait(stop) == 0


def test_a_wait_ends_when_the_run_may_not_go_on() -> None:
    def lost() -> None:
        raise LeaseLostError("it is somebody else's")

    pacer = Pacer(None)
    pacer.pause(30)
    with pytest.raises(LeaseLostError):
        pacer.wait(threading.Event(), lost)


class TestWhatIsLeft:
    def test_nothing_left_is_waited_for_before_a_refusal(self) -> None:
        budget = Counting()
        pacer = Pacer(None, budget=budget)
        stop = threading.Event()
        pacer.heard(pacer.wait(stop), LimitState(remaining=0, reset=30))
        assert waits(pacer)
        assert len(budget.pauses) == 1

    def test_requests_on_their_way_count(self) -> None:
        pacer = Pacer(None)
        stop = threading.Event()
        first, second, third = (pacer.wait(stop) for _ in range(3))
        pacer.done(first)
        pacer.done(second)
        pacer.heard(first, LimitState(remaining=3, reset=30))
        assert pacer.wait(stop)
        assert waits(pacer)  # two more left after the first, and one just now
        pacer.heard(third, LimitState(remaining=2, reset=30))
        assert pacer.wait(stop)
        assert waits(pacer)

    def test_an_earlier_request_that_is_still_on_its_way_counts(self) -> None:
        pacer = Pacer(None)
        stop = threading.Event()
        first, second = (pacer.wait(stop) for _ in range(2))
        pacer.heard(second, LimitState(remaining=1, reset=30))
        assert waits(pacer)
        pacer.done(first)
        pacer.heard(second, LimitState(remaining=1, reset=30))
        assert pacer.wait(stop)

    def test_the_end_of_the_window_ends_the_wait(self) -> None:
        pacer = Pacer(None)
        stop = threading.Event()
        started = time.monotonic()
        pacer.heard(pacer.wait(stop), LimitState(remaining=0, reset=0.2))
        assert pacer.wait(stop)
        assert time.monotonic() - started >= 0.2

    def test_a_limit_that_does_not_say_when_it_ends_holds_nobody(self) -> None:
        pacer = Pacer(None)
        stop = threading.Event()
        pacer.heard(pacer.wait(stop), LimitState(remaining=0))
        assert pacer.wait(stop)


class TestLearning:
    def test_a_refusal_teaches_the_rate_that_answers_tell_of(self) -> None:
        budget = Counting()
        pacer = Pacer(1000.0, budget=budget)
        state = LimitState(remaining=5, reset=1, limit=1, window=20)
        pacer.heard(1, state)
        assert budget.learnt == []
        for _ in range(3):
            pacer.heard(1, state, throttled=True)
        assert budget.learnt == [0.05]
        stop = threading.Event()
        assert pacer.wait(stop)
        assert waits(pacer)

    def test_once_learnt_it_follows_what_is_said(self) -> None:
        budget = Counting()
        pacer = Pacer(None, budget=budget)
        pacer.heard(1, LimitState(limit=10, window=10), throttled=True)
        pacer.heard(2, LimitState(limit=50, window=10))
        assert budget.learnt == [1.0, 5.0]

    def test_a_days_quota_is_no_rate(self) -> None:
        budget = Counting()
        Pacer(None, budget=budget).heard(1, LimitState(0, None, limit=1000, window=86400), throttled=True)
        assert budget.learnt == []

    def test_what_another_process_learnt_counts(self, tmp_path: Path) -> None:
        with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store:
            store.budgets.learn("a", 0.1)
            pacer = Pacer(None, budget=SharedBudget(store.budgets, "a"))
            assert pacer.wait(threading.Event())
            assert waits(pacer)


def test_secrets_are_found_at_any_depth_and_masked() -> None:
    found = secrets_in({"url": "postgresql://me:hunter22@db/x", "nested": [{"password_of": "mysql://a:s3cret99@h/d"}]})
    assert found == {"hunter22", "s3cret99"}
    assert Redactor(found)("login hunter22 failed at s3cret99") == "login *** failed at ***"
