"""Driver: a sync of this project, by the same door that the command line and Dagster use.

Settings: folder, warehouse (URL), destination (URL), batch_rows, concurrency; optional: one_by_one, rate_limit,
connect_args.
With `extract_only` the query is read through the same source, and nothing else is done.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from arrivals import COLUMNS
from data import QUERY
from measure import drive

from dagster_retl import Project
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service


def project(settings: Mapping[str, Any]) -> Project:
    """One sync `people`, every column mapped onto a field of its name."""
    config: dict[str, Any] = {
        "url": f"{settings['destination']}/v1/{{object}}",
        "concurrency": settings["concurrency"],
        "results": {"errors_path": "errors"},
    }
    if settings.get("one_by_one"):
        config |= {"body": "object"}
    else:
        config |= {"batch_rows": settings["batch_rows"], "batch_bytes": 10_000_000}
    if settings.get("rate_limit"):
        config["rate_limit"] = settings["rate_limit"]
    definition = {
        "name": "people",
        "source_query": QUERY,
        "destination_id": "service",
        "object_name": "people",
        "key": "id",
        "field_mappings": {name: name for name in COLUMNS},
    }
    folder = Path(settings["folder"])
    return Project(
        store=f"sqlite:///{folder / 'retl.db'}",
        state=str(folder / "state"),
        warehouses={"default": {"url": settings["warehouse"], "connect_args": settings.get("connect_args", {})}},
        destinations={"service": {"connector": "http", "config": config}},
        syncs=[Sync.model_validate(definition)],
        base=folder,
    )


def prepare(settings: Mapping[str, Any]) -> None:
    """What a process does once: import drivers, create the store."""
    if settings["warehouse"].startswith("postgresql") and find_spec("adbc_driver_postgresql"):
        importlib.import_module("adbc_driver_postgresql.dbapi")
    made = project(settings)
    with Service.open(made) as service:
        service.connector(made.destination("service")).close()


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run; what it says it did."""
    with Service(project(settings)) as service:
        counters = service.run("people").run.counters
    if not counters.balanced():
        raise RuntimeError(f"the books do not balance: {counters}")
    return {"written": counters.written, "unchanged": counters.unchanged, "requests": counters.requests}


def extract(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the query, and do nothing with its rows."""
    made = project(settings)
    with Service(made) as service, service.source(made.warehouse("default")) as source, source.read(QUERY) as result:
        return {"read": sum(block.num_rows for block in result.blocks)}


if __name__ == "__main__":
    drive(lambda settings: extract(settings) if settings.get("extract_only") else run(settings), prepare)
