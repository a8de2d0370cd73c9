"""A sync `people` from a DuckDB warehouse to files; run as a script, it runs that sync, so that tests may kill it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
from file_readers import Rows, parts, read

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync

TABLE = "CREATE TABLE t (id BIGINT, name VARCHAR, amount DECIMAL(12, 2))"


def warehouse(folder: Path, *statements: str) -> list[Any]:
    """Execute statements; what the last one finds."""
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.fetchall()


def project_of(folder: Path, connector: str, config: Mapping[str, Any], **sync: Any) -> Project:
    definition: dict[str, Any] = {
        "name": "people",
        "source_query": "SELECT * FROM t",
        "destination_id": "outbox",
        "object_name": "people",
        "sync_mode": "mirror",
        "key": "id",
        "field_mappings": {"id": "id", "name": "name", "amount": "amount"},
    }
    return Project(
        base=folder,
        warehouses={"default": {"url": "duckdb:///warehouse.duckdb"}},
        destinations={"outbox": {"connector": connector, "config": dict(config)}},
        syncs=[Sync(**{**definition, **sync})],
        engine={"spill": "spill"},
    )


def runs(out: Path) -> list[str]:
    """The runs that left files, in the order of their start."""
    return sorted(path.name for path in (out / "people").iterdir())


def rows_of(out: Path, run: str) -> Rows:
    """The rows of a run, in the order of its parts."""
    return [row for path in sorted(parts(out / "people" / run), key=lambda path: path.name) for row in read(path)]


def state(out: Path) -> dict[str, dict[str, Any]]:
    """What somebody has who took every run in order: the last row of each key, unless it was deleted."""
    held: dict[str, dict[str, Any]] = {}
    for run in runs(out):
        for row in rows_of(out, run):
            operation = row.pop("_operation")
            if operation == "delete":
                held.pop(str(row["id"]), None)
            else:
                held[str(row["id"])] = row
    return held


def main() -> None:
    from dagster_retl.service import Service

    folder, settings = sys.argv[1:]
    given = json.loads(settings)
    with Service(project_of(Path(folder), given["connector"], given["config"], **given.get("sync", {}))) as service:
        service.run("people")


if __name__ == "__main__":
    main()
