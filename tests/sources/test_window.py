"""Windows of a query, in databases: exactly the rows whose cursor is high enough or null, and the keys asked for."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pymysql
import pytest
from sqlalchemy.engine import make_url

from dagster_retl.errors import SourceError
from dagster_retl.sources.base import Source
from dagster_retl.sources.cursors import CursorKind, CursorValue, kind_of
from dagster_retl.sources.open import open_source
from dagster_retl.sources.window import KeyColumn, lookups_sql, probe, windowed

at = datetime.fromisoformat

TIMES = [
    at("0001-01-01 00:00:00"),
    at("1969-12-31 23:59:59.999999"),
    at("2024-02-29 12:00:00.000001"),
    at("2024-02-29 12:00:00.000002"),
    at("2038-01-19 03:14:08"),
    at("9999-12-31 23:59:59.999999"),
]
DAYS = [date(1, 1, 1), date(2024, 2, 29), date(2024, 3, 1), date(9999, 12, 31)]
INTEGERS = [-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63 - 1]
DECIMALS = [Decimal("-0.0000000002"), Decimal("0.0000000001"), Decimal("12345678901234567890.0000000001")]
TEXTS = ["", "a'b", "b\\n%s:x?", "B", "Z9", "a", "ä", "\U0001f600"]


def opened(url: str, **settings: Any) -> Source:
    return open_source(url, name="shop", base=Path(), **settings)


def found(source: Source, sql: str, column: str = "id") -> list[Any]:
    with source.read(sql) as extract:
        return sorted(value for block in extract.blocks for value in block.column(column).to_pylist())


def check(source: Source, kind: CursorKind, values: Sequence[Any], column: str, text: Callable[[Any], str]) -> None:
    """The table `cursors` has the values in `column`, in the order of `id`, and at last a null."""
    query = f"SELECT id, {column} FROM cursors -- of all"
    assert kind_of(probe(query, [column], source)[column]) is kind
    order = [CursorValue(kind, text(value)).order for value in values]
    for place, value in enumerate(values):
        at_least = [other for other in range(len(values)) if order[other] >= order[place]]
        sql = windowed(query, column, CursorValue(kind, text(value)), None, source)
        assert found(source, sql) == [*at_least, len(values)], value


def iso(value: Any) -> str:
    return str(value.isoformat())


CASES: Mapping[str, tuple[CursorKind, Sequence[Any], Callable[[Any], str]]] = {
    "moment": (CursorKind.MOMENT, TIMES, iso),
    "local": (CursorKind.LOCAL, TIMES, iso),
    "day": (CursorKind.DATE, DAYS, iso),
    "whole": (CursorKind.NUMBER, INTEGERS, str),
    "exact": (CursorKind.NUMBER, DECIMALS, lambda value: format(value, "f")),
    "text": (CursorKind.TEXT, TEXTS, str),
}


def rows_of(name: str) -> list[tuple[int, Any]]:
    return list(enumerate([*CASES[name][1], None]))


DUCKDB = {"moment": "TIMESTAMPTZ", "local": "TIMESTAMP", "day": "DATE", "whole": "BIGINT", "exact": "DECIMAL(38,10)"}


@pytest.mark.parametrize("name", CASES)
def test_duckdb(name: str, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "d.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE cursors (id INTEGER, {name} {DUCKDB.get(name, 'VARCHAR')})")
        connection.executemany("INSERT INTO cursors VALUES (?, ?)", rows_of(name))
    kind, values, text = CASES[name]
    check(opened(f"duckdb:///{tmp_path}/d.duckdb"), kind, values, name, text)


@pytest.mark.parametrize("precision", ["TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"])
def test_duckdb_timestamps_of_other_precisions(precision: str, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "d.duckdb")) as connection:
        connection.execute(f"CREATE TABLE cursors (id INTEGER, local {precision})")
        connection.execute(
            "INSERT INTO cursors VALUES (0, '2024-01-01 00:00:01'), (1, '2024-01-01 00:00:02'), (2, NULL)"
        )
    values = [at("2024-01-01 00:00:01"), at("2024-01-01 00:00:02")]
    check(opened(f"duckdb:///{tmp_path}/d.duckdb"), CursorKind.LOCAL, values, "local", iso)


POSTGRES = {
    "moment": "timestamptz",
    "local": "timestamp",
    "day": "date",
    "whole": "bigint",
    "exact": "numeric(38,10)",
    "text": "text",
}


@pytest.mark.parametrize("name", CASES)
def test_postgres(name: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", ""), options="-c TimeZone=UTC") as connection:
        connection.execute(f"CREATE TABLE cursors (id int, {name} {POSTGRES[name]})")
        connection.cursor().executemany("INSERT INTO cursors VALUES (%s, %s)", rows_of(name))
    kind, values, text = CASES[name]
    check(opened(postgres_url), kind, values, name, text)


def test_postgres_infinity_is_above_all(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE cursors (id int, local timestamp)")
        connection.execute("INSERT INTO cursors VALUES (1, 'infinity'), (2, '-infinity'), (3, '2024-01-01')")
    sql = windowed(
        "TABLE cursors", "local", CursorValue(CursorKind.LOCAL, "2024-01-01T00:00:00"), None, opened(postgres_url)
    )
    assert found(opened(postgres_url), sql) == [1, 3]


SQLITE = {"whole": "INTEGER", "text": "TEXT"}


@pytest.mark.parametrize("name", SQLITE)
def test_sqlite(name: str, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        connection.execute(f"CREATE TABLE cursors (id INTEGER, {name} {SQLITE[name]} COLLATE NOCASE)")
        connection.executemany("INSERT INTO cursors VALUES (?, ?)", rows_of(name))
    kind, values, text = CASES[name]
    check(opened(f"sqlite:///{tmp_path}/s.db"), kind, values, name, text)


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (CursorValue(CursorKind.NUMBER, "5"), [2, 3, 4, 5]),
        (CursorValue(CursorKind.TEXT, "b"), [1, 2, 4, 5]),
    ],
)
def test_sqlite_values_of_another_sort_are_read_always(tmp_path: Path, since: CursorValue, expected: list[int]) -> None:
    """One column may hold them all: numbers are below any text, and would never be read beside it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        connection.execute("CREATE TABLE cursors (id INTEGER, c)")
        connection.execute("INSERT INTO cursors VALUES (1, 4), (2, 5), (3, 'a'), (4, 'b'), (5, NULL)")
    source = opened(f"sqlite:///{tmp_path}/s.db")
    assert found(source, windowed("SELECT * FROM cursors", "c", since, None, source)) == expected


