"""20,000 rows, each arrives once and unchanged in value; then only what changed; then what is gone is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from worlds import project_of

from dagster_retl.service import Service
from dagster_retl.testing.fake_http import FakeHttpService

ROWS = 20_000
NAMES = ["Zoë Müller", "Олена", "李小龍", "יעל כהן", "محمد", "नेहा", "💫 Nova", 'O\'Brien "Bob"', "tab\tnew\nline", ""]
COLUMNS = "id, big, amount, ratio, seen_at, day, active, name, note"
COMMON = "seen_at TIMESTAMPTZ, day DATE, active BOOLEAN, name {text}, note {text}"
TYPES = {
    "duckdb": "id BIGINT, big BIGINT, amount DECIMAL(20, 4), ratio DOUBLE, " + COMMON.format(text="VARCHAR"),
    "postgres": "id BIGINT PRIMARY KEY, big BIGINT, amount NUMERIC(20, 4), ratio DOUBLE PRECISION, "
    + COMMON.format(text="TEXT"),
}

Row = tuple[Any, ...]


def row(n: int, salt: int = 0) -> Row:
    moment = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC) + timedelta(microseconds=n * 1_000_001 + salt)
    return (
        n,
        9_007_199_254_740_993 + n * 2 + salt if n % 3 else -(2**63) + n,
        Decimal(n) * Decimal("1234567.8901") if n % 5 else None,
        n / 7,
        moment if n % 4 else None,
        moment.date(),
        (True, False, None)[n % 3],
        NAMES[n % len(NAMES)],
        None if n % 2 and not salt else f"note {n} {salt}",
    )


def as_sent(source: Row) -> dict[str, Any]:
    """The JSON that a destination is to receive."""
    number, big, amount, ratio, at, day, active, name, note = source
    return {
        "id": number,
        "big": big,
        "amount": amount,
        "ratio": Decimal(repr(ratio)),
        "seen_at": None if at is None else at.isoformat().replace("+00:00", "Z"),
        "day": day.isoformat(),
        "active": active,
        "name": name,
        "note": note,
    }


class DuckDBWarehouse:
    """Rows in a DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "warehouse.duckdb"
        self.url = f"duckdb:///{self.file}"
        self.run(f"CREATE TABLE t ({TYPES['duckdb']})")

    def run(self, statement: str) -> None:
        with duckdb.connect(str(self.file)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(statement)

    def insert(self, rows: list[Row]) -> None:
        with duckdb.connect(str(self.file)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("BEGIN")
            for at in range(0, len(rows), 500):
                chunk = rows[at : at + 500]
                marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(chunk))
                connection.execute(f"INSERT INTO t VALUES {marks}", [value for one in chunk for value in one])
            connection.execute("COMMIT")


class PostgresWarehouse:
    """Rows in a Postgres database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._dsn = url.replace("postgresql+psycopg://", "postgresql://")
        self.run(f"CREATE TABLE t ({TYPES['postgres']})")

    def run(self, statement: str) -> None:
        with psycopg.connect(self._dsn) as connection:
            connection.execute(statement)  # type: ignore[call-overload]  # statements of this file

    def insert(self, rows: list[Row]) -> None:
        with (
            psycopg.connect(self._dsn) as connection,
            connection.cursor() as cursor,
            cursor.copy(f"COPY t ({COLUMNS}) FROM STDIN") as copy,
        ):
            for one in rows:
                copy.write_row(one)


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DuckDBWarehouse | PostgresWarehouse]:
    if request.param == "duckdb":
        yield DuckDBWarehouse(tmp_path)
    else:
        yield PostgresWarehouse(request.getfixturevalue("postgres_url"))


def test_every_row_arrives_once_unchanged_in_value(
    warehouse: DuckDBWarehouse | PostgresWarehouse, tmp_path: Path
) -> None:
    mappings = [{"source": name, "destination": name, "key": name == "id"} for name in COLUMNS.split(", ")]
    with FakeHttpService() as http:
        project = project_of(
            tmp_path,
            http.url,
            config={"batch_rows": 200, "concurrency": 4},
            source_query=f"SELECT {COLUMNS} FROM t",
            field_mappings=mappings,
            sync_mode="mirror",
        )
        default = project.warehouses["default"].model_copy(update={"url": warehouse.url})
        project = project.model_copy(update={"warehouses": {"default": default}})
        with Service(project) as service:
            expected = {str(n): row(n) for n in range(ROWS)}
            warehouse.insert(list(expected.values()))
            counters = service.run("things").run.counters
            assert (counters.read, counters.written) == (ROWS, ROWS)
            holds(http, expected)
            assert set(http.applications().values()) == {1}

            requests = len(http.requests)
            assert service.run("things").run.counters.unchanged == ROWS
            assert len(http.requests) == requests

            changed = {str(n): row(n, salt=1) for n in range(300, 420)} | {
                str(n): row(n) for n in range(ROWS, ROWS + 50)
            }
            warehouse.run("DELETE FROM t WHERE id BETWEEN 300 AND 419 OR id BETWEEN 1000 AND 1099")
            warehouse.insert(list(changed.values()))
            for n in range(1000, 1100):
                del expected[str(n)]
            expected |= changed
            before = len(http.applied)
            counters = service.run("things").run.counters
            assert (counters.written, counters.deleted, counters.unchanged) == (170, 100, ROWS - 220)
            sent = {(change.key, change.operation) for change in http.applied[before:]}
            assert sent == {(key, "upsert") for key in changed} | {(str(n), "delete") for n in range(1000, 1100)}
            holds(http, expected)


def holds(http: FakeHttpService, expected: dict[str, Row]) -> None:
    """The service holds these rows and no others; numbers are compared by their digits."""
    records = http.records["things"]
    assert set(records) == set(expected)
    wrong = {
        key: (records[key], as_sent(source)) for key, source in expected.items() if records[key] != as_sent(source)
    }
    assert not wrong, json.dumps(next(iter(wrong.items())), default=str, ensure_ascii=False)
