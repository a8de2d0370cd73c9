"""Postgres, through both drivers: the same values, the same types, the same errors."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pytest
from sqlalchemy.engine import make_url

from dagster_retl.errors import ErrorCode, SourceError
from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.base import Source, SourceSettings
from dagster_retl.sources.open import open_source
from dagster_retl.sources.postgres_sessions import OpenSession, open_adbc, open_psycopg
from dagster_retl.sources.postgres_source import PostgresSource

BOTH = pytest.mark.parametrize("driver", [open_adbc, open_psycopg], ids=["adbc", "psycopg"])

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE kinds (
    i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, flag bool, amount numeric(10, 2), bare numeric,
    tiny numeric(3, 5), rounded numeric(5, -1), name text, code char(4), short varchar(9), mood mood, id uuid,
    j json, jb jsonb, day date, at timestamp, moment timestamptz, clock time, clocktz timetz, span interval,
    raw bytea, address inet, net cidr, price money, ints int4[], words text[], moods mood[], ids uuid[],
    days date[], amounts numeric(6, 2)[], "order {}" text, object oid, range int4range
);
INSERT INTO kinds VALUES (
    -32768, 2147483647, 9007199254740993, 1.5, 0.1, true, 12345678.90, 1.23456789012345678901234567890,
    0.00123, 10.5, 'Zoë 😀', 'ab', 'x', 'ok', '8c2de98c-45d8-4d24-a3c9-b0a2bd4b2ab7',
    '{"a": 1.50}', '{"b": [1, 2]}', '2020-02-29', '2020-01-01 00:00:00.000001', '2020-01-01 12:00:00+02', '23:59:59.5',
    '12:00:00+02', '1 month 2 days 3 seconds', '\\x00ff', '10.0.0.1', '10.0.0.0/8', 12.5,
    '{1,NULL,3}', '{"a,b",""}', '{ok,sad}', '{8c2de98c-45d8-4d24-a3c9-b0a2bd4b2ab7}',
    '{2020-01-01,infinity}', '{1.5,NULL}', 'odd', 4294967295, '[1,5)'
);
INSERT INTO kinds (i2) VALUES (NULL);
"""


def source_through(driver: OpenSession, url: str, **settings: object) -> Source:
    parsed = make_url(url)
    return PostgresSource(
        parsed,
        SourceSettings("crm", **settings),  # type: ignore[arg-type]  # settings of several types
        Redactor(()),
        open_session=driver,
    )


