"""The fold, on small tables: what a run's manifest and answers make of the snapshot."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.changes import fold
from dagster_retl.changes.outcomes import Outcomes, Status, outcome_table
from dagster_retl.changes.snapshot import DELETED, REMOVED, load_snapshot

EARLY, STARTED, LATE = "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z", "2026-01-03T00:00:00.000000Z"


def version(name: str) -> str:
    return name if "-" in name else str(uuid.uuid5(uuid.NAMESPACE_OID, name))


@dataclass(frozen=True)
class Planned:
    """A row of a manifest. status: None where its batch has no answer; "" where it was never started."""

    key: str
    content: str
    status: Status | str | None
    ambiguous: bool = False
    record_id: str | None = None

    @property
    def removal(self) -> bool:
        return self.content == REMOVED


class Ledger:
    """A run's tables; each row of the manifest is a batch of its own."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        load_snapshot(self.connection, None)
        self.connection.execute(f"""
            CREATE TABLE manifest ({fold.MANIFEST_COLUMNS});
            CREATE TABLE started (batch INTEGER, started_at VARCHAR);
            CREATE TABLE accepted (id BIGINT, key VARCHAR, record_keys VARCHAR, fingerprint VARCHAR, partition VARCHAR);
            CREATE TABLE suspects (id BIGINT, key VARCHAR, fingerprint VARCHAR, until VARCHAR);
        """)
        self.connection.execute(fold.FORGOTTEN)
        self._answers: list[tuple[int, str, bytes]] = []
        self._batches = 0

    def remember(self, key: str, content: str | None, record_id: str | None = None) -> None:
        fingerprint = None if content is None else version(content)
        self.connection.execute(
            "INSERT INTO no_snapshot VALUES (?, ?, ?, ?, NULL, NULL)", [key, key, fingerprint, record_id]
        )

    def plan(self, row: Planned) -> None:
        batch, self._batches = self._batches, self._batches + 1
        values = [batch, 0, "upsert", row.removal, row.key, row.key, version(row.content), None, False, None]
        self.connection.execute(f"INSERT INTO manifest VALUES ({', '.join('?' * 10)})", values)
        if row.status == "":
            return
        self.connection.execute("INSERT INTO started VALUES (?, ?)", [batch, STARTED])
        if row.status is not None:
            ids = {} if row.record_id is None else {0: row.record_id}
            outcomes = Outcomes([Status(row.status)], [0] if row.ambiguous else [], ids)
            self._answers.append((batch, STARTED, outcomes.encode()))

    def forget(self, key: str) -> None:
        values = "NULL, NULL, 'forget', FALSE, ?, ?, NULL, NULL, FALSE, NULL"
        self.connection.execute(f"INSERT INTO manifest VALUES ({values})", [key, key])

    def accept(self, number: int, key: str, content: str | None) -> None:
        fingerprint = None if content is None else version(content)
        self.connection.execute("INSERT INTO accepted VALUES (?, ?, ?, ?, NULL)", [number, key, key, fingerprint])

    def suspect(self, number: int, key: str, content: str, until: str) -> None:
        self.connection.execute("INSERT INTO suspects VALUES (?, ?, ?, ?)", [number, key, version(content), until])

    def fold(self) -> dict[str, tuple[str | None, str | None]]:
        """Key → (content, record id) of the next generation."""
        self.connection.register("answers", outcome_table(self._answers))
        self.connection.execute("CREATE OR REPLACE TABLE outcomes AS SELECT * FROM answers")
        fold.answer(self.connection)
        self.connection.execute(f"CREATE OR REPLACE VIEW snapshot_next AS {fold.next_snapshot()}")
        rows = self.connection.execute("SELECT key, fingerprint::VARCHAR, record_id FROM snapshot_next").fetchall()
        assert len({row[0] for row in rows}) == len(rows), "a key is in the snapshot twice"
        return {key: (content, record_id) for key, content, record_id in rows}

    def unanswered(self) -> list[tuple[str, str]]:
        return [(row.key, row.content) for block in fold.unanswered(self.connection) for row in block]

    def never_answered(self) -> list[str]:
        return [row.key for block in fold.never_answered(self.connection) for row in block]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger()
    yield made
    made.connection.close()


