"""DuckDB files: read-only, streamed, exact."""

from __future__ import annotations

import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from dagster_retl.errors import ErrorCode, SourceError
from dagster_retl.sources.base import Source
from dagster_retl.sources.open import open_source

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE kinds AS SELECT
    9007199254740993::BIGINT AS i8, 18446744073709551615::UBIGINT AS u8, 12.34::DECIMAL(10, 2) AS amount,
    sum(2)::HUGEINT AS total, 5::UHUGEINT AS unsigned, 'ok'::mood AS mood, ['ok'::mood] AS moods,
    '8c2de98c-45d8-4d24-a3c9-b0a2bd4b2ab7'::UUID AS id, '{"a": 1.50}'::JSON AS j, '\\x00\\xFF'::BLOB AS raw,
    '101'::BIT AS bits, 123456789012345678901234567890123456789012::BIGNUM AS big,
    DATE '2020-02-29' AS day, TIMESTAMP '2020-01-01 00:00:00.000001' AS at, TIMESTAMP_S '2020-01-01 00:00:01' AS at_s,
    TIMESTAMPTZ '2020-01-01 12:00:00+02' AS moment, TIME '23:59:59.5' AS clock, TIMETZ '12:00:00+02' AS clocktz,
    INTERVAL '1 month 2 days' AS span, {'a b': 1::HUGEINT, 'm': 'sad'::mood} AS pair, MAP {'k': 1::HUGEINT} AS m,
    array_value(1, 2) AS fixed, NULL AS nothing, 'infinity'::DATE AS never;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


def create(path: Path, *statements: str) -> None:
    with duckdb.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)


def opened(path: Path, **settings: object) -> Source:
    return open_source(f"duckdb:///{path.name}", name="lake", base=path.parent, **settings)  # type: ignore[arg-type]  # settings of several types


def table_of(source: Source, sql: str) -> pa.Table:
    with source.read(sql) as extract:
        return pa.Table.from_batches(list(extract.blocks), extract.schema)


def test_types_and_values_are_exact(path: Path) -> None:
    create(path, TYPES)

    table = table_of(opened(path), "SELECT * FROM kinds")

    row = table.drop_columns(["never"]).to_pylist()[0]
    exact = {
        "i8": 9007199254740993,
        "u8": 18446744073709551615,
        "amount": Decimal("12.34"),
        "total": Decimal(2),
        "unsigned": Decimal(5),
        "mood": "ok",
        "moods": ["ok"],
        "id": "8c2de98c-45d8-4d24-a3c9-b0a2bd4b2ab7",
        "j": '{"a": 1.50}',
        "raw": b"\x00\xff",
        "bits": "101",
        "big": "123456789012345678901234567890123456789012",
        "clocktz": "12:00:00+02",
        "span": "1 month 2 days",
        "pair": {"a b": Decimal(1), "m": "sad"},
        "m": [("k", Decimal(1))],
        "fixed": [1, 2],
        "nothing": None,
    }
    assert {name: row[name] for name in exact} == exact
    assert table.schema.field("total").type == pa.decimal128(38, 0)
    assert table.schema.field("mood").type == pa.string()
    assert table.schema.field("at_s").type == pa.timestamp("us")
    assert table.schema.field("moment").type == pa.timestamp("us", "UTC")
    assert row["moment"].isoformat() == "2020-01-01T10:00:00+00:00"
    assert opened(path).columns("SELECT * FROM kinds") == table.schema


