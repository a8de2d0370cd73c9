"""The diff's shortcut (unchanged rows are found by their fingerprints) changes nothing but the time it takes."""

from __future__ import annotations

import uuid
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.changes.diff import DiffRules, FillFingerprints, PlanTotals, diff, settled_letters
from dagster_retl.changes.snapshot import load_snapshot
from dagster_retl.model.sync import SyncMode

KEYS = st.sampled_from("abcde")
CONTENTS = st.sampled_from("AB")
MODES = st.sampled_from([SyncMode.UPSERT, SyncMode.MIRROR, SyncMode.INSERT, SyncMode.UPDATE, SyncMode.DELETE])
ROWS = st.lists(
    st.tuples(st.one_of(st.none(), KEYS), CONTENTS, st.sampled_from(["", "", "", "error", "unsendable"])), max_size=7
)


def version(key: str | None, content: str) -> str:
    """A fingerprint covers the key."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{key}/{content}"))


def row_hash(key: str | None, content: str) -> int:
    return uuid.UUID(version(key, content)).int % 2**64


def world(
    rows: Any, snapshot: Any, suspects: Any, letters: Any, silenced: Any, *, hashed: Any = ()
) -> duckdb.DuckDBPyConnection:
    """hashed: the keys whose entry in the snapshot has a row hash."""
    connection = duckdb.connect()
    load_snapshot(connection, None)
    connection.execute("""
        CREATE TABLE staged (n BIGINT, key VARCHAR, record_keys VARCHAR, fingerprint UUID, row_hash UBIGINT,
            error_field VARCHAR, error VARCHAR, unsendable VARCHAR);
        CREATE TABLE suspects (id BIGINT, key VARCHAR, record_keys VARCHAR, fingerprint UUID);
        CREATE TABLE letters (key VARCHAR, fingerprint UUID, rejections BIGINT, held BOOLEAN);
        CREATE TABLE silenced (key VARCHAR, fingerprint UUID);
        CREATE TABLE asked (key VARCHAR);
    """)
    for n, (key, content, trouble) in enumerate(rows, 1):
        troubles = [word if word == trouble else None for word in TROUBLES]
        values = [n, key, "{}", version(key, content), row_hash(key, content), *troubles]
        connection.execute("INSERT INTO staged VALUES (?, ?, ?, ?, ?, NULL, ?, ?)", values)
    for key, content in snapshot.items():
        fingerprint = version(key, content) if content else None
        known = row_hash(key, content) if key in hashed else None
        connection.execute("INSERT INTO no_snapshot VALUES (?, '{}', ?, 'id', ?, NULL)", [key, fingerprint, known])
    for key, content in suspects:
        connection.execute("INSERT INTO suspects VALUES (1, ?, '{}', ?)", [key, version(key, content)])
    for key, (content, rejections, held) in letters.items():
        connection.execute("INSERT INTO letters VALUES (?, ?, ?, ?)", [key, version(key, content), rejections, held])
    for key, content in silenced.items():
        connection.execute("INSERT INTO silenced VALUES (?, ?)", [key, version(key, content)])
    return connection


TROUBLES = ("error", "unsendable")


def without_fingerprints(connection: duckdb.DuckDBPyConnection) -> FillFingerprints:
    """Hide the fingerprints of staged rows; what computes those that are asked for."""
    connection.execute("CREATE TABLE hidden AS SELECT n, fingerprint FROM staged")
    connection.execute("UPDATE staged SET fingerprint = NULL")

    def fill(numbers: str) -> None:
        connection.execute(f"CREATE OR REPLACE TABLE fingerprints AS SELECT * FROM hidden WHERE n IN ({numbers})")

    return fill


def outcome(
    connection: duckdb.DuckDBPyConnection, rules: DiffRules, *, shortcut: bool, by_hash: bool = False
) -> tuple[PlanTotals, Any]:
    fill = without_fingerprints(connection) if by_hash else None
    totals = diff(connection, rules, shortcut=shortcut, fill=fill)
    fates = """
        SELECT n, coalesce(fate, 'unchanged') FROM staged s LEFT JOIN (SELECT n, fate FROM classified) c USING (n)
        ORDER BY n
    """
    found = [connection.execute(fates).fetchall(), connection.execute("FROM sends ORDER BY n, key").fetchall()]
    return totals, [*found, sorted(settled_letters(connection, rules))]


@given(
    mode=MODES,
    rows=ROWS,
    snapshot=st.dictionaries(KEYS, st.sampled_from(["A", "A", "B", ""]), max_size=5),
    suspects=st.lists(st.tuples(KEYS, CONTENTS), max_size=2),
    letters=st.dictionaries(KEYS, st.tuples(CONTENTS, st.integers(1, 3), st.booleans()), max_size=2),
    silenced=st.dictionaries(KEYS, CONTENTS, max_size=2),
    limit=st.one_of(st.none(), st.integers(1, 2)),
    hashed=st.sets(KEYS),
)
@settings(deadline=None, max_examples=60)
def test_it_finds_the_same(
    mode: SyncMode, rows: Any, snapshot: Any, suspects: Any, letters: Any, silenced: Any, limit: int | None, hashed: Any
) -> None:
    rules = DiffRules(mode=mode, max_attempts=3, complete=limit is None, limit=limit)
    found = []
    for shortcut, by_hash in ((True, False), (False, False), (True, True), (False, True)):
        with world(rows, snapshot, suspects, letters, silenced, hashed=hashed) as connection:
            found.append(outcome(connection, rules, shortcut=shortcut, by_hash=by_hash))
    assert all(each == found[1] for each in found)


def candidates(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    diff(connection, DiffRules(mode=SyncMode.MIRROR, max_attempts=3))
    return [key for (key,) in connection.execute("SELECT key FROM candidates ORDER BY n").fetchall()]


def test_only_changed_rows_are_looked_at() -> None:
    rows = [("a", "A", ""), ("b", "B", ""), ("c", "A", "")]
    with world(rows, {"a": "A", "b": "A", "gone": "A"}, [], {}, {}) as connection:
        assert candidates(connection) == ["b", "c"]


@pytest.mark.parametrize("content", ["A", "B"])
def test_all_rows_of_a_duplicated_key_are_looked_at(content: str) -> None:
    """One of them may be what the snapshot says; where both are, the sums do not agree and all rows are looked at."""
    with world([("a", "A", ""), ("a", content, "")], {"a": "A", "b": "A"}, [], {}, {}) as connection:
        assert candidates(connection) == ["a", "a"]


def test_entries_that_only_look_alike_are_found_out() -> None:
    """Should two keys ever share a fingerprint, the row of one is not taken for the entry of the other."""
    with world([], {"a": "A"}, [], {}, {}) as connection:
        connection.execute("INSERT INTO staged SELECT 1, 'b', '{}', fingerprint, 1, NULL, NULL, NULL FROM no_snapshot")
        assert candidates(connection) == ["b"]


def test_rows_whose_entry_has_no_hash_are_looked_at_and_found_unchanged() -> None:
    rows = [("a", "A", ""), ("b", "A", ""), ("c", "B", "")]
    with world(rows, {"a": "A", "b": "A", "c": "A"}, [], {}, {}, hashed={"a", "c"}) as connection:
        totals, _ = outcome(connection, DiffRules(mode=SyncMode.MIRROR, max_attempts=3), shortcut=True, by_hash=True)
        assert connection.execute("SELECT key, fate FROM classified ORDER BY n").fetchall() == [
            ("b", "unchanged"),
            ("c", "send"),
        ]
        assert (totals.unchanged, totals.changed) == (2, 1)