A, B = version("A"), version("B")


def test_accepted_versions_replace_the_old_ones_and_the_rest_stays(ledger: Ledger) -> None:
    for key in ("same", "changed", "refused"):
        ledger.remember(key, "A", f"id of {key}")
    ledger.plan(Planned("changed", "B", Status.WRITTEN))
    ledger.plan(Planned("new", "A", Status.UNCONFIRMED, record_id="new id"))
    ledger.plan(Planned("refused", "B", Status.FAILED))
    ledger.plan(Planned("never tried", "B", ""))
    assert ledger.fold() == {
        "same": (A, "id of same"),
        "changed": (B, None),
        "new": (A, "new id"),
        "refused": (A, "id of refused"),
    }
    assert fold.changed_rows(ledger.connection) == 2


@pytest.mark.parametrize("status", [Status.MISSING, Status.GONE])
def test_a_record_that_is_not_there_leaves_the_snapshot(ledger: Ledger, status: Status) -> None:
    """PROTOCOL 15, S13."""
    ledger.remember("k", "A")
    ledger.plan(Planned("k", "B", status))
    assert ledger.fold() == {}


def test_an_accepted_removal_leaves_nothing(ledger: Ledger) -> None:
    ledger.remember("gone", "A")
    ledger.remember("kept", "A")
    ledger.plan(Planned("gone", REMOVED, Status.WRITTEN))
    ledger.plan(Planned("kept", REMOVED, Status.FAILED))
    assert ledger.fold() == {"kept": (A, None)}


def test_what_a_delete_sync_deleted_is_remembered_until_it_left_the_query(ledger: Ledger) -> None:
    ledger.remember("left", DELETED)
    ledger.plan(Planned("deleted", DELETED, Status.WRITTEN))
    ledger.forget("left")
    assert ledger.fold() == {"deleted": (DELETED, None)}


def test_a_person_is_believed_unless_the_destination_answered_later(ledger: Ledger) -> None:
    ledger.remember("pushed", "A")
    ledger.remember("removed by hand", "A")
    ledger.plan(Planned("answered", "B", Status.WRITTEN))
    ledger.plan(Planned("refused", "B", Status.FAILED))
    for number, (key, content) in enumerate(
        [("pushed", "B"), ("answered", "A"), ("refused", "B"), ("removed by hand", REMOVED), ("never there", None)]
    ):
        ledger.accept(number, key, content)
    assert ledger.fold() == {"pushed": (B, None), "answered": (B, None), "refused": (B, None)}


def test_the_last_of_two_decisions_about_a_key_counts(ledger: Ledger) -> None:
    ledger.accept(1, "k", "A")
    ledger.accept(2, "k", "B")
    assert ledger.fold() == {"k": (B, None)}


def test_a_stale_generation_keeps_its_keys_only(ledger: Ledger) -> None:
    """PROTOCOL 11: what a refresh did not reach is known to be there, and nobody vouches for its content."""
    ledger.remember("not reached", None, "id")
    ledger.plan(Planned("reached", "A", Status.WRITTEN))
    assert ledger.fold() == {"not reached": (None, "id"), "reached": (A, None)}


def test_rows_without_a_clear_answer_are_suspects(ledger: Ledger) -> None:
    """PROTOCOL 5: whatever a later attempt answered."""
    ledger.plan(Planned("in flight", "A", None))
    ledger.plan(Planned("accepted", "A", Status.WRITTEN, ambiguous=True))
    ledger.plan(Planned("refused", "A", Status.FAILED, ambiguous=True))
    ledger.plan(Planned("clear", "A", Status.WRITTEN))
    ledger.plan(Planned("not started", "A", ""))
    ledger.fold()
    assert sorted(ledger.unanswered()) == [("accepted", A), ("in flight", A), ("refused", A)]
    assert ledger.never_answered() == ["in flight"]