def test_an_integer_of_39_digits_fails_the_read(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 340282366920938463463374607431768211455::UHUGEINT AS v")

    with pytest.raises(SourceError, match="refused the query"):
        table_of(opened(path), "SELECT v FROM t")


def test_blocks_are_small_and_keep_the_order(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT range AS i FROM range(2500)")

    with opened(path).read("SELECT i FROM t ORDER BY i DESC", block_rows=1000) as extract:
        blocks = list(extract.blocks)

    assert all(0 < block.num_rows <= 1000 for block in blocks)
    assert [row["i"] for block in blocks for row in block.to_pylist()] == list(range(2499, -1, -1))


def test_a_large_result_is_streamed(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1")
    source = opened(path, connect_args={"memory_limit": "100MB", "max_temp_directory_size": "0MB"})

    with source.read("SELECT i, md5(i::VARCHAR) AS m FROM range(1000000000) t(i)") as extract:
        started = time.monotonic()
        assert next(extract.blocks).num_rows > 0

    assert time.monotonic() - started < 10


def test_the_file_is_free_after_a_read_and_read_only_within(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1 AS a")
    source = opened(path)

    with pytest.raises(SourceError, match="not one SELECT"), source.read("DELETE FROM t"):
        pass
    assert table_of(source, "SELECT count(*) AS n FROM t").to_pylist() == [{"n": 1}]
    create(path, "INSERT INTO t VALUES (2)")
    assert table_of(source, "SELECT count(*) AS n FROM t").to_pylist() == [{"n": 2}]


def test_a_missing_file_is_unavailable_and_not_created(path: Path) -> None:
    with pytest.raises(SourceError, match="warehouse 'lake' cannot be reached") as caught:
        opened(path).check()

    assert caught.value.code is ErrorCode.SOURCE_UNAVAILABLE
    assert "folder of retl.yaml" in (caught.value.hint or "")
    assert not path.exists()


def test_a_file_that_this_process_writes_says_so(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1 AS a")

    with duckdb.connect(path), pytest.raises(SourceError, match="different configuration") as caught:
        opened(path).check()

    assert "This process has the file open for writing" in (caught.value.hint or "")


def test_a_file_that_another_process_writes_says_so(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1 AS a")
    script = f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()"

    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(SourceError, match="lock") as caught:
            opened(path).check()
        writer.communicate("\n")

    assert "Another process has the file open for writing" in (caught.value.hint or "")


def test_a_query_error_has_the_databases_words(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 'x' AS a")

    with pytest.raises(SourceError, match=r"(?s)refused the query: Binder Error.*foo") as caught:
        opened(path).columns("SELECT foo FROM t")
    with pytest.raises(SourceError, match="Could not convert string 'x'"):
        table_of(opened(path), "SELECT a::INT AS i FROM t")

    assert caught.value.code is ErrorCode.SOURCE_QUERY


def test_python_variables_are_out_of_reach(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1 AS a")
    secret_frame = pa.table({"a": [1]})
    assert secret_frame.num_rows == 1

    with pytest.raises(SourceError, match="secret_frame"):
        table_of(opened(path, connect_args={"python_scan_all_frames": True}), "SELECT * FROM secret_frame")


def test_a_statement_timeout_says_so(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1 AS a")
    sql = "SELECT count(*) AS n FROM range(1000000) a, range(1000000) b WHERE a.range % 7 = b.range % 5"

    with pytest.raises(SourceError, match=r"longer than 0\.2 s"):
        table_of(opened(path, statement_timeout=0.2), sql)


def test_two_columns_of_one_name_are_refused(path: Path) -> None:
    create(path, "CREATE TABLE t AS SELECT 1 AS a")

    with pytest.raises(SourceError, match="2 columns named 'a'"):
        opened(path).columns("SELECT a, a FROM t")


def test_memory_reads_parquet_files(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 7 AS a) TO '{tmp_path}/a.parquet'")
    source = open_source("duckdb:///:memory:", name="files", base=tmp_path)

    source.check()
    assert table_of(source, f"SELECT * FROM read_parquet('{tmp_path}/a.parquet')").to_pylist() == [{"a": 7}]


def test_a_time_zone_makes_local_timestamps_moments(path: Path) -> None:
    create(
        path, "CREATE TABLE t AS SELECT unnest([TIMESTAMP '2020-10-25 01:30:00', '2020-03-29 02:30:00', NULL]) AS seen"
    )

    table = table_of(opened(path, timezone="Europe/Berlin"), "SELECT seen FROM t")

    assert table.schema.field("seen").type == pa.timestamp("us", "UTC")
    assert [str(value) for value in table.column("seen").to_pylist()] == [
        "2020-10-24 23:30:00+00:00",
        "2020-03-29 01:00:00+00:00",
        "None",
    ]
