"""Fewer requests in flight after a 429, slowly more again."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.engine.concurrency import Gate, Window


def test_it_halves_once_a_round_trip_and_never_below_one() -> None:
    window = Window(most=32, size=32)
    for number in range(1, 33):  # all that were in flight are refused
        window = window.throttled(number, latest=32)
    assert window.size == 16
    window = window.throttled(33, latest=48)
    assert window.size == 8
    for number in range(49, 54):
        window = window.throttled(number, latest=number)
    assert window.size == 1


def test_a_window_of_good_answers_makes_room_for_one_more() -> None:
    window = Window(most=8, size=8).throttled(1, latest=8)
    sizes = []
    for number in range(9, 9 + 4 + 5 + 6 + 7 + 3):
        window = window.well(number)
        sizes.append(window.size)
    assert sizes == [4] * 3 + [5] * 5 + [6] * 6 + [7] * 7 + [8] * 4


def test_answers_to_what_left_before_the_cut_make_no_room() -> None:
    window = Window(most=2, size=2).throttled(2, latest=2)
    assert window.well(1).size == 1
    assert window.well(3).size == 2


@given(st.integers(1, 64), st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=200))
def test_it_stays_between_one_and_its_most(most: int, answers: list[tuple[bool, int]]) -> None:
    window, latest = Window(most, most), 0
    for well, more in answers:
        latest += more
        before = window
        window = window.well(latest) if well else window.throttled(latest, latest + more)
        assert 1 <= window.size <= most
        assert window.size - before.size <= 1
        assert window.size >= before.size // 2


@given(st.integers(2, 40))
def test_it_grows_back(most: int) -> None:
    window = Window(most, most).throttled(1, latest=1)
    for number in range(2, 2 + most * most):
        window = window.well(number)
    assert window.size == most


def fly(gate: Gate, stop: threading.Event, well: bool | None) -> None:
    with gate.passing(stop) as permit:
        permit.well = well


def test_a_gate_learns_from_permits() -> None:
    gate, stop = Gate(8), threading.Event()
    fly(gate, stop, None)
    assert gate.size == 8
    fly(gate, stop, False)
    assert gate.size == 4
    for _ in range(4):
        fly(gate, stop, True)
    assert gate.size == 5


def test_no_more_than_the_window_fly_at_once() -> None:
    gate, stop = Gate(8), threading.Event()
    for _ in range(2):
        fly(gate, stop, False)
    flying, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal flying, most
        for _ in range(5):
            with gate.passing(stop):
                with lock:
                    flying += 1
                    most = max(most, flying)
                time.sleep(0.002)
                with lock:
                    flying -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_a_stop_ends_the_wait_for_room() -> None:
    gate, stop = Gate(1), threading.Event()
    with gate.passing(stop):
        waiting = threading.Thread(target=fly, args=(gate, stop, None))
        waiting.start()
        stop.set()
        waiting.join(timeout=20)
        assert not waiting.is_alive()