@pytest.mark.parametrize(
    ("until", "status", "cleared"),
    [
        (EARLY, Status.WRITTEN, True),
        (EARLY, Status.FAILED, False),
        (EARLY, None, False),
        (LATE, Status.WRITTEN, False),
        (STARTED, Status.WRITTEN, False),
    ],
)
def test_an_acceptance_clears_what_could_land_no_more_when_it_was_sent(
    ledger: Ledger, until: str, status: Status | None, cleared: bool
) -> None:
    """PROTOCOL 6."""
    ledger.suspect(7, "k", "A", until)
    ledger.plan(Planned("k", "B", status))
    ledger.fold()
    assert fold.cleared_suspects(ledger.connection, STARTED) == ([7] if cleared else [])


def test_a_suspect_that_agrees_with_the_snapshot_says_nothing_once_it_is_settled(ledger: Ledger) -> None:
    ledger.remember("k", "A")
    for number, (content, until) in enumerate([("A", EARLY), ("B", EARLY), ("A", LATE)]):
        ledger.suspect(number, "k", content, until)
    ledger.fold()
    assert fold.cleared_suspects(ledger.connection, STARTED) == [0]


def test_a_settled_removal_says_nothing_of_a_key_that_the_snapshot_lacks(ledger: Ledger) -> None:
    ledger.remember("kept", "A")
    for number, (key, until) in enumerate([("gone", EARLY), ("gone", LATE), ("kept", EARLY)]):
        ledger.suspect(number, key, REMOVED, until)
    ledger.fold()
    assert fold.cleared_suspects(ledger.connection, STARTED) == [0]


STATUSES = st.one_of(st.none(), st.just(""), st.sampled_from(list(Status)))
KEYS = "abcdef"
CONTENTS = st.sampled_from(["A", "B", REMOVED, DELETED])


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, str | None], dict[str, Planned], set[str], list[tuple[str, str]]]:
    snapshot = draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["A", "B", None])))
    planned = {
        key: Planned(key, draw(CONTENTS), draw(STATUSES), draw(st.booleans()))
        for key in draw(st.sets(st.sampled_from(KEYS)))
    }
    forgotten = draw(st.sets(st.sampled_from(KEYS))) - set(planned)
    decisions = draw(st.lists(st.tuples(st.sampled_from(KEYS), CONTENTS), max_size=4))
    return snapshot, planned, forgotten, decisions


def model(
    snapshot: dict[str, str | None], planned: dict[str, Planned], forgotten: set[str], decisions: list[tuple[str, str]]
) -> dict[str, str | None]:
    """What the fold means, a key at a time: forgetting, then people, then answers."""
    after = {key: content for key, content in snapshot.items() if key not in forgotten}
    after |= dict(decisions)
    for key, row in planned.items():
        if row.status in (Status.WRITTEN, Status.UNCONFIRMED):
            after[key] = row.content
        elif row.status in (Status.MISSING, Status.GONE):
            after.pop(key, None)
    return {key: content for key, content in after.items() if content != REMOVED}


@settings(max_examples=150, deadline=None)
@given(run=runs())
def test_the_fold_is_what_the_model_says(run: Any) -> None:
    snapshot, planned, forgotten, decisions = run
    ledger = Ledger()
    for key, content in snapshot.items():
        ledger.remember(key, content)
    for row in planned.values():
        ledger.plan(row)
    for key in forgotten:
        ledger.forget(key)
    for number, (key, content) in enumerate(decisions):
        ledger.accept(number, key, content)
    expected = {
        key: None if content is None else version(content)
        for key, content in model(snapshot, planned, forgotten, decisions).items()
    }
    assert {key: content for key, (content, _) in ledger.fold().items()} == expected
    for removal in (False, True):
        tally = fold.tally(ledger.connection, removal=removal)
        assert tally.planned == sum(row.removal == removal for row in planned.values())
        assert tally.not_sent == sum(
            row.removal == removal and row.status in ("", Status.NOT_SENT) for row in planned.values()
        )
    ledger.connection.close()
