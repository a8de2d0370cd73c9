"""Explaining a row: what it says is what happened, and what it foretells is what the next run does."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from capricious import Capricious, Fate, Sent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nursery import Nursery
from worlds import World, project_of, world

from dagster_retl.engine.explain import Explanation
from dagster_retl.errors import ConfigurationError, RetlError
from dagster_retl.model.runs import Guard
from dagster_retl.service import Service
from dagster_retl.testing.fake_http import Rules

ALL_GUARDS = frozenset(Guard)
KEYS = (1, 2)
NO_ADDRESS = "http://127.0.0.1:9"


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad" if str(record["name"]).startswith("bad") else None


@contextmanager
def scripted(folder: Path, *, config: Mapping[str, Any] | None = None, **sync: Any) -> Iterator[World]:
    """A world whose service does to requests what a script says."""
    with Capricious(Rules(refuse=refuse_bad)) as http:
        project = project_of(folder, http.url, config={"concurrency": 1, **(config or {})}, **sync)
        with Service(project) as service:
            made = World(project, service, http, folder / "warehouse.duckdb")
            made.sql("CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2))")
            yield made


def explain(made: World, key: object, **how: Any) -> Explanation:
    return made.service.explain("things", {"id": key}, **how)


def outcomes(told: Explanation) -> list[tuple[str, str]]:
    return [(attempt.operation, attempt.outcome) for attempt in told.attempts]


class TestWhatItSays:
    def test_of_a_row_from_refusal_to_removal(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), sync_mode="mirror") as made:
            made.put((1, "bad", 1), (2, "b", 1))
            refused = made.run().run
            told = explain(made, "1")
            assert (told.delivered, outcomes(told)) == (None, [("upsert", "failed")])
            assert (told.attempts[0].error_code, told.attempts[0].run_id) == ("DESTINATION_VALIDATION", refused.id)
            assert [(letter.error_code, letter.resolved) for letter in told.letters] == [
                ("DESTINATION_VALIDATION", False)
            ]
            made.put((1, "good", 1))
            accepted = made.run().run
            told = explain(made, 1)
            assert told.delivered is not None
            assert (told.delivered.run_id, told.delivered.since) == (accepted.id, told.attempts[-1].at)
            assert told.delivered.content == told.attempts[-1].content
            assert told.now is not None
            assert told.now.outcome == "unchanged"
            made.sql("DELETE FROM t WHERE id = 1")
            told = explain(made, 1)
            assert told.now is not None
            assert told.now.outcome == "delete"
            made.run(overrides=ALL_GUARDS)
            told = explain(made, 1)
            assert (told.delivered, outcomes(told)[-1], told.attempts[-1].removal) == (
                None,
                ("delete", "written"),
                True,
            )
            assert told.now is not None
            assert told.now.outcome == "absent"
            assert told.missing == []

    def test_of_a_row_that_cannot_be_mapped(self, tmp_path: Path) -> None:
        mappings = [
            {"source": "id", "destination": "id", "key": True},
            {"source": "CAST(name AS INTEGER)", "destination": "name"},
        ]
        with world(tmp_path, field_mappings=mappings) as made:
            made.put((1, "one", 1))
            made.sql("INSERT INTO t VALUES (2, '2', 1), (2, '3', 1)")
            one, two = explain(made, 1).now, explain(made, 2).now
            assert one is not None
            assert two is not None
            assert (one.outcome, two.outcome) == ("fails", "fails")
            assert one.failing is not None
            assert two.failing is not None
            assert (one.failing.code, two.failing.code) == ("MAPPING_ERROR", "DUPLICATE_SOURCE_KEY")
            assert two.failing.message.startswith("2 rows of the query have this key")

    def test_of_parked_silenced_and_accepted_versions(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), max_attempts=2) as made:
            made.put((1, "bad", 1))
            made.run()
            assert not explain(made, 1).parked(explain(made, 1).letters[0])
            made.run()
            told = explain(made, 1)
            assert told.now is not None
            assert (told.parked(told.letters[0]), told.now.outcome, told.now.reason) == (True, "skipped", "parked")

            made.service.resolve([told.letters[0].id], "skipped", actor="me")
            told = explain(made, 1)
            assert told.now is not None
            assert (told.silences(told.letters[0]), told.now.reason) == (True, "silenced")
            assert not told.parked(told.letters[0])

            made.put((1, "bad again", 1))
            made.run()
            told = explain(made, 1)
            assert [told.silences(letter) for letter in told.letters] == [False, False]
            made.service.resolve([told.letters[-1].id], "manual_push", actor="me")
            told = explain(made, 1)
            assert told.now is not None
            assert ([each.accepted for each in told.decisions], told.now.outcome) == ([True], "unchanged")
            made.run()
            told = explain(made, 1)
            assert told.delivered is not None
            assert (told.decisions, told.delivered.run_id) == ([], None)

            made.put((1, "good", 1))
            delivering = made.run().run
            told = explain(made, 1, offline=True)
            assert told.delivered is not None
            assert told.delivered.run_id == delivering.id
            made.put((1, "bad at last", 1))
            made.run()
            made.service.resolve([explain(made, 1, offline=True).letters[-1].id], "manual_push", actor="me")
            made.run()
            told = explain(made, 1, offline=True)
            assert told.delivered is not None
            assert told.delivered.run_id is None  # what it holds now, a person wrote

    def test_of_a_held_insert(self, tmp_path: Path) -> None:
        with scripted(tmp_path, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.http.expect(["reset_applied"])  # type: ignore[attr-defined]
            made.run()
            told = explain(made, 1)
            assert told.now is not None
            assert (told.letters[0].held, told.now.outcome, told.now.reason) == (True, "skipped", "held")
            assert told.letters[0].held_until is not None
            assert told.letters[0].held_until > datetime.now(UTC) + timedelta(minutes=14)

    def test_of_a_request_that_may_still_land(self, tmp_path: Path) -> None:
        with scripted(tmp_path) as made:
            made.put((1, "a", 1))
            made.http.expect(["late"])  # type: ignore[attr-defined]
            made.run()
            told = explain(made, 1)
            assert told.delivered is not None
            assert [each.content for each in told.suspects] == [told.delivered.content]

    def test_of_a_killed_run_that_nobody_folded(self, tmp_path: Path, nursery: Nursery) -> None:
        with scripted(tmp_path, config={"batch_rows": 1}) as made:
            made.put((1, "old", 1))
            before = made.run().run
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            assert isinstance(made.http, Capricious)
            made.http.expect(["ok", "kill"])
            made.http.meet(nursery.begin(tmp_path, made.http.url, config={"batch_rows": 1, "concurrency": 1}))
            assert nursery.end().killed
            told = {key: explain(made, key, offline=True) for key in (1, 2, 3)}
            # The first answer may not have been written down, the third row may have been due.
            assert outcomes(told[1]) in ([("upsert", "written"), ("upsert", each)] for each in ("written", "unknown"))
            assert outcomes(told[2]) == [("upsert", "unknown")]
            assert outcomes(told[3]) in ([], [("upsert", "unknown")])
            assert [attempt.folded for attempt in told[1].attempts] == [True, False]
            assert told[1].delivered is not None
            assert told[1].delivered.run_id == before.id
            now = explain(made, 1).now
            assert now is not None
            assert "a run was interrupted" in now.warnings[0]

    def test_what_is_missing(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            first = made.run().run
            made.put((1, "b", 1))
            second = made.run().run
            damaged = next(file for file in made.service.store.history.files(first.sync_id) if file.run_id == first.id)
            (tmp_path / "state" / damaged.name).write_bytes(b"PAR1")
            told = explain(made, 1, offline=True)
            assert [attempt.run_id for attempt in told.attempts] == [second.id]
            assert len(told.missing) == 1
            assert first.id in told.missing[0]
            assert "damaged" in told.missing[0]
            for generation in (tmp_path / "state").rglob("g-*"):
                generation.unlink()
            told = explain(made, 1)
            assert "the snapshot" in told.missing[0]
            assert told.now is not None
            assert told.now.error is not None
            assert told.now.error.code == "STATE_MISSING"

    def test_without_asking_anybody(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            made.run()
            project = project_of(tmp_path, NO_ADDRESS)
            project = project.model_copy(update={"store": made.project.store})
            made.warehouse.unlink()
            with Service(project) as elsewhere:
                told = elsewhere.explain("things", {"id": 1}, offline=True)
                assert (outcomes(told), told.now) == ([("upsert", "written")], None)
                now = elsewhere.explain("things", {"id": 1}).now
                assert now is not None
                assert isinstance(now.error, RetlError)

    def test_keys_are_compared_as_the_destination_does(self, tmp_path: Path) -> None:
        mappings = [
            {"source": "name", "destination": "name", "key": True},
            {"source": "id", "destination": "id", "key": True},
        ]
        with world(tmp_path, field_mappings=mappings, config={"results": None}) as made:
            made.put((42, "EU", 1))
            made.run()
            assert made.service.explain("things", {"name": "EU", "id": "42"}, offline=True).delivered is not None
            assert made.service.explain("things", {"name": "eu", "id": 42}, offline=True).delivered is None
            with pytest.raises(ConfigurationError, match="not a key") as caught:
                made.service.explain("things", {"name": "EU"})
            assert "name, id" in (caught.value.hint or "")


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(["a", "b", "bad"])),
    st.tuples(st.just("drop"), st.sampled_from(KEYS)),
    st.tuples(st.just("duplicate"), st.sampled_from(KEYS)),
    st.tuples(st.just("decide"), st.sampled_from(["skipped", "manual_push", "fixed"])),
    st.tuples(st.just("run"), st.lists(st.sampled_from(["ok", "lost", "applied"]), max_size=2)),
    st.tuples(st.just("run"), st.just([])),
)


class Story:
    """A sync, and what its service saw of each row."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.seen: dict[int, set[str | None]] = defaultdict(set)
        self.told: dict[int, list[tuple[str, bool, str]]] = defaultdict(list)
        self.http.sent = self._saw

    @property
    def http(self) -> Capricious:
        assert isinstance(self.made.http, Capricious)
        return self.made.http

    def _saw(self, row: Sent) -> None:
        self.seen[row.key].add(row.content)

    def take(self, step: Sequence[Any]) -> None:
        match step:
            case ["put", key, name]:
                self.made.put((key, name, 1))
            case ["drop", key]:
                self.made.sql("DELETE FROM t WHERE id = ?", [key])
            case ["duplicate", key]:
                self.made.sql("INSERT INTO t SELECT id, 'copy', score FROM t WHERE id = ? LIMIT 1", [key])
            case ["decide", resolution]:
                ids = [letter.id for letter in self.made.service.dead_letters("things")]
                self.made.service.resolve(ids, resolution, actor="me")
            case ["run", fates]:
                self.run(fates)

    def run(self, fates: Sequence[Fate]) -> None:
        foretold = {key: explain(self.made, key) for key in KEYS}
        self.seen.clear()
        self.http.expect(fates)
        run = self.made.run(overrides=ALL_GUARDS).run
        for key in KEYS:
            self._check_foretold(key, foretold[key])
            self.told[key] += [(run.id, name is None, self._outcome(name)) for name in self.seen[key]]
            self._check_told(key)

    def _outcome(self, name: str | None) -> str:
        return "failed" if name == "bad" else "written"

    def _check_foretold(self, key: int, told: Explanation) -> None:
        assert told.now is not None
        assert told.now.error is None
        sent = self.seen[key]
        match told.now.outcome:
            case "create" | "update":
                assert sent == {told.now.values["name"]}
            case "delete":
                assert sent == {None}
            case _:
                assert sent == set()

    def _check_told(self, key: int) -> None:
        told = explain(self.made, key, offline=True)
        attempts = [(each.run_id, each.removal, each.outcome) for each in told.attempts]
        assert attempts == self.told[key]
        assert all(attempt.error_code == ("DESTINATION_VALIDATION" if attempt.outcome == "failed" else None)
                   for attempt in told.attempts)  # fmt: skip
        accepted = [attempt for attempt in told.attempts if attempt.accepted]
        if told.delivered is not None and told.delivered.run_id is not None:
            assert told.delivered.run_id == accepted[-1].run_id
        if accepted and accepted[-1].removal:
            assert told.delivered is None or told.delivered.run_id is None  # somebody may have said it is there
        elif accepted:
            assert told.delivered is not None


def _live(steps: Sequence[Sequence[Any]]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted(Path(folder), sync_mode="mirror", max_attempts=2) as made,
    ):
        story = Story(made)
        for step in [*steps, ("run", [])]:
            story.take(step)


def test_it_agrees_with_what_happens() -> None:
    _live([("put", 1, "bad"), ("run", []), ("decide", "manual_push"), ("run", []), ("drop", 1)])
    _live([("put", 1, "a"), ("put", 2, "b"), ("run", ["applied"]), ("put", 1, "bad"), ("duplicate", 2), ("run", [])])


@pytest.mark.long
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=2, max_size=9))
def test_it_agrees_with_whatever_happens(steps: list[Sequence[Any]]) -> None:
    _live(steps)
