"""A run that is killed at any of its points, once or twice in a row, costs nothing (PROTOCOL 4, 5, 7, 8, 9, 16).

The points are found by watching a run that nobody kills, so that none is missed when the engine
changes. What a power cut does to files that were not flushed cannot be seen this way: a killed
process leaves the operating system with all that it wrote.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from crash_kinds import BACK, KINDS, Kind, write_table
from crashes import Crash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenarios import Prepare, Scenario

MIRROR, INSERT, KEYED, REFRESH, PARTED = KINDS


def survive(scenario: Scenario, *points: str) -> int:
    """Kill a run at the first point, the next run at the second one, and so on; then all must be well.

    Returns how many runs died: threads may pass one another, so that a run has no such point.
    """
    with scenario.crash() as crash:
        try:
            killed = sum(crash.kill(point, options=crash.next_options()) for point in points)
            crash.run(crash.next_options())
            crash.check()
            crash.land()
            crash.check()
            _check_rest(crash)
        except BaseException as error:
            error.add_note(f"killed at: {', then '.join(points)}")
            raise
    return killed


def _check_rest(crash: Crash) -> None:
    """Another run has nothing to do."""
    crash.sent.clear()
    crash.run()
    assert not crash.sent, f"sent without need: {crash.sent}"


def take_back(scenario: Scenario, point: str) -> None:
    """Kill a run; before the next one, the rows are again what they were, whatever is on its way meanwhile."""
    with scenario.crash() as crash:
        try:
            crash.kill(point)
            write_table(crash.folder, BACK)
            crash.run(crash.next_options())
            crash.land()
            crash.rest()
            crash.run()
            assert crash.records == BACK
            assert crash.service.dead_letters("things") == []
            crash.check_leftovers()
        except BaseException as error:
            error.add_note(f"killed at: {point}")
            raise


def sample(points: Sequence[str], count: int, offset: int) -> list[str]:
    """So many of the points, from all parts of the run."""
    step = len(points) // count
    return [points[offset % step + n * step] for n in range(count)]


@pytest.mark.parametrize(
    ("kind", "postgres", "count"),
    [
        (MIRROR, False, 5),
        (INSERT, False, 3),
        (KEYED, False, 2),
        (REFRESH, False, 3),
        (PARTED, False, 3),
        (MIRROR, True, 3),
        (INSERT, True, 2),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else {True: "postgres", False: "sqlite"}.get(value),
)
def test_killed_at_some_points(prepare: Prepare, kind: Kind, postgres: bool, count: int) -> None:
    scenario = prepare(kind, postgres=postgres)
    points = sample(scenario.points(), count, offset=KINDS.index(kind) * 5 + postgres * 3)
    assert sum(survive(scenario, point) for point in points) >= count - 1


def at_every_point(scenario: Scenario) -> None:
    points = scenario.points()
    assert {point.split()[0] for point in points} >= {
        "start",
        "recover",
        "extract",
        "deliver",
        "fold",
        "commit",
        "wire",
    }
    killed = sum(survive(scenario, point) for point in points)
    assert killed >= 0.9 * len(points)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
class TestKilledAtEveryPoint:
    """A class for each store, so that they run side by side."""

    def test_on_sqlite(self, prepare: Prepare, kind: Kind) -> None:
        at_every_point(prepare(kind))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
class TestKilledAtEveryPointOnPostgres:
    def test_on_postgres(self, prepare: Prepare, kind: Kind) -> None:
        at_every_point(prepare(kind, postgres=True))


def test_what_a_killed_run_sent_is_taken_back(prepare: Prepare) -> None:
    scenario = prepare(MIRROR)
    for point in ("wire late 1", "wire applied 6"):
        take_back(scenario, point)


@pytest.mark.long
@pytest.mark.parametrize("kind", [MIRROR, REFRESH], ids=lambda kind: kind.name)
class TestTakenBack:
    def test_at_any_point(self, prepare: Prepare, kind: Kind) -> None:
        scenario = prepare(kind)
        for point in scenario.points():
            if point.split()[0] in ("deliver", "fold", "commit", "wire"):
                take_back(scenario, point)


def twice(scenario: Scenario, *, examples: int) -> None:
    """Kill a run, and the run that recovers it, at points that hypothesis chooses."""
    points = scenario.points()
    unhealthy = [HealthCheck.too_slow, HealthCheck.data_too_large]

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=unhealthy)
    @given(st.sampled_from(points), st.sampled_from(points))
    def killed_twice(first: str, second: str) -> None:
        survive(scenario, first, second)

    killed_twice()


def test_killed_twice_in_a_row(prepare: Prepare) -> None:
    twice(prepare(MIRROR), examples=2)


MANY = int(os.environ.get("RETL_CRASHES", "50"))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
class TestKilledTwiceInARow:
    def test_on_sqlite(self, prepare: Prepare, kind: Kind) -> None:
        twice(prepare(kind), examples=MANY)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
class TestKilledTwiceInARowOnPostgres:
    def test_on_postgres(self, prepare: Prepare, kind: Kind) -> None:
        twice(prepare(kind, postgres=True), examples=MANY)
