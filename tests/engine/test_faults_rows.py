"""What a service says of single rows, in the forms in which services say it, and what it forgets to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from dagster_retl.testing import Rules, faults

ENTRY = {"rows_path": "results", "success_field": "status", "success_values": ["ok"], "id_field": "record_id"}
NAMES = {"1": "bad", "2": "b", "3": "c"}


@dataclass(frozen=True)
class Form:
    """How the service answers (`Rules.answers`), and the settings that read it."""

    name: str
    answers: Any
    results: Mapping[str, Any]


BY_INDEX = Form("entries-by-index", "index", ENTRY)
BY_KEY = Form("entries-by-key", "key", {**ENTRY, "index_field": None, "key_field": "id"})
BY_POSITION = Form("entries-by-position", "position", ENTRY)
ERRORS_BY_INDEX = Form("errors-by-index", "errors", {"errors_path": "errors"})
ERRORS_BY_KEY = Form("errors-by-key", "errors", {"index_field": None, "key_field": "id"})
BOTH_LISTS = Form("both-lists", "errors", {"rows_path": "records", "id_field": "record_id"})
FORMS = [BY_INDEX, BY_KEY, BY_POSITION, ERRORS_BY_INDEX, ERRORS_BY_KEY, BOTH_LISTS]


def forms(*chosen: Form) -> Any:
    """Each form with each mode; upserts, and inserts by key, are tested first."""
    return pytest.mark.parametrize(
        ("form", "mode"),
        [
            pytest.param(
                form,
                mode,
                id=f"{mode}-{form.name}",
                marks=() if mode == "upsert" or form is BY_KEY else pytest.mark.long,
            )
            for form in chosen
            for mode in ("upsert", "insert")
        ],
    )


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad is no name" if record["name"] == "bad" else None


def things(folder: Path, form: Form, mode: str = "upsert", rules: Rules | None = None, **config: Any) -> Any:
    """Three rows in one request, of which the first is bad in the eyes of `refuse_bad`."""
    settings = {"results": form.results, "concurrency": 1, **config}
    return world(folder, replace(rules or Rules(), answers=form.answers), config=settings, sync_mode=mode)


def fill(made: World) -> None:
    made.sql("INSERT INTO t VALUES (1, 'bad', 1), (2, 'b', 1), (3, 'c', 1)")


def applications(made: World) -> dict[str, int]:
    return {key: count for (_, key), count in sorted(made.http.applications().items())}


def converges(made: World, names: Mapping[str, str] = NAMES) -> bool:
    """The next runs, over a service without faults, make the destination what the query says, and then rest."""
    made.http.calm()
    made.run()
    assert (made.names(), made.letters()) == (names, {})
    before = len(made.http.requests)
    made.run()
    return len(made.http.requests) == before


def facts(made: World) -> dict[Any, tuple[str, str | None, str, bool]]:
    return {
        key: (letter.error_code, letter.vendor_code, letter.message, letter.held)
        for key, letter in made.letters().items()
    }


class TestRowErrors:
    """Some rows are refused, the others are written, and which is which is clear: nothing is sent twice."""

    @forms(*FORMS)
    @pytest.mark.parametrize("status", [pytest.param(200, marks=pytest.mark.long), 207])
    def test_only_the_refused_row_fails(self, tmp_path: Path, form: Form, mode: str, status: int) -> None:
        with things(tmp_path, form, mode, Rules(refuse=refuse_bad, partial_status=status)) as made:
            fill(made)
            counters = made.run().run.counters
            assert (counters.read, counters.written, counters.failed, counters.requests) == (3, 2, 1, 1)
            assert facts(made) == {1: ("DESTINATION_VALIDATION", "INVALID", "bad is no name", False)}
            assert (applications(made), made.suspects()) == ({"2": 1, "3": 1}, 0)
            assert (made.run().run.counters.unchanged, made.letters()[1].attempts) == (2, 2)
            made.http.rules = replace(made.http.rules, refuse=lambda record: None)
            assert converges(made)
            assert applications(made) == {"1": 1, "2": 1, "3": 1}

    @forms(*FORMS)
    def test_a_row_that_is_locked_for_a_moment_is_sent_again_alone(self, tmp_path: Path, form: Form, mode: str) -> None:
        results = {**form.results, "codes": {"LOCKED": "DESTINATION_LOCKED"}}
        with things(tmp_path, replace(form, results=results), mode) as made:
            fill(made)
            made.http.script(faults.row_errors(lambda record: record["id"] == 2, code="LOCKED", status=207))
            counters = made.run().run.counters
            assert (counters.written, counters.retries, counters.requests) == (3, 1, 2)
            assert b'"id":2' in made.http.requests[1].body
            assert b'"id":1' not in made.http.requests[1].body
            assert (applications(made), made.suspects()) == ({"1": 1, "2": 1, "3": 1}, 0)
            assert converges(made)

    @forms(BY_INDEX, BY_KEY, BY_POSITION, BOTH_LISTS)
    def test_each_row_gets_the_id_of_its_own_record(self, tmp_path: Path, form: Form, mode: str) -> None:
        rules = Rules(refuse=lambda record: "no" if record["id"] == 2 else None)
        with things(tmp_path, form, mode, rules) as made:
            fill(made)
            made.http.script("ok" if form is BY_POSITION else "reordered")
            made.run()
            assert record_ids(made) == {'["1"]': "rec_1", '["3"]': "rec_3"}


def record_ids(made: World) -> dict[str, str | None]:
    """Key → record id, as the snapshot keeps it."""
    (generation,) = (made.project.base / "state").rglob("g-*")
    return dict(made.query(f"SELECT key, record_id FROM read_parquet('{generation}')"))


class TestOrder:
    @forms(BY_INDEX, BY_KEY, ERRORS_BY_INDEX, ERRORS_BY_KEY, BOTH_LISTS)
    def test_answers_that_name_their_rows_come_in_any_order(self, tmp_path: Path, form: Form, mode: str) -> None:
        with things(tmp_path, form, mode, Rules(refuse=refuse_bad)) as made:
            fill(made)
            made.http.script("reordered")
            counters = made.run().run.counters
            assert (counters.written, counters.failed) == (2, 1)
            assert facts(made) == {1: ("DESTINATION_VALIDATION", "INVALID", "bad is no name", False)}
            made.http.rules = replace(made.http.rules, refuse=lambda record: None)
            assert converges(made)
            assert applications(made) == {"1": 1, "2": 1, "3": 1}


UNANSWERED = ("UNKNOWN_OUTCOME", None, "the destination did not answer for this row")


class TestMissingAnswers:
    """The second row of three is applied, and the service does not say so."""

    def missing(self, form: Form) -> Any:
        return faults.missing_answers("records" if form is BOTH_LISTS else "results")

    @forms(BY_INDEX, BY_KEY, BOTH_LISTS)
    def test_a_row_without_an_answer_is_sent_by_the_next_run_or_held(
        self, tmp_path: Path, form: Form, mode: str
    ) -> None:
        held = mode == "insert"
        with things(tmp_path, form, mode) as made:
            fill(made)
            made.http.script(self.missing(form))
            counters = made.run().run.counters
            assert (counters.written, counters.failed, counters.requests) == (2, 1, 1)
            assert facts(made) == {2: (*UNANSWERED, held)}
            assert applications(made) == {"1": 1, "2": 1, "3": 1}
            if held:
                assert (made.run().run.counters.skipped, len(made.http.requests)) == (1, 1)
                made.settle()
                made.service.resolve([made.letters()[2].id], "arrived", actor="somebody")
            else:
                assert made.suspects() == 1
            assert converges(made)
            assert applications(made) == {"1": 1, "2": 1 if held else 2, "3": 1}

    def test_fewer_positions_than_rows_say_nothing_of_any(self, tmp_path: Path) -> None:
        with things(tmp_path, BY_POSITION) as made:
            fill(made)
            made.http.script(self.missing(BY_POSITION))
            counters = made.run().run.counters
            assert (counters.written, counters.failed, counters.requests) == (3, 0, 3)
            assert (applications(made), made.suspects()) == ({"1": 2, "2": 2, "3": 2}, 3)
            assert converges(made)

    def test_and_hold_all_inserts(self, tmp_path: Path) -> None:
        with things(tmp_path, BY_POSITION, "insert") as made:
            fill(made)
            made.http.script(self.missing(BY_POSITION))
            made.run()
            message = (
                "the destination answered 200 with 2 entries for 3 rows, of which none is named: "
                "nobody can tell what became of the rows"
            )
            assert facts(made) == dict.fromkeys((1, 2, 3), ("UNKNOWN_OUTCOME", None, message, True))
            assert (made.run().run.counters.skipped, len(made.http.requests)) == (3, 1)
            made.settle()
            made.service.resolve([letter.id for letter in made.letters().values()], "arrived", actor="somebody")
            assert converges(made)
            assert applications(made) == {"1": 1, "2": 1, "3": 1}


class TestWholeBatch:
    """400 for all because of one."""

    RULES = Rules(refuse=refuse_bad, refusals="whole")

    def test_is_halved_down_to_the_row(self, tmp_path: Path) -> None:
        with things(tmp_path, BY_INDEX, rules=self.RULES) as made:
            fill(made)
            counters = made.run().run.counters
            # [1 2 3], [1], [2 3]
            assert (counters.written, counters.failed, counters.requests) == (2, 1, 3)
            assert facts(made) == {1: ("DESTINATION_VALIDATION", "INVALID", "bad is no name", False)}
            assert (applications(made), made.suspects()) == ({"2": 1, "3": 1}, 0)
            made.http.rules = Rules(answers="index")
            assert converges(made)

    def test_is_halved_for_inserts_where_it_is_atomic(self, tmp_path: Path) -> None:
        with things(tmp_path, BY_INDEX, "insert", self.RULES, atomic_rejection=True) as made:
            fill(made)
            counters = made.run().run.counters
            assert (counters.written, counters.failed, counters.requests) == (2, 1, 3)
            assert facts(made) == {1: ("DESTINATION_VALIDATION", "INVALID", "bad is no name", False)}
            made.http.rules = Rules(answers="index")
            assert converges(made)
            assert applications(made) == {"1": 1, "2": 1, "3": 1}

    def test_holds_inserts_where_nobody_says_that_it_is(self, tmp_path: Path) -> None:
        with things(tmp_path, BY_INDEX, "insert", self.RULES) as made:
            fill(made)
            made.run()
            message = "a batch of inserts was refused as a whole: bad is no name"
            assert facts(made) == dict.fromkeys((1, 2, 3), ("UNKNOWN_OUTCOME", None, message, True))
            assert (made.run().run.counters.skipped, len(made.http.requests)) == (3, 1)
            made.http.rules = Rules(answers="index")
            made.settle()
            for _, options in made.service.replays([letter.id for letter in made.letters().values()]):
                made.service.run("things", options)
            assert converges(made)
            assert applications(made) == {"1": 1, "2": 1, "3": 1}

    @pytest.mark.parametrize("mode", ["upsert", "insert"])
    def test_for_a_moment_passes(self, tmp_path: Path, mode: str) -> None:
        """The service refuses a batch, and then takes its halves."""
        with things(tmp_path, BY_INDEX, mode, atomic_rejection=True) as made:
            fill(made)
            made.http.script(faults.batch_refused(lambda record: record["id"] == 3))
            assert made.run().run.counters.written == 3
            assert applications(made) == {"1": 1, "2": 1, "3": 1}
            assert converges(made)