MYSQL = {
    "moment": "TIMESTAMP(6) NULL",
    "local": "DATETIME(6)",
    "day": "DATE",
    "whole": "BIGINT",
    "exact": "DECIMAL(38,10)",
    "text": "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
}


@pytest.mark.mariadb
@pytest.mark.parametrize("name", CASES)
def test_mariadb(name: str, mariadb_url: str) -> None:
    """Text is compared by its bytes, though the column sorts without case."""
    parsed = make_url(mariadb_url)
    kind, values, text = CASES[name]
    if name == "moment":
        values = [value for value in values if 1970 <= value.year < 2038]
    elif kind in (CursorKind.LOCAL, CursorKind.DATE):
        values = values[1:]  # it knows no year 1
    with pymysql.connect(host="127.0.0.1", port=parsed.port or 0, user="root", database=parsed.database) as connection:
        cursor = connection.cursor()
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(f"CREATE TABLE cursors (id INTEGER, {name} {MYSQL[name]})")
        cursor.executemany("INSERT INTO cursors VALUES (%s, %s)", list(enumerate([*values, None])))
        connection.commit()
    check(opened(mariadb_url), kind, values, name, text)


# --- local time


NIGHTS = [
    *(at(f"2024-03-31 0{hour}:{minute}") for hour in range(5) for minute in ("00", "30")),
    *(at(f"2024-10-27 0{hour}:{minute}") for hour in range(5) for minute in ("00", "30")),
]
"""Nights in which clocks are set: 2:00 to 3:00 does not exist in March, and comes twice in October."""


