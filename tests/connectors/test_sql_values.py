"""Values arrive in a table exactly as they are, or their row is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_databases import Place, codes

from dagster_retl.connectors.sql_drivers import adaptation
from dagster_retl.connectors.sql_duckdb import column_type
from dagster_retl.connectors.sql_types import CoercionError, ColumnType, Kind, coercion
from dagster_retl.errors import ErrorCode

PARIS = timezone(timedelta(hours=2))
AWARE = datetime(2025, 3, 27, 17, 0, 0, 123456, PARIS)
NAIVE = AWARE.replace(tzinfo=None)
IN_UTC = NAIVE - timedelta(hours=2)
MIDNIGHT = datetime(2025, 2, 28, tzinfo=PARIS).replace(tzinfo=None)
IDENTITY = UUID("12345678-1234-5678-1234-567812345678")
DEEP = {"a": [1, 2.5, None, "é"], "big": 2**53 + 1}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "postgresql": {
        "number": "bigint",
        "ts": "timestamp",
        "tz": "timestamptz",
        "bin": "bytea",
        "j": "jsonb",
        "u": "uuid",
    },
    "mysql": {
        "number": "bigint",
        "ts": "datetime(6)",
        "tz": "timestamp(6) null",
        "bin": "longblob",
        "j": "json",
        "u": "uuid",
    },
    "sqlite": {"number": "integer", "ts": "datetime", "tz": "timestamp", "bin": "blob", "j": "json", "u": "text"},
    "duckdb": {"number": "bigint", "ts": "timestamp", "tz": "timestamptz", "bin": "blob", "j": "json", "u": "uuid"},
}
VALUES = {
    "id": 1,
    "number": -(2**63),
    "exact": Decimal("12345678901234.56"),
    "ratio": 0.1,
    "flag": True,
    "words": "Zoë 🚀 'single' \"double\" back\\slash %s {x} :y ?\nnew",
    "day": date(2025, 2, 28),
    "hour": time(23, 59, 58),
    "ts": NAIVE,
    "tz": AWARE,
    "bin": bytes(range(256)),
    "j": DEEP,
    "u": IDENTITY,
}


def _make_table(place: Place) -> None:
    own = ", ".join(f"{name} {kind}" for name, kind in COLUMNS[place.dialect].items())
    words = "varchar(5000)"
    place.run(
        "CREATE TABLE t (id integer primary key, exact decimal(18,2), ratio double precision, flag boolean, "
        f"words {words}, day date, hour time, {own})"
    )


def _held(place: Place, *names: str) -> tuple[Any, ...]:
    (row,) = place.ask(f"SELECT {', '.join(names)} FROM t")
    return row


def test_every_type_arrives_exactly(sql_place: Place) -> None:
    _make_table(sql_place)
    sql_place.write_all("upsert", [VALUES])
    assert _held(sql_place, "number", "ratio", "words", "bin") == tuple(
        VALUES[name] for name in ("number", "ratio", "words", "bin")
    )
    (exact, flag, day, ts, u, j) = _held(sql_place, "exact", "flag", "day", "ts", "u", "j")
    assert Decimal(str(exact)) == VALUES["exact"]
    assert bool(flag) is True
    assert str(day) == "2025-02-28"
    assert str(ts) == "2025-03-27 17:00:00.123456"
    assert UUID(str(u)) == IDENTITY
    assert (json.loads(j) if isinstance(j, str) else j) == DEEP
    ((hour,),) = sql_place.ask("SELECT cast(hour AS char(8)) FROM t")
    assert hour == "23:59:58"


def test_a_timestamp_with_zone_is_the_same_moment(sql_place: Place) -> None:
    _make_table(sql_place)
    sql_place.write_all("upsert", [VALUES, {"id": 2, "tz": IN_UTC}, {"id": 3, "ts": AWARE}])
    text = {
        "postgresql": "cast(tz AT TIME ZONE 'UTC' AS text)",
        "duckdb": "cast(tz AT TIME ZONE 'UTC' AS text)",
        "mysql": "cast(convert_tz(tz, @@session.time_zone, '+00:00') AS char)",
        "sqlite": "tz",
    }[sql_place.dialect]
    held = sql_place.ask(f"SELECT {text} FROM t WHERE id < 3")
    assert held == [("2025-03-27 15:00:00.123456",)] * 2, "a timestamp without zone is taken as UTC"
    assert str(sql_place.ask("SELECT ts FROM t WHERE id = 3")[0][0]) == str(IN_UTC)


def test_nulls_arrive_as_nulls(sql_place: Place) -> None:
    _make_table(sql_place)
    sql_place.write_all("upsert", [VALUES, dict.fromkeys(VALUES) | {"id": 2}])
    names = [name for name in VALUES if name != "id"]
    assert sql_place.ask(f"SELECT {', '.join(names)} FROM t WHERE id = 2") == [(None,) * len(names)]


def test_sensible_values_are_made_to_fit(sql_place: Place) -> None:
    _make_table(sql_place)
    sql_place.write_all(
        "upsert",
        [
            {"id": "1", "number": Decimal("7.00"), "exact": 1.1, "flag": True, "words": 42, "day": "2025-02-28"},
            {"id": 2.0, "number": "8", "exact": "1.10", "flag": 1, "words": "42", "day": MIDNIGHT},
        ],
    )
    first, second = sql_place.ask("SELECT number, exact, flag, words, day FROM t ORDER BY id")
    assert first[1:] == second[1:]
    assert (first[0], second[0], first[3]) == (7, 8, "42")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", 1.5),
        ("number", "x"),
        ("exact", "1,5"),
        ("flag", 2),
        ("day", NAIVE),
        ("ts", "soon"),
        ("j", "{"),
        ("bin", 1),
    ],
)
def test_what_does_not_fit_is_refused(sql_place: Place, field: str, value: Any) -> None:
    if sql_place.dialect == "mysql" and field == "flag":
        pytest.skip("a boolean of MySQL is a small number")
    _make_table(sql_place)
    bad, good = sql_place.write("upsert", [{"id": 1, field: value}, {"id": 2, field: None}])
    assert good.fault is None
    assert bad.fault is not None
    json_is_text = sql_place.dialect == "mysql" and field == "j"  # with a check constraint, in MariaDB
    assert bad.fault.code is (ErrorCode.DESTINATION_VALIDATION if json_is_text else ErrorCode.TYPE_COERCION)
    assert field in bad.fault.message


def test_text_that_is_too_long_is_refused_not_cut(sql_place: Place) -> None:
    if sql_place.dialect in ("sqlite", "duckdb"):
        pytest.skip("these databases do not enforce the length of VARCHAR")
    sql_place.run("CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(3))")
    results = sql_place.write("upsert", [{"id": 1, "name": "abc"}, {"id": 2, "name": "abcd"}])
    assert codes(results) == [None, ErrorCode.TYPE_COERCION]


def test_not_a_number_is_not_lost(sql_place: Place) -> None:
    _make_table(sql_place)
    results = sql_place.write("upsert", [{"id": 1, "ratio": float("nan")}])
    if sql_place.dialect in ("sqlite", "mysql"):
        assert codes(results) == [ErrorCode.TYPE_COERCION]
    else:
        assert str(_held(sql_place, "ratio")[0]) == "nan"


def test_arrays(postgres_place: Place) -> None:
    postgres_place.run(
        "CREATE TABLE t (id int PRIMARY KEY, n bigint[], w varchar(5)[], u uuid[], d numeric[], e int[][])"
    )
    row = {
        "id": 1,
        "n": [1, None, 2**40],
        "w": ["a", "{é}"],
        "u": [str(IDENTITY)],
        "d": [Decimal("1.50")],
        "e": [[1], [2]],
    }
    postgres_place.write_all("upsert", [row, {"id": 2, "n": [], "w": None}])
    held = postgres_place.ask("SELECT n, w, u, d, e FROM t ORDER BY id")
    assert held[0] == ([1, None, 2**40], ["a", "{é}"], [IDENTITY], [Decimal("1.50")], [[1], [2]])
    assert held[1] == ([], None, None, None, None)
    assert codes(postgres_place.write("upsert", [{"id": 3, "n": ["x"]}, {"id": 4, "w": ["too long"]}])) == [
        ErrorCode.TYPE_COERCION,
        ErrorCode.TYPE_COERCION,
    ]


def test_lists_structs_and_wide_numbers_of_duckdb(duckdb_place: Place) -> None:
    duckdb_place.run("CREATE TABLE t (id int PRIMARY KEY, n bigint[], d decimal(10,2)[], s struct(a int), h hugeint)")
    duckdb_place.write_all(
        "upsert", [{"id": 1, "n": [1, None], "d": [Decimal("1.50")], "s": {"a": 1}, "h": Decimal(2**100)}]
    )
    duckdb_place.write_all("upsert", [{"id": 1, "n": [2]}, {"id": 2, "n": [], "h": None}])
    assert duckdb_place.ask("SELECT * FROM t ORDER BY id") == [
        (1, [2], [Decimal("1.50")], {"a": 1}, 2**100),
        (2, [], None, None, None),
    ]


def test_enums_and_domains_of_postgres(postgres_place: Place) -> None:
    postgres_place.run(
        "CREATE TYPE mood AS ENUM ('ok', 'sad')",
        "CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%')",
        "CREATE TABLE t (id int PRIMARY KEY, m mood, e email, i inet, v interval)",
    )
    rows = [
        {"id": 1, "m": "ok", "e": "a@b", "i": "10.0.0.1", "v": timedelta(days=1)},
        {"id": 2, "m": "x"},
        {"id": 3, "e": "x"},
    ]
    expected = [None, ErrorCode.TYPE_COERCION, ErrorCode.DESTINATION_VALIDATION]
    wire = [{k: v for k, v in row.items() if k != "v"} for row in rows]
    assert codes(postgres_place.write("upsert", wire)) == expected


def test_any_value_survives_the_round_trip(sql_place: Place) -> None:
    _make_table(sql_place)
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
    numbers = st.integers(-(2**63), 2**63 - 1)
    binary = st.binary(max_size=30)

    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(text, numbers, binary), min_size=1, max_size=20))
    def check(values: list[tuple[str, int, bytes]]) -> None:
        sql_place.run("DELETE FROM t")
        rows = [{"id": n, "words": w, "number": i, "bin": b} for n, (w, i, b) in enumerate(values)]
        sql_place.write_all("upsert", rows)
        assert sql_place.ask("SELECT words, number, bin FROM t ORDER BY id") == values

    check()


def test_a_nul_is_no_text_for_postgres(postgres_place: Place) -> None:
    postgres_place.run("CREATE TABLE t (id int PRIMARY KEY, words text, j jsonb)")
    results = postgres_place.write(
        "upsert", [{"id": 1, "words": "a\0b"}, {"id": 2, "words": "ab"}, {"id": 3, "j": ["\0"]}]
    )
    assert codes(results) == [ErrorCode.TYPE_COERCION, None, ErrorCode.TYPE_COERCION]


TEXT = ColumnType(Kind.TEXT, "text")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (Decimal("1E+3"), "1000"),
        (AWARE, "2025-03-27T17:00:00.123456+02:00"),
        ([1], "[1]"),
        (0.1, "0.1"),
    ],
)
def test_text_of_other_values(value: Any, text: str) -> None:
    assert coercion(TEXT)(value) == text


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.TEXT, "\ud83d"),
        (Kind.TEXT, b"x"),
        (Kind.INTEGER, float("nan")),
        (Kind.JSON, {"a": b"x"}),
        (Kind.JSON, [Decimal("NaN")]),
        (Kind.UUID, "x"),
        (Kind.ARRAY, "x"),
        (Kind.BYTES, "not base64!"),
        (Kind.FLOAT, "x"),
        (Kind.TIME, 1),
        (Kind.BOOLEAN, "yes"),
    ],
)
def test_refusals_name_types_not_values(kind: Kind, value: Any) -> None:
    with pytest.raises(CoercionError):
        coercion(ColumnType(kind, "a type"))(value)


def test_json_keeps_digits() -> None:
    value = {"d": Decimal("12345678901234567890.10"), "day": date(2025, 1, 1)}
    assert coercion(ColumnType(Kind.JSON, "json"))(value) == '{"d":12345678901234567890.10,"day":"2025-01-01"}'


def test_sqlite_takes_64_bits() -> None:
    adapt = adaptation("sqlite", ColumnType(Kind.INTEGER, "INTEGER"))
    assert adapt(2**63 - 1) == 2**63 - 1
    with pytest.raises(CoercionError, match="64 bits"):
        adapt(2**63)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DECIMAL(10,2)", Kind.DECIMAL),
        ("ENUM('a', 'b')", Kind.TEXT),
        ("INTEGER[3]", Kind.ARRAY),
        ("STRUCT(a INTEGER[])", Kind.OTHER),
        ("TIMESTAMP WITH TIME ZONE", Kind.TIMESTAMP_TZ),
    ],
)
def test_types_of_duckdb(name: str, kind: Kind) -> None:
    assert column_type(name).kind is kind


def test_a_moment_without_zone_is_utc() -> None:
    assert coercion(ColumnType(Kind.TIMESTAMP_TZ, "timestamptz"))("2025-03-27T17:00:00Z") == datetime(
        2025, 3, 27, 17, tzinfo=UTC
    )
