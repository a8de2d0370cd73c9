"""SQLite: any type in any row, read exactly or as text, never changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from dagster_retl.errors import ErrorCode, SourceError
from dagster_retl.sources.base import Source
from dagster_retl.sources.open import open_source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my shop?.db"


def create(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def opened(path: Path, **settings: object) -> Source:
    return open_source("sqlite:///my shop%3F.db", name="shop", base=path.parent, **settings)  # type: ignore[arg-type]  # settings of several types


def table_of(source: Source, sql: str, block_rows: int = 50_000) -> pa.Table:
    with source.read(sql, block_rows=block_rows) as extract:
        return pa.Table.from_batches(list(extract.blocks), extract.schema)


def test_types_follow_the_values(path: Path) -> None:
    create(
        path,
        """
        CREATE TABLE t (
            i INTEGER, r REAL, s TEXT, b BLOB, flag BOOLEAN, flags BOOLEAN, amount DECIMAL(10,2), empty, d DATE
        );
        INSERT INTO t VALUES (9223372036854775807, 0.1, 'Zoë', x'00ff', 1, 0, 10, NULL, '2020-01-01');
        INSERT INTO t VALUES (-1, 2, NULL, NULL, 0, 2, 12.34, NULL, NULL);
        """,
    )

    table = table_of(opened(path), "SELECT *, i > 0 AS positive FROM t")

    assert {field.name: str(field.type) for field in table.schema} == {
        "i": "int64",
        "r": "double",
        "s": "string",
        "b": "binary",
        "flag": "bool",
        "flags": "int64",
        "amount": "double",
        "empty": "string",
        "d": "string",
        "positive": "int64",
    }
    assert table.to_pylist() == [
        {"i": 2**63 - 1, "r": 0.1, "s": "Zoë", "b": b"\x00\xff", "flag": True, "flags": 0, "amount": 10.0}
        | {"empty": None, "d": "2020-01-01", "positive": 1},
        {"i": -1, "r": 2.0, "s": None, "b": None, "flag": False, "flags": 2, "amount": 12.34}
        | {"empty": None, "d": None, "positive": 0},
    ]


def test_a_late_value_of_another_type_makes_the_column_text(path: Path) -> None:
    create(
        path,
        """
        CREATE TABLE t (v, w);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i, i FROM n;
        INSERT INTO t VALUES ('late', 9007199254740993), (1.5, 0.5);
        """,
    )

    with opened(path).read("SELECT v, w FROM t", block_rows=50) as extract:
        table = pa.Table.from_batches(list(extract.blocks), extract.schema)

    assert table.column("v").to_pylist()[-3:] == ["100", "late", "1.5"]
    assert table.column("w").to_pylist()[-2:] == ["9007199254740993", "0.5"]
    assert extract.notes == (
        "column 'v' holds numbers and text and is read as text",
        "column 'w' holds integers beyond 2^53 and reals and is read as text",
    )


def test_blocks_are_small_and_keep_the_order(path: Path) -> None:
    create(
        path,
        """
        CREATE TABLE t (i INTEGER PRIMARY KEY);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) INSERT INTO t SELECT i FROM n;
        """,
    )

    with opened(path).read("WITH x AS (SELECT * FROM t) SELECT i FROM x ORDER BY i DESC", block_rows=1000) as extract:
        blocks = list(extract.blocks)

    assert [block.num_rows for block in blocks] == [1000, 1000, 500]
    assert blocks[0].column(0)[0].as_py() == 2500


def test_the_file_is_opened_read_only(path: Path) -> None:
    create(path, "CREATE TABLE t (a); INSERT INTO t VALUES (1)")

    with pytest.raises(SourceError, match="refused the query"):
        table_of(opened(path), "DELETE FROM t RETURNING a")

    assert table_of(opened(path), "SELECT a FROM t").to_pylist() == [{"a": 1}]


def test_a_missing_file_is_unavailable_and_not_created(path: Path) -> None:
    with pytest.raises(SourceError, match="warehouse 'shop' cannot be reached") as caught:
        opened(path).check()

    assert caught.value.code is ErrorCode.SOURCE_UNAVAILABLE
    assert not path.exists()


def test_a_file_of_another_kind_is_unavailable(path: Path) -> None:
    path.write_text("this is not a database, not even nearly, as anybody can see who reads it\n" * 20)

    with pytest.raises(SourceError, match="not a database") as caught:
        opened(path).check()

    assert caught.value.code is ErrorCode.SOURCE_UNAVAILABLE


def test_a_query_error_has_the_databases_words(path: Path) -> None:
    create(path, "CREATE TABLE t (a)")

    with pytest.raises(SourceError, match="no such column: foo") as caught:
        opened(path).columns("SELECT foo FROM t")

    assert caught.value.code is ErrorCode.SOURCE_QUERY


def test_a_statement_timeout_says_so(path: Path) -> None:
    create(path, "CREATE TABLE t (a)")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n"

    with pytest.raises(SourceError, match=r"longer than 0\.2 s"):
        table_of(opened(path, statement_timeout=0.2), endless)


def test_two_columns_of_one_name_are_refused(path: Path) -> None:
    create(path, "CREATE TABLE t (a)")

    with pytest.raises(SourceError, match="2 columns named 'a'"):
        opened(path).columns("SELECT a, a FROM t")
