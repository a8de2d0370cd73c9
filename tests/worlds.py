"""A whole small world for a sync: a DuckDB warehouse, a loopback service, a project and its service."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from dagster_retl.engine.run import Report
from dagster_retl.model.project import Project
from dagster_retl.model.runs import DeadLetter, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service
from dagster_retl.testing import FaultServer, Rules

RESULTS = {"errors_path": "errors", "index_field": "index", "code_field": "code", "message_field": "message"}


@dataclass
class World:
    """One sync between a warehouse table `t(id, name, score)` and object `things` of a service."""

    project: Project
    service: Service
    http: FaultServer
    warehouse: Path

    def sql(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute(statement, parameters)

    def query(self, statement: str) -> list[Any]:
        with duckdb.connect(str(self.warehouse)) as connection:
            return connection.execute(statement).fetchall()

    def put(self, *rows: tuple[Any, Any, Any]) -> None:
        """Insert rows, or replace those with the same id."""
        for row in rows:
            self.sql("DELETE FROM t WHERE id IS NOT DISTINCT FROM ?", [row[0]])
            self.sql("INSERT INTO t VALUES (?, ?, ?)", row)

    def run(self, **options: Any) -> Report:
        return self.service.run("things", RunOptions(**options))

    @property
    def records(self) -> dict[str, Mapping[str, Any]]:
        return dict(self.http.records.get("things", {}))

    def names(self) -> dict[str, Any]:
        return {key: record["name"] for key, record in self.records.items()}

    def writes(self) -> int:
        """How many rows the service applied so far."""
        return len(self.http.applied)

    def letters(self) -> dict[Any, DeadLetter]:
        """The open dead letters, by key; those without a key by their code."""
        found = self.service.dead_letters(limit=200)
        return {letter.record_keys.get("id", letter.error_code): letter for letter in found}

    def store(self, statement: str) -> list[Any]:
        """What a statement finds or changes in the SQLite store."""
        with closing(sqlite3.connect(self.project.base / "retl.db", timeout=30)) as connection, connection:
            return connection.execute(statement).fetchall()

    def suspects(self) -> int:
        return int(self.store("SELECT count(*) FROM suspects")[0][0])

    def settle(self) -> None:
        """What was late has landed, and no request of before can land any more."""
        self.http.land()
        self.store("UPDATE suspects SET until = '2000-01-01T00:00:00.000000Z'")
        self.store("UPDATE dead_letters SET held_until = '2000-01-01T00:00:00.000000Z' WHERE held_until IS NOT NULL")

    def with_sync(self, **changes: Any) -> World:
        """The same world after somebody edited the sync."""
        sync = Sync(**{**self.project.syncs[0].model_dump(exclude_unset=True), **changes})
        project = self.project.model_copy(update={"syncs": (sync,)})
        return World(project, Service(project), self.http, self.warehouse)


def project_of(folder: Path, url: str, *, config: Mapping[str, Any] | None = None, **sync: Any) -> Project:
    """A project with one sync `things` from `t` to the http service at `url`."""
    settings = {
        "url": f"{url}/v1/{{object}}",
        "results": RESULTS,
        "batch_rows": 10,
        "delete": {"method": "DELETE", "url": f"{url}/v1/{{object}}/{{id}}"},
    }
    definition: dict[str, Any] = {
        "name": "things",
        "source_query": "SELECT id, name, score FROM t",
        "destination_id": "http_service",
        "object_name": "things",
        "field_mappings": [
            {"source": "id", "destination": "id", "key": True},
            {"source": "name", "destination": "name"},
            {"source": "score", "destination": "score"},
        ],
    }
    return Project(
        store=f"sqlite:///{folder / 'retl.db'}",
        state=str(folder / "state"),
        warehouses={"default": {"url": f"duckdb:///{folder / 'warehouse.duckdb'}"}},
        destinations={"http_service": {"connector": "http", "config": _without_none({**settings, **(config or {})})}},
        syncs=[Sync(**{**definition, **sync})],
        engine={"spill": "spill"},
        base=folder,
    )


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


@contextmanager
def world(
    folder: Path,
    rules: Rules | None = None,
    *,
    store: str | None = None,
    state: str | None = None,
    config: Mapping[str, Any] | None = None,
    server: Callable[[Rules], FaultServer] = FaultServer,
    **sync: Any,
) -> Iterator[World]:
    """Set the world up; the table is empty."""
    with server(rules or Rules()) as http:
        project = project_of(folder, http.url, config=config, **sync)
        if store is not None:
            project = project.model_copy(update={"store": store})
        if state is not None:
            project = project.model_copy(update={"state": state})
        with Service(project) as service:
            made = World(project, service, http, folder / "warehouse.duckdb")
            made.sql("CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2))")
            yield made