def run(url: str, sql: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(sql.encode())


def table_of(source: Source, sql: str, block_rows: int = 50_000) -> pa.Table:
    with source.read(sql, block_rows=block_rows) as extract:
        return pa.Table.from_batches(list(extract.blocks), extract.schema)


@pytest.fixture
def kinds(postgres_url: str) -> str:
    run(postgres_url, TYPES)
    return postgres_url


def test_both_drivers_read_every_type_alike(kinds: str) -> None:
    through_adbc = table_of(source_through(open_adbc, kinds), "SELECT * FROM kinds")
    through_psycopg = table_of(source_through(open_psycopg, kinds), "SELECT * FROM kinds")

    assert through_adbc.schema == through_psycopg.schema
    assert through_adbc.equals(through_psycopg)


@BOTH
def test_types_and_values_are_exact(kinds: str, driver: OpenSession) -> None:
    table = table_of(source_through(driver, kinds), "SELECT * FROM kinds")

    assert [str(table.schema.field(name).type) for name in ("i2", "i4", "i8", "f4", "f8", "flag")] == [
        "int16",
        "int32",
        "int64",
        "float",
        "double",
        "bool",
    ]
    assert table.schema.field("amount").type == pa.decimal128(10, 2)
    assert table.schema.field("amounts").type == pa.list_(pa.decimal128(6, 2))
    assert table.schema.field("moment").type == pa.timestamp("us", "UTC")
    assert table.schema.field("at").type == pa.timestamp("us")
    row = table.drop_columns(["days"]).to_pylist()[0]
    exact = {
        "i8": 9007199254740993,
        "amount": Decimal("12345678.90"),
        "bare": Decimal("1.23456789012345678901234567890"),
        "tiny": Decimal("0.00123"),
        "rounded": Decimal(10),
        "name": "Zoë 😀",
        "code": "ab  ",
        "mood": "ok",
        "id": "8c2de98c-45d8-4d24-a3c9-b0a2bd4b2ab7",
        "j": '{"a": 1.50}',
        "jb": '{"b": [1, 2]}',
        "span": "P1M2DT3S",
        "raw": b"\x00\xff",
        "clocktz": "12:00:00+02",
        "address": "10.0.0.1",
        "net": "10.0.0.0/8",
        "price": Decimal("12.50"),
        "ints": [1, None, 3],
        "words": ["a,b", ""],
        "moods": ["ok", "sad"],
        "amounts": [Decimal("1.50"), None],
        "object": 4294967295,
        "range": "[1,5)",
        "order {}": "odd",
    }
    assert {name: row[name] for name in exact} == exact
    assert str(row["day"]) == "2020-02-29"
    assert str(row["clock"]) == "23:59:59.500000"
    assert row["moment"].isoformat() == "2020-01-01T10:00:00+00:00"
    assert row["at"].isoformat() == "2020-01-01T00:00:00.000001"
    assert all(column[1].as_py() is None for column in table.columns)


@BOTH
def test_infinity_arrives_as_the_infinity_of_duckdb(postgres_url: str, driver: OpenSession) -> None:
    stream = table_of(
        source_through(driver, postgres_url),
        "SELECT 'infinity'::date d, '-infinity'::timestamp t, 'infinity'::timestamptz z, "
        "'{-infinity,2020-01-01}'::date[] l, '4713-01-01 BC'::date b UNION ALL SELECT NULL, NULL, NULL, NULL, NULL",
    )

    with duckdb.connect() as connection:
        connection.register("stream", stream)
        connection.execute("SET TimeZone='UTC'")
        text = connection.execute("SELECT d::text, t::text, z::text, l::text, b::text FROM stream").fetchall()

    assert text == [
        ("infinity", "-infinity", "infinity", "[-infinity, 2020-01-01]", "4713-01-01 (BC)"),
        (None, None, None, None, None),
    ]


@BOTH
def test_a_numeric_without_precision_gets_the_longest_scale_of_the_data(postgres_url: str, driver: OpenSession) -> None:
    run(postgres_url, "CREATE TABLE n AS SELECT unnest('{1.5,-20,0.12345,NULL}'::numeric[]) AS v")

    table = table_of(source_through(driver, postgres_url), "SELECT v, sum(v) OVER () AS total FROM n")

    assert table.schema.field("v").type == pa.decimal128(38, 5)
    assert table.column("v").to_pylist() == [Decimal("1.5"), Decimal(-20), Decimal("0.12345"), None]
    assert table.column("total")[0].as_py() == Decimal("-18.37655")


@BOTH
def test_a_numeric_of_more_than_38_digits_is_read_as_text_and_noted(postgres_url: str, driver: OpenSession) -> None:
    with source_through(driver, postgres_url).read("SELECT 1e40::numeric + 0.5 AS huge") as extract:
        table = pa.Table.from_batches(list(extract.blocks))

    assert table.column("huge").to_pylist() == ["1" + "0" * 40 + ".5"]
    assert extract.notes == ("column 'huge' needs 42 digits and is read as text",)


@BOTH
@pytest.mark.parametrize("value", ["'NaN'::numeric", "'NaN'::numeric(10,2)", "'Infinity'::numeric"])
def test_nan_fails_the_read_and_names_the_column(postgres_url: str, driver: OpenSession, value: str) -> None:
    with pytest.raises(SourceError, match="column 'ratio'") as caught:
        table_of(source_through(driver, postgres_url), f"SELECT {value} AS ratio")

    assert caught.value.code is ErrorCode.SOURCE_QUERY
    assert "nullif" in str(caught.value)


@BOTH
def test_an_array_of_two_dimensions_is_refused_not_flattened(postgres_url: str, driver: OpenSession) -> None:
    run(postgres_url, "CREATE TABLE grids AS SELECT '{{1,2},{3,4}}'::int[] AS grid")

    with pytest.raises(SourceError, match="column grid holds an array of several dimensions"):
        table_of(source_through(driver, postgres_url), "SELECT grid FROM grids")


@BOTH
def test_blocks_are_small_and_keep_the_order(postgres_url: str, driver: OpenSession) -> None:
    source = source_through(driver, postgres_url)
    with source.read("SELECT g FROM generate_series(1, 2500) g ORDER BY g DESC", block_rows=1000) as extract:
        blocks = list(extract.blocks)

    assert [block.num_rows for block in blocks] == [1000, 1000, 500]
    assert blocks[0].column(0)[0].as_py() == 2500
    assert blocks[-1].column(0)[-1].as_py() == 1


@BOTH
def test_an_empty_result_has_its_schema(kinds: str, driver: OpenSession) -> None:
    source = source_through(driver, kinds)
    full = table_of(source, "SELECT * FROM kinds").schema
    empty = table_of(source, "SELECT * FROM kinds WHERE false")

    assert empty.num_rows == 0
    differing = {field.name for field in full if empty.schema.field(field.name) != field}
    assert differing == {"bare", "price"}, "the types that depend on the data"
    assert source.columns("SELECT * FROM kinds").names == full.names


@BOTH
def test_leaving_early_stops_the_query(postgres_url: str, driver: OpenSession) -> None:
    started = time.monotonic()
    with source_through(driver, postgres_url).read("SELECT generate_series(1, 50000000) AS g") as extract:
        next(extract.blocks)

    assert time.monotonic() - started < 20
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("SELECT pg_sleep(0.2)")
        active = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND state = 'active' "
            "AND pid <> pg_backend_pid()"
        ).fetchone()
    assert active == (0,)


