"""The sql connector writes what it is given, and answers every row, on each database."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_databases import Place, codes

from dagster_retl.errors import DestinationError, ErrorCode

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL, age INTEGER CHECK (age >= 0))"


def _rows(*names: str, start: int = 1) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(names, start)]


def _names(place: Place) -> dict[int, str]:
    return dict(place.ask("SELECT id, name FROM t ORDER BY id"))


def test_upsert_creates_and_changes(sql_place: Place) -> None:
    sql_place.run(TABLE)
    sql_place.write_all("upsert", _rows("Ada", "Bo"))
    sql_place.write_all("upsert", _rows("Bob", "Cy", start=2))
    assert _names(sql_place) == {1: "Ada", 2: "Bob", 3: "Cy"}


def test_an_omitted_field_keeps_its_value(sql_place: Place) -> None:
    sql_place.run(TABLE)
    sql_place.write_all("upsert", [{"id": 1, "name": "Ada", "age": 36}, {"id": 2, "name": "Bo", "age": 20}])
    results = sql_place.write(
        "upsert", [{"id": 1, "age": 37}, {"id": 2, "name": "Bob"}, {"id": 3, "name": "Cy"}, {"id": 4, "age": 1}]
    )
    assert codes(results) == [None, None, None, ErrorCode.MISSING_REQUIRED_FIELD]
    assert "name" in str(results[3].fault)
    assert sql_place.ask("SELECT * FROM t ORDER BY id") == [(1, "Ada", 37), (2, "Bob", 20), (3, "Cy", None)]


def test_a_row_of_nothing_but_its_key(sql_place: Place) -> None:
    sql_place.run("CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(40) DEFAULT 'new')")
    for _ in range(2):
        sql_place.write_all("upsert", [{"id": 1}, {"id": 2}])
    sql_place.write_all("update", [{"id": 1}])
    assert codes(sql_place.write("update", [{"id": 3}])) == [ErrorCode.NOT_FOUND]
    assert _names(sql_place) == {1: "new", 2: "new"}


def test_insert_refuses_a_record_that_exists(sql_place: Place) -> None:
    sql_place.run(TABLE)
    sql_place.write_all("insert", _rows("Ada"))
    results = sql_place.write("insert", _rows("Eve", "Bo"))
    assert codes(results) == [ErrorCode.CONFLICT, None]
    assert results[0].fault is not None
    assert results[0].fault.vendor_code
    assert _names(sql_place) == {1: "Ada", 2: "Bo"}


def test_insert_without_key(sql_place: Place) -> None:
    sql_place.run("CREATE TABLE t (name VARCHAR(40))")
    sql_place.write_all("insert", [{"name": "same"}, {"name": "other"}], key="name")
    sql_place.write_all("insert", [{"name": "same"}], key="name")
    assert sorted(sql_place.ask("SELECT name FROM t")) == [("other",), ("same",), ("same",)]


def test_update_never_creates(sql_place: Place) -> None:
    sql_place.run(TABLE, "INSERT INTO t VALUES (1, 'Ada', 1), (2, 'Bo', 2), (3, 'Cy', 3)")
    results = sql_place.write("update", _rows("Ada", "Bob", "Cyd", "Di"))
    assert codes(results) == [None, None, None, ErrorCode.NOT_FOUND]
    assert sql_place.ask("SELECT * FROM t ORDER BY id") == [(1, "Ada", 1), (2, "Bob", 2), (3, "Cyd", 3)]


def test_update_by_a_key_that_is_not_unique(sql_place: Place) -> None:
    sql_place.run("CREATE TABLE t (id INTEGER, name VARCHAR(40))", "INSERT INTO t VALUES (1, 'a'), (1, 'b'), (2, 'c')")
    results = sql_place.write("update", _rows("x", "y", "z"))
    assert codes(results) == [None, None, ErrorCode.NOT_FOUND], "two records of one key do not stand for a missing one"
    assert sorted(sql_place.ask("SELECT * FROM t")) == [(1, "x"), (1, "x"), (2, "y")]


def test_delete_removes_and_does_not_miss(sql_place: Place) -> None:
    sql_place.run(TABLE, "INSERT INTO t VALUES (1, 'Ada', 1), (2, 'Bo', 2), (3, 'Cy', 3)")
    sql_place.write_all("delete", [{"id": 1}, {"id": 3}, {"id": 9}])
    assert _names(sql_place) == {2: "Bo"}


def test_a_key_of_several_fields(sql_place: Place) -> None:
    sql_place.run("CREATE TABLE t (a INTEGER, b VARCHAR(10), n INTEGER, PRIMARY KEY (a, b))")
    rows: list[dict[str, Any]] = [{"a": 1, "b": "x", "n": 1}, {"a": 1, "b": "y", "n": 2}, {"a": 2, "b": "x", "n": 3}]
    sql_place.write_all("upsert", rows, key=("b", "a"))
    sql_place.write_all("upsert", [{**row, "n": row["n"] + 10} for row in rows], key=("b", "a"))
    sql_place.write_all("delete", [{"a": 1, "b": "y"}], key=("a", "b"))
    assert sorted(sql_place.ask("SELECT * FROM t")) == [(1, "x", 11), (2, "x", 13)]


def test_each_refusal_has_its_code(sql_place: Place) -> None:
    sql_place.run(TABLE)
    bad: list[tuple[dict[str, Any], ErrorCode | None]] = [
        ({"id": 1, "name": None}, ErrorCode.MISSING_REQUIRED_FIELD),
        ({"id": 2, "name": "Bo", "age": -1}, ErrorCode.DESTINATION_VALIDATION),
        ({"id": 3, "name": "Cy", "age": "forty"}, ErrorCode.TYPE_COERCION),
        ({"id": 4, "name": "Di", "age": 4}, None),
        ({"id": 5, "name": "Ed", "age": Decimal(2**70)}, ErrorCode.TYPE_COERCION),
        ({"id": 6, "name": "Fay"}, None),
    ]
    assert codes(sql_place.write("upsert", [row for row, _ in bad])) == [code for _, code in bad]
    assert _names(sql_place) == {4: "Di", 6: "Fay"}


def test_a_missing_parent_is_a_refusal(sql_place: Place) -> None:
    sql_place.run(
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "INSERT INTO p VALUES (1)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER, FOREIGN KEY (p) REFERENCES p(id))",
    )
    results = sql_place.write("upsert", [{"id": 1, "p": 1}, {"id": 2, "p": 2}])
    assert codes(results) == [None, ErrorCode.DESTINATION_VALIDATION]
    assert sql_place.ask("SELECT id FROM t") == [(1,)]


def test_another_unique_key_never_changes_another_record(sql_place: Place) -> None:
    sql_place.run(
        "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(40), UNIQUE (name))",
        "INSERT INTO t VALUES (1, 'Ada'), (2, 'Bo')",
    )
    results = sql_place.write("upsert", [{"id": 3, "name": "Ada"}, {"id": 4, "name": "Di"}, {"id": 2, "name": "Bob"}])
    assert codes(results) == [ErrorCode.CONFLICT, None, None]
    assert _names(sql_place) == {1: "Ada", 2: "Bob", 4: "Di"}


def test_an_upsert_needs_a_unique_index(sql_place: Place) -> None:
    sql_place.run("CREATE TABLE t (id INTEGER NOT NULL, name VARCHAR(40))")
    with pytest.raises(DestinationError) as caught:
        sql_place.write("upsert", _rows("Ada"))
    assert caught.value.code is ErrorCode.CONFIGURATION
    assert caught.value.hint is not None
    sql_place.run(caught.value.hint.partition(": ")[2])
    sql_place.write_all("upsert", _rows("Ada"))
    sql_place.write_all("upsert", _rows("Bea"))
    assert _names(sql_place) == {1: "Bea"}


def test_drift_is_named(sql_place: Place) -> None:
    sql_place.run(TABLE)
    with pytest.raises(DestinationError, match="no column 'nam'") as caught:
        sql_place.write("upsert", [{"id": 1, "nam": "Ada"}])
    assert caught.value.code is ErrorCode.SCHEMA_DRIFT
    assert caught.value.hint == "Did you mean 'name'?"
    with pytest.raises(DestinationError, match="no table 'tt'") as caught:
        sql_place.write("upsert", _rows("Ada"), table="tt")
    assert caught.value.code is ErrorCode.SCHEMA_DRIFT
    sql_place.write_all("upsert", _rows("Ada"))
    sql_place.run("ALTER TABLE t RENAME COLUMN name TO title")
    for message in ("name", "no column 'name'"):  # the database's own words, then those of a table read anew
        with pytest.raises(DestinationError, match=message) as caught:
            sql_place.write("upsert", _rows("Bea"))
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT


def test_columns_are_found_whatever_they_are_called(sql_place: Place) -> None:
    name = 'a "b" c%s (d): ?'
    table = sql_place.quote("my table")
    columns = f"id INTEGER PRIMARY KEY, {sql_place.quote(name)} INTEGER, {sql_place.quote('nothing')} INTEGER"
    sql_place.run(f"CREATE TABLE {table} ({columns})")
    for number in (1, 2):
        sql_place.write_all("upsert", [{"ID": 1, name: number, "nothing": 3}], table="my table", key="ID")
    assert sql_place.ask(f"SELECT * FROM {table}") == [(1, 2, 3)]
    sql_place.write_all("update", [{"id": 1, name: 4}], table="my table")
    sql_place.write_all("delete", [{"id": 1}], table="my table")


@pytest.mark.parametrize("operation", ["upsert", "insert", "update"])
def test_poison_never_harms_its_neighbours(sql_place: Place, operation: str) -> None:
    sql_place.run(TABLE)

    @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(["good", "null", "check", "type"]), min_size=1, max_size=40))
    def check(kinds: Iterable[str]) -> None:
        poison: dict[str, dict[str, Any]] = {
            "good": {},
            "null": {"name": None},
            "check": {"age": -1},
            "type": {"age": "x"},
        }
        rows = [{"id": number, "name": "new", "age": 1} | poison[kind] for number, kind in enumerate(kinds)]
        sql_place.run("DELETE FROM t")
        if operation != "insert":
            sql_place.run("INSERT INTO t VALUES " + ", ".join(f"({row['id']}, 'old', 0)" for row in rows))
        results = sql_place.write(operation, rows)
        good = {number for number, kind in enumerate(kinds) if kind == "good"}
        assert {int(result.key) for result in results if result.fault is None} == good
        assert {number for number, name in _names(sql_place).items() if name == "new"} == good

    check()
