"""A sync into a database, through the engine: exact values, bad rows, removals; files beside retl.yaml."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service


@pytest.fixture
def project(tmp_path: Path) -> Project:
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("CREATE TABLE t (id BIGINT, name VARCHAR, amount DECIMAL(12, 2))")
        connection.execute("INSERT INTO t SELECT n, 'name ' || n, n * 1.25 FROM range(50) r(n)")
    with sqlite3.connect(tmp_path / "ops.sqlite") as ops:
        ops.execute(
            "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> 'bad'), amount TEXT)"
        )
    ops.close()
    sync = Sync(
        name="things",
        source_query="SELECT * FROM t",
        destination_id="ops",
        object_name="things",
        sync_mode="mirror",
        key="id",
        field_mappings={"id": "id", "name": "name", "amount": "amount"},
    )
    return Project(
        base=tmp_path,
        warehouses={"default": {"url": "duckdb:///warehouse.duckdb"}},
        destinations={"ops": {"connector": "sql", "config": {"url": "sqlite:///ops.sqlite", "batch_rows": 10}}},
        syncs=[sync],
    )


def rows(project: Project) -> dict[int, tuple[str, Decimal]]:
    with sqlite3.connect(project.base / "ops.sqlite") as ops:
        found = ops.execute("SELECT id, name, amount FROM things").fetchall()
    ops.close()
    return {number: (name, Decimal(amount)) for number, name, amount in found}


def change(project: Project, statement: str, *parameters: Any) -> None:
    with duckdb.connect(str(project.base / "warehouse.duckdb")) as connection:
        connection.execute(statement, parameters)


def test_rows_are_upserted_refused_and_removed(project: Project) -> None:
    with Service(project) as service:
        change(project, "UPDATE t SET name = 'bad' WHERE id = 7")
        counters = service.run("things").run.counters
        assert (counters.written, counters.failed) == (49, 1)
        assert rows(project)[4] == ("name 4", Decimal("5.00"))
        (letter,) = service.dead_letters()
        assert (letter.error_code, letter.record_keys) == ("DESTINATION_VALIDATION", {"id": 7})
        change(project, "DELETE FROM t WHERE id < 3")
        change(project, "UPDATE t SET name = 'mended' WHERE id = 7")
        counters = service.run("things").run.counters
        assert (counters.written, counters.deleted, counters.unchanged) == (1, 3, 46)
        assert sorted(rows(project)) == list(range(3, 50))
        assert service.dead_letters() == []


def test_a_database_is_asked_for_its_fields(project: Project) -> None:
    with Service(project) as service:
        assert [info.api_name for info in service.objects("ops")] == ["things"]
        fields = {info.name: info for info in service.fields("ops", "things")}
        assert fields["name"].required
        assert fields["id"].external_id