def test_local_times_are_read_from_the_first_that_may_be_meant(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "d.duckdb")) as connection:
        connection.execute("CREATE TABLE cursors (id INTEGER, local TIMESTAMP)")
        connection.executemany("INSERT INTO cursors VALUES (?, ?)", list(enumerate(NIGHTS)))
    source = opened(f"duckdb:///{tmp_path}/d.duckdb", timezone="Europe/Paris")
    with source.read("SELECT * FROM cursors ORDER BY id") as extract:
        assert kind_of(extract.schema.field("local")) is CursorKind.LOCAL
        moments = [
            value.replace(tzinfo=None) for block in extract.blocks for value in block.column("local").to_pylist()
        ]
    for moment in moments:
        sql = windowed("SELECT * FROM cursors", "local", CursorValue(CursorKind.LOCAL, iso(moment)), None, source)
        read = set(found(source, sql))
        needed = {place for place, other in enumerate(moments) if other >= moment}
        hour_more = {place for place, other in enumerate(moments) if other >= moment - timedelta(hours=1)}
        assert needed <= read <= hour_more, moment


# --- keys


def keys(source: Source, sql: str, columns: list[KeyColumn], *records: str) -> list[Any] | None:
    condition = lookups_sql(columns, probe(sql, ["c", *(column.name for column in columns)], source), records, source)
    if condition is None:
        return None
    return found(source, windowed(sql, "c", CursorValue(CursorKind.NUMBER, "100"), condition, source), "n")


def table(*rows: str, kind: str = "BIGINT") -> str:
    values = ", ".join(f"({n}, 1, {key})" for n, key in enumerate(rows))
    return f"SELECT n, c, id::{kind} AS id FROM (VALUES {values}) t(n, c, id)"


ID = KeyColumn("id", "Id")


@pytest.fixture
def memory() -> Source:
    return opened("duckdb:///:memory:")


def test_keys_are_asked_for_beside_the_window(memory: Source) -> None:
    assert keys(memory, table("5", "6", "7"), [ID], '{"Id":7}', '{"Id":5}', '{"Id":8}') == [0, 2]


def test_digits_are_exact(memory: Source) -> None:
    sql = table("9007199254740993", "9007199254740992")
    assert keys(memory, sql, [ID], '{"Id":9007199254740993}') == [0]
    assert keys(memory, table("1.25", "1.2", kind="DECIMAL(20,2)"), [ID], '{"Id":1.25}') == [0]
    assert keys(memory, table("1.25", "1.2", kind="DECIMAL(20,2)"), [ID], '{"Id":"1.25"}') == [0]


def test_text_is_quoted(memory: Source) -> None:
    sql = table("'it''s \\'", "'x'' OR TRUE --'", kind="VARCHAR")
    assert keys(memory, sql, [ID], '{"Id":"it\'s \\\\"}') == [0]


def test_a_key_that_became_text_is_its_digits(memory: Source) -> None:
    assert keys(memory, table("5", "6", kind="VARCHAR"), [ID], '{"Id":6}') == [1]


def test_keys_without_case_and_blanks(memory: Source) -> None:
    column = KeyColumn("id", "Id", exact=False)
    sql = table("'Foo'", "' fOO '", "'bar'", kind="VARCHAR")
    assert keys(memory, sql, [column], '{"Id":"FOO"}') == [0, 1]
    assert keys(memory, sql, [ID], '{"Id":"Foo"}') == [0]


def test_nulls_that_have_a_default(memory: Source) -> None:
    sql = table("'a'", "NULL", kind="VARCHAR")
    assert keys(memory, sql, [KeyColumn("id", "Id", nullable=True)], '{"Id":"unknown"}') == [1]


def test_keys_of_two_fields_find_no_fewer_rows(memory: Source) -> None:
    sql = "SELECT * FROM (VALUES (0, 1, 1, 'a'), (1, 1, 1, 'b'), (2, 1, 2, 'a'), (3, 1, 3, 'a')) t(n, c, id, part)"
    columns = [ID, KeyColumn("part", "Part")]
    read = keys(memory, sql, columns, '{"Id":1,"Part":"a"}', '{"Id":2,"Part":"b"}')
    assert read is not None
    assert {0} <= set(read) <= {0, 1, 2}


