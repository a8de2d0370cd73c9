"""A process that stands still until its lease is somebody else's writes nothing when it wakes (PROTOCOL 1, 6).

Its own clock does not notice: by that, its lease still lasts, so that only the store can stop it.
What it sends all the same is suspect, and put right by the first run after `settle`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from crash_kinds import KINDS, WANTED, Kind, write_table
from crashes import IN_TRANSACTION, Crash
from scenarios import Prepare, Scenario
from sqlalchemy import text

MIRROR, INSERT, *_ = KINDS

NEWER = {key: name for key, name in WANTED.items() if key not in (6, 9, 12)} | {4: "newer", 10: "newer", 13: "new"}
"""What the table holds once the run stands still: three rows left, two changed, one came."""

STOPPED = ("LEASE_LOST", "the store's connection was lost")


def leave(crash: Crash) -> None:
    """Nothing needs to be done for others to go on."""


def cut_off(crash: Crash) -> None:
    """The server ends the transaction in which the run stands still, as it does by itself after a minute."""
    with crash.service.store.engine.connect() as conn:
        assert conn.execute(text(f"SELECT pg_terminate_backend(pid) FROM ({IN_TRANSACTION}) t")).all()


def overtaken(scenario: Scenario, point: str, before: Callable[[Crash], None] = leave) -> bool:
    """A run stands still at that point, others do the work, it wakes. False: it holds no lease there."""
    with scenario.crash() as crash:
        try:
            stands = crash.pause(point)
            if not stands or not crash.holds_lease():
                assert (crash.wake() if stands else crash.end()).error is None
                return False
            before(crash)
            _take_over(crash)
            _wake(crash)
            _settle(crash)
        except BaseException as error:
            error.add_note(f"paused at: {point}")
            raise
    return True


def _take_over(crash: Crash) -> None:
    """Another run, of newer rows, after a minute without a heartbeat."""
    crash.look()
    crash.expire_lease()
    write_table(crash.folder, NEWER)
    crash.run()
    crash.check_runs()


def _wake(crash: Crash) -> None:
    """No outcome, pointer, run, letter or lease is touched; what was sent is suspect."""
    http = crash.scenario.http
    tables, suspected, applied = crash.tables(), crash.suspected(), len(http.applied)
    ended = crash.wake()
    assert ended.error in STOPPED, ended
    assert crash.tables() == tables
    now = crash.suspected()
    assert now.items() >= suspected.items()
    doubted = {key for number, (key, _) in now.items() if number not in suspected}
    woken = {int(change.key) for change in http.applied[applied:]}
    assert woken <= doubted, f"sent by a run that woke, and not suspected: {woken - doubted}"


def _settle(crash: Crash) -> None:
    """The first run after `settle` makes good what the run that woke did."""
    crash.rest()
    crash.run()
    in_flight = {key for keys in crash.in_flight.values() for key in keys}
    letters = crash.service.dead_letters("things", limit=200)
    if crash.scenario.kind.holds:
        assert NEWER.keys() - in_flight <= crash.records.keys()
        assert {letter.record_keys["id"] for letter in letters} == in_flight
        applied = Counter(change.key for change in crash.scenario.http.applied)
        assert all(count == 1 for count in applied.values()), applied
    else:
        assert crash.records == NEWER
        assert letters == []
    crash.check_leftovers()


def points_under_lease(scenario: Scenario) -> list[str]:
    """Where a run can stand still and others can go on: not inside a transaction, which holds the store's lock."""
    named = [point for point in scenario.points() if point.split()[2] != "commit" and not point.startswith("wire")]
    return [*named, *(f"wire paused {n}" for n in (1, 2, 3))]


SOME_POINTS = [
    "extract main enter 1",
    "plan main rename 1",  # with a plan that others know nothing of
    "deliver recorder begin 2",  # with answers that are not recorded
    "wire paused 2",
    "fold main rename 1",  # with a generation that nobody will name
    "commit main begin 1",
]


def test_a_run_that_wakes_too_late_leaves_suspects_and_files_that_go(prepare: Prepare) -> None:
    scenario = prepare(MIRROR)
    for point in SOME_POINTS:
        assert overtaken(scenario, point)


def test_the_same_with_a_store_on_postgres(prepare: Prepare) -> None:
    scenario = prepare(MIRROR, postgres=True)
    for point in SOME_POINTS[::2]:
        assert overtaken(scenario, point)
    for point in ("deliver recorder commit 2", "plan main commit 1"):
        assert overtaken(scenario, point, cut_off)


def test_an_insert_that_wakes_too_late_is_held_and_done_once(prepare: Prepare) -> None:
    scenario = prepare(INSERT)
    for point in ("deliver recorder begin 2", "wire paused 2"):
        assert overtaken(scenario, point)


@pytest.mark.long
def test_the_server_ends_the_transaction_of_a_run_that_stands_still(prepare: Prepare) -> None:
    """The lease's row stays locked for the minute that `store.database` grants."""
    assert overtaken(prepare(MIRROR, postgres=True), "deliver recorder commit 2")


@pytest.mark.long
@pytest.mark.parametrize("postgres", [False, True], ids=["sqlite", "postgres"])
@pytest.mark.parametrize("kind", [MIRROR, INSERT], ids=lambda kind: kind.name)
def test_a_run_that_wakes_too_late_at_any_point(prepare: Prepare, kind: Kind, postgres: bool) -> None:
    scenario = prepare(kind, postgres=postgres)
    points = points_under_lease(scenario)
    assert sum(overtaken(scenario, point) for point in points) > 0.7 * len(points)
