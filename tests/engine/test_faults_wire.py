"""What wires and gateways do to a request: for each fault, what arrives, what is recorded, what the next run does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from dagster_retl.errors import DestinationError
from dagster_retl.model.runs import RunStatus
from dagster_retl.testing import Rules, faults
from dagster_retl.testing.trouble import Trouble

NAMES = {"1": "a", "2": "b", "3": "c"}


@dataclass(frozen=True)
class Case:
    """A fault of the first request. applied: that request is applied, sooner or later. says: what is known of it."""

    fault: str | Trouble
    applied: bool
    says: str = ""
    readable: bool = True
    """Whether there was a complete answer of HTTP, or none at all; else one that the connector cannot read."""

    @property
    def name(self) -> str:
        return self.fault if isinstance(self.fault, str) else "slow_drip"

    @property
    def hangs(self) -> bool:
        return self.name in ("hang", "hang_applied", "late", "slow_drip")


PATIENCE = 2.0
NO_ANSWER = f"no answer within {PATIENCE:g} s"
CLEAR = [Case("ok", applied=True), Case("latency", applied=True), Case("drip", applied=True)]
LIMITED = [Case("rate_limited", applied=False), Case("rate_limited_date", applied=False)]
AMBIGUOUS = [
    Case("error_500", applied=False, says="HTTP 500 Internal Server Error"),
    Case("error_500_applied", applied=True, says="HTTP 500 Internal Server Error"),
    Case("unavailable", applied=False, says="HTTP 503 Service Unavailable"),
    Case("unavailable_applied", applied=True, says="HTTP 503 Service Unavailable"),
    Case("late_unavailable", applied=True, says="HTTP 503 Service Unavailable"),
    Case("html_502", applied=False, says="HTTP 502 Bad Gateway"),
    Case("reset_before", applied=False, says="Connection reset by peer"),
    Case("reset_after", applied=True, says="Connection reset by peer"),
    Case("truncated", applied=True, says="peer closed connection without sending complete message body"),
    Case("hang", applied=False, says=NO_ANSWER),
    Case("hang_applied", applied=True, says=NO_ANSWER),
    Case("late", applied=True, says=NO_ANSWER),
    Case(faults.drip(0.1), applied=True, says=NO_ANSWER),
    Case("invalid_json", applied=True, says="200 with something that is not JSON (application/json)", readable=False),
    Case("html_200", applied=True, says="200 with a page of HTML", readable=False),
]


FEW = ("latency", "rate_limited", "unavailable_applied", "reset_after", "late_unavailable", "invalid_json")


def cases(*groups: list[Case], quick: Sequence[str] = FEW) -> Any:
    """A test for each case; all but the quick ones run with the long tests."""
    chosen = [case for group in groups for case in group]
    return pytest.mark.parametrize(
        "case",
        [pytest.param(case, id=case.name, marks=() if case.name in quick else pytest.mark.long) for case in chosen],
    )


def all_cases(*groups: list[Case]) -> Any:
    return cases(*groups, quick=[case.name for group in groups for case in group])


@contextmanager
def things(folder: Path, case: Case, rules: Rules | None = None, **sync: Any) -> Iterator[World]:
    """Three rows that are one request, unless `config` says otherwise."""
    config = {"concurrency": 1, "timeout": PATIENCE if case.hangs else 30.0, **sync.pop("config", {})}
    with world(folder, rules, config=config, **sync) as made:
        made.sql("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', 1)")
        yield made


def applied(made: World) -> set[int]:
    """How often each record was changed, those that never were included."""
    counts = made.http.applications()
    return {counts["things", key] for key in NAMES}


def requests_of(made: World, run: Any) -> int:
    """How many requests reach the service while something runs."""
    before = len(made.http.requests)
    run()
    return len(made.http.requests) - before


class TestUpsert:
    """What may have been applied is sent again at once, and remembered as a suspect."""

    @all_cases(CLEAR)
    def test_a_clear_answer_is_taken(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case) as made:
            made.http.script(case.fault)
            counters = made.run().run.counters
            assert (counters.read, counters.written, counters.requests, counters.retries) == (3, 3, 1, 0)
            assert (made.names(), applied(made), made.suspects(), made.letters()) == (NAMES, {1}, 0, {})
            assert requests_of(made, made.run) == 0

    @all_cases(LIMITED)
    def test_a_rate_limit_is_waited_for(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case) as made:
            made.http.script(*[case.fault] * 2)
            counters = made.run().run.counters
            assert (counters.written, counters.requests, counters.retries) == (3, 3, 0)
            assert (made.names(), applied(made), made.suspects(), made.letters()) == (NAMES, {1}, 0, {})

    @all_cases(AMBIGUOUS)
    def test_a_lost_answer_is_asked_for_again(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case) as made:
            made.http.script(case.fault)
            run = made.run().run
            assert run.status is RunStatus.SUCCEEDED
            assert run.counters.balanced()
            # An answer that nobody can read may be the fault of a row: the request is halved.
            assert (run.counters.written, run.counters.requests) == (3, 2 if case.readable else 3)
            assert (made.names(), made.suspects(), made.letters()) == (NAMES, 3, {})
            assert requests_of(made, made.run) == 0
            made.put((1, "A", 2))
            assert made.run().run.counters.written == 1
            made.settle()  # what was late overwrites A
            counts = made.http.applications()
            assert [counts["things", key] for key in "123"] == ([3, 2, 2] if case.applied else [2, 1, 1])
            assert made.run().run.counters.written == 1
            assert (made.names(), made.letters()) == ({**NAMES, "1": "A"}, {})
            assert requests_of(made, made.run) == 0


class TestInsertWithoutIdempotency:
    """What may have been applied is held: nobody sends it again before a person says what happened."""

    @cases(CLEAR, LIMITED)
    def test_a_clear_answer_is_taken_and_a_rate_limit_waited_for(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case, sync_mode="insert") as made:
            made.http.script(case.fault)
            assert made.run().run.counters.written == 3
            assert (made.names(), applied(made), made.letters()) == (NAMES, {1}, {})
            assert requests_of(made, made.run) == 0

    @all_cases(AMBIGUOUS)
    def test_a_lost_answer_holds_the_rows_until_a_person_looks(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case, sync_mode="insert") as made:
            made.http.script(case.fault)
            counters = made.run().run.counters
            assert (counters.written, counters.failed, counters.requests) == (0, 3, 1)
            letters = made.letters()
            assert {(letter.error_code, letter.held) for letter in letters.values()} == {("UNKNOWN_OUTCOME", True)}
            assert all(case.says in letter.message for letter in letters.values()), letters
            made.settle()
            assert requests_of(made, made.run) == 0
            assert made.service.runs()[0].counters.skipped == 3
            assert applied(made) == {1 if case.applied else 0}
            look_and_decide(made)
            counters = made.run().run.counters
            assert (counters.unchanged, counters.requests) == (3, 0)
            assert (made.names(), applied(made), made.letters()) == (NAMES, {1}, {})


def look_and_decide(made: World) -> None:
    """A person looks whether the held inserts arrived; those that did not are sent."""
    ids = [letter.id for letter in made.letters().values() if letter.held]
    if made.records:
        made.service.resolve(ids, "arrived", actor="somebody")
        return
    for _, options in made.service.replays(ids):
        made.service.run("things", options)


class TestInsertWithIdempotencyKey:
    """One row a request, under a key that the service remembers: sent again until there is an answer."""

    CONFIG = {  # noqa: RUF012 - never changed
        "body": "object",
        "batch_rows": None,
        "idempotency_header": "Idempotency-Key",
        "results": {"id_field": "id"},
    }

    @cases(CLEAR, LIMITED, AMBIGUOUS)
    def test_each_row_arrives_once(self, tmp_path: Path, case: Case) -> None:
        rules = Rules(idempotency_header="Idempotency-Key")
        with things(tmp_path, case, rules, sync_mode="insert", config=self.CONFIG) as made:
            made.http.script(case.fault)
            counters = made.run().run.counters
            # A row alone whose answer nobody can read is left for the next run.
            assert (counters.written, counters.failed) == ((3, 0) if case.readable else (2, 1))
            assert [letter.held for letter in made.letters().values()] == [False] * counters.failed
            made.run()
            made.settle()
            assert requests_of(made, made.run) == 0
            assert (made.names(), applied(made), made.letters()) == (NAMES, {1}, {})


class TestRemoval:
    @cases(CLEAR, LIMITED, AMBIGUOUS)
    def test_a_record_that_is_gone_already_is_gone(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case, sync_mode="mirror") as made:
            made.run()
            made.sql("DELETE FROM t WHERE id = 2")
            made.http.script(case.fault)
            counters = made.run().run.counters
            assert (counters.unchanged, counters.removed) == (2, 1)
            made.settle()
            made.run()
            assert (made.names(), made.letters()) == ({"1": "a", "3": "c"}, {})
            assert requests_of(made, made.run) == 0


class TestOutage:
    """Nothing but the fault, for as long as the run lasts."""

    @cases([case for case in AMBIGUOUS if isinstance(case.fault, str)], quick=["unavailable", "invalid_json"])
    def test_the_run_ends_and_the_next_one_does_its_work(self, tmp_path: Path, case: Case) -> None:
        with things(tmp_path, case, config={"batch_rows": 2}) as made:
            made.sql("DELETE FROM t")
            made.sql("INSERT INTO t SELECT n, 'name ' || n, 1 FROM range(10) r(n)")
            made.http.draw(1, {case.name: 1})
            with pytest.raises(DestinationError) as caught:
                made.run()
            assert caught.value.code == "DESTINATION_DOWN"
            assert case.says in caught.value.message
            run = made.service.runs()[0]
            assert (run.status, run.error_code) == (RunStatus.FAILED, "DESTINATION_DOWN")
            assert run.counters.balanced()
            assert (run.counters.written, run.counters.failed) == (0, len(made.letters()))
            assert len(made.letters()) < 4, "an outage is no flood of dead letters"
            assert not any(letter.held for letter in made.letters().values())
            made.http.calm()
            assert made.run().run.counters.written == 10
            made.settle()
            assert made.run().run.counters.unchanged == 10
            assert (made.names(), made.letters()) == ({str(n): f"name {n}" for n in range(10)}, {})
