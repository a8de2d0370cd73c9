"""MariaDB, for all databases that SQLAlchemy reaches: types from the cursor, streamed, read-only."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pymysql
import pytest
from sqlalchemy.engine import make_url

from dagster_retl.errors import ErrorCode, SourceError
from dagster_retl.sources.base import Source
from dagster_retl.sources.open import open_source

pytestmark = pytest.mark.mariadb


def run(url: str, *statements: str) -> None:
    parsed = make_url(url)
    with pymysql.connect(host="127.0.0.1", port=parsed.port or 0, user="root", database=parsed.database) as connection:
        for statement in statements:
            connection.cursor().execute(statement)
        connection.commit()


def opened(url: str, **settings: object) -> Source:
    return open_source(url, name="shop", base=Path(), **settings)  # type: ignore[arg-type]  # settings of several types


def table_of(source: Source, sql: str) -> pa.Table:
    with source.read(sql) as extract:
        return pa.Table.from_batches(list(extract.blocks), extract.schema)


def test_types_and_values_are_exact(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "CREATE TABLE kinds (i BIGINT, t TINYINT, flag BOOLEAN, amount DECIMAL(10,2), huge DECIMAL(65,30), f DOUBLE, "
        "day DATE, at DATETIME(6), moment TIMESTAMP(6) NULL, clock TIME(3), y YEAR, j JSON, e ENUM('a','b'), "
        "raw BLOB, name VARCHAR(20)) CHARACTER SET utf8mb4",
        "SET time_zone = '+02:00'",
        "INSERT INTO kinds VALUES (-9223372036854775808, 5, TRUE, 12.34, 1.5, 0.1, '2020-02-29', "
        "'2020-01-01 00:00:00.000001', '2020-01-01 12:00:00', '-25:00:01.5', 2020, '{\"a\": 1}', 'b', "
        "x'00ff', 'Zoë 😀')",
        "INSERT INTO kinds (i) VALUES (NULL)",
    )

    table = table_of(opened(mariadb_url), "SELECT * FROM kinds WHERE name LIKE '%%Z%' OR name IS NULL")

    first, second = table.to_pylist()
    assert (table.schema.field("amount").type, table.schema.field("huge").type) == (pa.decimal128(38, 2), pa.string())
    assert table.schema.field("moment").type == pa.timestamp("us", "UTC")
    assert first.pop("moment").isoformat() == "2020-01-01T10:00:00+00:00"
    assert first.pop("at").isoformat() == "2020-01-01T00:00:00.000001"
    assert str(first.pop("day")) == "2020-02-29"
    assert first == {
        "i": -(2**63),
        "t": 5,
        "flag": 1,
        "amount": Decimal("12.34"),
        "huge": "1.500000000000000000000000000000",
        "f": 0.1,
        "clock": "-25:00:01.500000",
        "y": 2020,
        "j": '{"a": 1}',
        "e": "b",
        "raw": b"\x00\xff",
        "name": "Zoë 😀",
    }
    assert set(second.values()) == {None}


def test_blocks_are_small_and_leaving_early_does_not_read_the_rest(mariadb_url: str) -> None:
    started = time.monotonic()
    with opened(mariadb_url).read("SELECT seq FROM seq_1_to_20000000", block_rows=1000) as extract:
        assert [next(extract.blocks).num_rows for _ in range(3)] == [1000, 1000, 1000]

    assert time.monotonic() - started < 20


def test_a_value_that_does_not_fit_fails_and_names_the_column(mariadb_url: str) -> None:
    run(mariadb_url, "CREATE TABLE t (v BIGINT UNSIGNED)", "INSERT INTO t VALUES (1), (18446744073709551615)")

    with pytest.raises(SourceError, match="column 'v' was taken for int64"):
        table_of(opened(mariadb_url), "SELECT v FROM t")


def test_the_transaction_is_read_only(mariadb_url: str) -> None:
    run(mariadb_url, "CREATE TABLE t (a INT)")

    with pytest.raises(SourceError, match="READ ONLY transaction"):
        table_of(opened(mariadb_url), "INSERT INTO t VALUES (1) RETURNING a")


def test_a_statement_timeout_ends_the_query(mariadb_url: str) -> None:
    source = opened(mariadb_url, statement_timeout=0.2)

    with pytest.raises(SourceError, match="max_statement_time"):
        table_of(source, "SELECT count(*) AS n FROM seq_1_to_1000000 a, seq_1_to_1000000 b WHERE a.seq % 7 = b.seq % 5")


def test_a_query_error_has_the_databases_words(mariadb_url: str) -> None:
    with pytest.raises(SourceError, match="Unknown column 'foo'") as caught:
        opened(mariadb_url).columns("SELECT foo")

    assert caught.value.code is ErrorCode.SOURCE_QUERY
    assert "sqlalche" not in str(caught.value)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with opened("mysql+pymysql://ann:s3cret@127.0.0.1:1/db") as source, pytest.raises(SourceError) as caught:
        source.check()

    assert caught.value.code is ErrorCode.SOURCE_UNAVAILABLE
    assert "'shop'" in str(caught.value)
    assert "s3cret" not in f"{caught.value} {caught.value!r}"


def test_a_reachable_server_passes_the_check(mariadb_url: str) -> None:
    with opened(mariadb_url, query_tag="retl */ tag") as source:
        source.check()
        assert source.dialect == "mysql"
        assert source.columns("SELECT 1 AS a").names == ["a"]