@BOTH
def test_the_transaction_is_read_only(postgres_url: str, driver: OpenSession) -> None:
    run(postgres_url, "CREATE SEQUENCE s; CREATE TABLE t (a int)")
    run(
        postgres_url,
        "CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING a'",
    )

    with pytest.raises(SourceError, match="read-only transaction"):
        table_of(source_through(driver, postgres_url), "SELECT sneak()")


@BOTH
def test_a_query_error_has_the_servers_words_and_the_place(postgres_url: str, driver: OpenSession) -> None:
    with pytest.raises(SourceError, match=r'column "foo" does not exist \(line 2, column 3\)') as caught:
        table_of(source_through(driver, postgres_url), "SELECT\n  foo")

    assert caught.value.code is ErrorCode.SOURCE_QUERY
    assert "'crm'" in str(caught.value)


@BOTH
def test_an_error_amid_the_rows_is_the_servers(postgres_url: str, driver: OpenSession) -> None:
    source = source_through(driver, postgres_url)
    with (
        pytest.raises(SourceError, match="refused the query: division by zero"),
        source.read("SELECT 1 / (300000 - g) AS x FROM generate_series(1, 300000) g", block_rows=10_000) as extract,
    ):
        for _ in extract.blocks:
            pass


@BOTH
def test_the_readers_own_error_passes_unchanged(postgres_url: str, driver: OpenSession) -> None:
    source = source_through(driver, postgres_url)
    with pytest.raises(psycopg.DataError, match="mine"), source.read("SELECT 1 AS x"):
        raise psycopg.DataError("mine")


@BOTH
def test_a_statement_timeout_says_so(postgres_url: str, driver: OpenSession) -> None:
    source = source_through(driver, postgres_url, statement_timeout=0.1)

    with pytest.raises(SourceError, match="statement timeout") as caught:
        table_of(source, "SELECT pg_sleep(5)")

    assert "statement_timeout" in (caught.value.hint or "")


@BOTH
def test_the_session_has_the_tag_and_the_time_zone(postgres_url: str, driver: OpenSession) -> None:
    sql = "SELECT current_setting('application_name') tag, '2020-06-01 12:00'::timestamp AS at"
    row = table_of(source_through(driver, postgres_url, query_tag="retl:accounts"), sql).to_pylist()[0]
    local = table_of(source_through(driver, postgres_url, timezone="America/New_York"), sql)

    assert row["tag"] == "retl:accounts"
    assert local.schema.field("at").type == pa.timestamp("us", "UTC")
    assert local.column("at")[0].as_py().isoformat() == "2020-06-01T16:00:00+00:00"


def test_two_columns_of_one_name_are_refused(postgres_url: str, tmp_path: Path) -> None:
    source = open_source(postgres_url, name="crm", base=tmp_path)

    with pytest.raises(SourceError, match="2 columns named 'id'"):
        source.columns("SELECT 1 AS id, 2 AS id")


def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path) -> None:
    source = open_source(
        "postgresql://ann:s3cr%2Ft@127.0.0.1:1/db", name="crm", base=tmp_path, connect_args={"connect_timeout": 2}
    )

    with pytest.raises(SourceError, match="warehouse 'crm' cannot be reached") as caught:
        source.check()

    assert caught.value.code is ErrorCode.SOURCE_UNAVAILABLE
    assert caught.value.hint
    assert "s3cr" not in f"{caught.value} {caught.value!r} {source.settings!r}"


def test_a_missing_database_is_unavailable(postgres_url: str, tmp_path: Path) -> None:
    source = open_source(
        make_url(postgres_url).set(database="nowhere").render_as_string(False), name="crm", base=tmp_path
    )

    with pytest.raises(SourceError, match='database "nowhere" does not exist') as caught:
        source.columns("SELECT 1")

    assert caught.value.code is ErrorCode.SOURCE_UNAVAILABLE


def test_a_reachable_server_passes_the_check(postgres_url: str, tmp_path: Path) -> None:
    with open_source(postgres_url, name="crm", base=tmp_path) as source:
        source.check()
        assert source.dialect == "postgres"