@pytest.mark.parametrize("kind", ["DOUBLE", "BOOLEAN", "TIMESTAMP", "BLOB"])
def test_types_that_cannot_be_asked_for_exactly(memory: Source, kind: str) -> None:
    assert keys(memory, table("NULL", kind=kind), [ID], '{"Id":1}') is None


def test_values_that_the_column_cannot_hold(memory: Source) -> None:
    assert keys(memory, table("1"), [ID], '{"Id":"one"}') is None
    assert keys(memory, table("1"), [ID], '{"Id":true}') is None
    assert keys(memory, table("1"), [ID], '{"Other":1}') is None


def test_more_keys_than_one_list_takes(memory: Source) -> None:
    sql = "SELECT range AS n, 1 AS c, range AS id FROM range(5000)"
    read = keys(memory, sql, [ID], *(f'{{"Id":{number}}}' for number in range(0, 5000, 2)))
    assert read == list(range(0, 5000, 2))


def test_sqlite_holds_numbers_and_text_in_one_column(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        connection.execute("CREATE TABLE t (n INTEGER, c INTEGER, id)")
        connection.execute("INSERT INTO t VALUES (0, 1, 42), (1, 1, '42'), (2, 1, 43), (3, 1, 'x')")
    source = opened(f"sqlite:///{tmp_path}/s.db")
    assert keys(source, "SELECT * FROM t", [ID], '{"Id":42}', '{"Id":"x"}') == [0, 1, 3]


@pytest.mark.parametrize("kind", ["char(6)", "uuid", "citext_like"])
def test_postgres_text_of_other_types(postgres_url: str, kind: str) -> None:
    one, other = (
        ("10000000-0000-0000-0000-000000000000", "20000000-0000-0000-0000-000000000000")
        if kind == "uuid"
        else ("ab", "cd")
    )
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TYPE citext_like AS ENUM ('ab', 'cd')")
        connection.execute(f"CREATE TABLE t (n int, c int, id {kind})")
        connection.cursor().executemany("INSERT INTO t VALUES (%s, 1, %s)", [(0, one), (1, other)])
    source = opened(postgres_url)
    with source.read("SELECT id FROM t WHERE n = 0") as extract:
        (value,) = next(iter(extract.blocks)).column("id").to_pylist()
    for exact in (True, False):
        assert keys(source, "SELECT * FROM t", [KeyColumn("id", "Id", exact=exact)], f'{{"Id":"{value}"}}') == [0]


@pytest.mark.mariadb
def test_mariadb_quotes_its_own_way(mariadb_url: str) -> None:
    parsed = make_url(mariadb_url)
    with pymysql.connect(host="127.0.0.1", port=parsed.port or 0, user="root", database=parsed.database) as connection:
        connection.cursor().execute("CREATE TABLE t (n INT, c INT, id VARCHAR(20))")
        connection.cursor().executemany("INSERT INTO t VALUES (%s, 1, %s)", [(0, "a\\'b%\n"), (1, "x")])
        connection.commit()
    for exact in (True, False):
        column = KeyColumn("id", "Id", exact=exact)
        assert keys(opened(mariadb_url), "SELECT * FROM t", [column], '{"Id":"a\\\\\'b%\\n"}') == [0]


# --- what cannot be asked


def test_a_column_that_is_gone_is_refused(memory: Source) -> None:
    with pytest.raises(SourceError, match="gone"):
        probe("SELECT 1 AS c", ["gone"], memory)


def test_a_column_may_be_cursor_and_key(memory: Source) -> None:
    assert list(probe("SELECT 1 AS id", ["id", "id"], memory)) == ["id"]


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("snowflake", '"CHANGED" >= CAST(\'2024-01-01 00:00:00+00:00\' AS TIMESTAMPTZ) OR "CHANGED" IS NULL'),
        ("bigquery", "`changed` >= CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMP) OR `changed` IS NULL"),
        ("tsql", "[changed] >= CAST('2024-01-01 00:00:00+00:00' AS DATETIMEOFFSET) OR [changed] IS NULL"),
    ],
)
def test_other_dialects(dialect: str, expected: str, memory: Source) -> None:
    memory.dialect = dialect
    since = CursorValue(CursorKind.MOMENT, "2024-01-01T00:00:00")
    assert windowed("SELECT 1", "changed", since, None, memory).endswith(f"WHERE {expected}")
