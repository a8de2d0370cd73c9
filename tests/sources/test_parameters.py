"""Parameters of partitions, in real warehouses: the edges of a window include its first moment and not its last."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.partitions import Partition, Partitions
from dagster_retl.sources.open import open_source
from dagster_retl.sources.parameters import bind

DAY = Partitions(type="daily", start=date(2026, 3, 1), timezone="Europe/Berlin").partition(
    "2026-03-29", datetime(2026, 4, 1, tzinfo=UTC)
)
"""A day of 23 hours, from 23:00 to 22:00 UTC."""
MOMENTS = ("2026-03-28 22:59:59", "2026-03-28 23:00:00", "2026-03-29 21:59:59", "2026-03-29 22:00:00")
QUERY = "SELECT id FROM t WHERE changed >= :partition_start AND changed < :partition_end ORDER BY id"


def read(url: str, query: str, partition: Partition, base: Path) -> list[object]:
    with (
        open_source(url, name="w", base=base) as source,
        source.read(bind(query, partition, source.dialect)) as extract,
    ):
        return [value for block in extract.blocks for value in block.column(0).to_pylist()]


def fill(url: str, kind: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET TimeZone = 'UTC'"))
        connection.execute(text(f"CREATE TABLE t (id INTEGER, changed {kind})"))
        for number, moment in enumerate(MOMENTS):
            connection.execute(text(f"INSERT INTO t VALUES ({number}, '{moment}')"))
    engine.dispose()


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ"])
def test_postgres(postgres_url: str, tmp_path: Path, kind: str) -> None:
    fill(postgres_url, kind)
    assert read(postgres_url, QUERY, DAY, tmp_path) == [1, 2]


def test_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'w.db'}"
    fill(url, "TEXT")
    assert read(url, QUERY, DAY, tmp_path) == [1, 2]


@pytest.mark.mariadb
def test_mariadb(mariadb_url: str, tmp_path: Path) -> None:
    fill(mariadb_url, "DATETIME")
    assert read(mariadb_url, QUERY, DAY, tmp_path) == [1, 2]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ"])
def test_duckdb(tmp_path: Path, kind: str) -> None:
    rows = ", ".join(f"({number}, TIMESTAMP '{moment}')" for number, moment in enumerate(MOMENTS))
    query = f"SELECT id FROM (VALUES {rows}) t(id, m) WHERE m::{kind} >= :partition_start AND m < :partition_end"
    assert read("duckdb://", query, DAY, tmp_path) == [1, 2]


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_key_is_a_value_whatever_it_holds(key: str) -> None:
    if "\0" in key or any("\ud800" <= letter <= "\udfff" for letter in key):
        return
    assert read("duckdb://", "SELECT :partition AS k", Partition(key), Path()) == [key]
    assert read("sqlite://", "SELECT :partition AS k", Partition(key), Path()) == [key]


def test_only_parameters_are_replaced() -> None:
    query = """SELECT v:partition, ':partition', "a:partition", x::text, :PARTITION -- :partition\nFROM t"""
    bound = """SELECT v:partition, ':partition', "a:partition", x::text, 'eu' -- :partition\nFROM t"""
    assert bind(query, Partition("eu"), "snowflake") == bound
    assert bind("SELECT a.partition FROM t", None, "postgres") == "SELECT a.partition FROM t"


@pytest.mark.parametrize(
    ("query", "partition", "what"),
    [
        ("SELECT 1 AS partition", Partition("eu"), "says nothing of the partition"),
        ("SELECT :partition", None, "has no partitions"),
        ("SELECT :partition_end", Partition("eu"), "edge of a window"),
    ],
)
def test_what_does_not_fit(query: str, partition: Partition | None, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        bind(query, partition, "duckdb")
    assert caught.value.hint
