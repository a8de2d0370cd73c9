"""Dagster's processes apart, on Postgres, as docs/deployment.md has it."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from deployment import Deployment, deployed
from psycopg import sql
from real_dagster import eventually
from sqlalchemy import update
from worlds import RESULTS

from dagster_retl import Project, Service
from dagster_retl.errors import ErrorCode
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.store.clock import to_text
from dagster_retl.store.schema import runs
from dagster_retl.testing import FaultServer, Rules

pytestmark = pytest.mark.long

ROWS = 120


@pytest.fixture
def storage_url(_postgres_server: Any) -> Iterator[str]:
    """An empty database for Dagster's own storage."""
    name = f"dagster_{secrets.token_hex(6)}"
    with psycopg.connect(_postgres_server.get_uri(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        # SQLAlchemy 2.1 takes psycopg 3 for a plain postgresql://, which Dagster's storage does not work with.
        yield _postgres_server.get_uri(name).replace("postgresql://", "postgresql+psycopg2://", 1)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def no_bad(record: Mapping[str, Any]) -> str | None:
    return "a name cannot be bad" if record.get("name") == "bad" else None


class Site:
    """A project with a sync that runs every minute, its destination, and its store on Postgres."""

    def __init__(self, folder: Path, store_url: str, http: FaultServer) -> None:
        self.http = http
        self.warehouse = folder / "warehouse.duckdb"
        self.path = folder / "retl.yaml"
        self.sql("CREATE TABLE t AS SELECT i AS id, 'name ' || i AS name FROM range(?) r(i)", [ROWS])
        self.sql("UPDATE t SET name = 'bad' WHERE id = 7")
        config = {"url": f"{http.url}/v1/{{object}}", "results": RESULTS, "batch_rows": 5, "concurrency": 1}
        sync = {
            "name": "things",
            "source_query": "SELECT id, name FROM t",
            "destination_id": "crm",
            "object_name": "things",
            "key": "id",
            "field_mappings": {"id": "id", "name": "name"},
            "schedule": "* * * * *",
        }
        project = {
            "store": store_url,
            "state": "state",
            "warehouses": {"default": {"url": f"duckdb:///{self.warehouse}"}},
            "destinations": {"crm": {"connector": "http", "config": config}},
            "syncs": [sync],
        }
        self.path.write_text(json.dumps(project))

    def sql(self, statement: str, parameters: Any = ()) -> None:
        """Change the warehouse, as soon as no run reads it: DuckDB lets one process in at a time."""

        def attempt() -> bool:
            try:
                with duckdb.connect(str(self.warehouse)) as connection:
                    connection.execute(statement, parameters)
            except duckdb.IOException:
                return False
            return True

        eventually("the warehouse", attempt)

    def names(self) -> dict[str, str]:
        return {key: str(record["name"]) for key, record in dict(self.http.records.get("things", {})).items()}


@pytest.fixture
def site(tmp_path: Path, postgres_url: str) -> Iterator[Site]:
    with FaultServer(Rules(refuse=no_bad)) as http:
        yield Site(tmp_path, postgres_url, http)


def newest(service: Service, status: RunStatus, trigger: str = "schedule") -> Run | None:
    found = [run for run in service.runs("things", status) if run.trigger == trigger]
    return found[0] if found else None


def test_three_processes_on_postgres(site: Site, storage_url: str, tmp_path: Path) -> None:
    with (
        deployed(tmp_path, site.path, storage_url) as deployment,
        Service.open(Project.load(site.path, environ={})) as service,
    ):
        a_tick_runs_the_sync(site, service, deployment)
        a_replay_that_waits_is_sent(site, service, deployment)
        a_worker_is_killed_and_the_next_run_delivers_the_rest(site, service, deployment)
        ticks = deployment.sensor_ticks()
        assert {"retl_alerts", "retl_reaper", "retl_replays", "retl_destination_health"} <= ticks.keys()
        assert all(seen for seen in ticks.values())
        assert [said for seen in ticks.values() for status, said in seen if status == "FAILURE"] == []
    for name in deployment.processes:
        assert "sqlalchemy.exc" not in deployment.log(name), deployment.log(name)


def a_tick_runs_the_sync(site: Site, service: Service, deployment: Deployment) -> None:
    run: Run = eventually("a scheduled run", lambda: newest(service, RunStatus.SUCCEEDED), seconds=180)
    assert (run.counters.read, run.counters.written, run.counters.failed) == (ROWS, ROWS - 1, 1)
    assert len(site.names()) == ROWS - 1
    assert run.dagster_run_id is not None
    eventually("its Dagster run's end", lambda: deployment.status(str(run.dagster_run_id)) == "SUCCESS")


def a_replay_that_waits_is_sent(site: Site, service: Service, deployment: Deployment) -> None:
    deployment.stop_schedule("things")  # or its next run sends the row first
    eventually("the end of runs under way", lambda: not service.runs("things", RunStatus.RUNNING))
    site.sql("UPDATE t SET name = 'mended' WHERE id = 7")
    [replay] = service.queue_replays([letter.id for letter in service.dead_letters()], actor="test")
    with service.store.begin() as conn:  # as if a minute had passed
        long_ago = {"created_at": to_text(service.store.now(conn).replace(year=2000))}
        conn.execute(update(runs).where(runs.c.id == replay.run.id).values(long_ago))
    done: Run = eventually(
        "the replay's end", lambda: (run := service.run_of(replay.run.id)).status.ended and run, seconds=180
    )
    assert (done.status, done.counters.written) == (RunStatus.SUCCEEDED, 1)
    assert site.names()["7"] == "mended"
    assert service.dead_letters() == []
    deployment.start_schedule("things")


def a_worker_is_killed_and_the_next_run_delivers_the_rest(site: Site, service: Service, deployment: Deployment) -> None:
    site.http.latency = 1.0
    site.sql("UPDATE t SET name = 'second ' || id")
    sync = service.find("things")
    applied = len(site.http.applied)
    eventually("a delivery under way", lambda: len(site.http.applied) >= applied + 20, seconds=180)
    holder = service.store.leases.holder(sync.id)
    assert holder is not None
    os.kill(holder.process.pid, signal.SIGKILL)
    site.http.latency = 0
    dead: Run = eventually("the reaper", lambda: (run := service.run_of(holder.run_id)).status.ended and run)
    assert (dead.status, dead.error_code) == (RunStatus.FAILED, ErrorCode.INTERRUPTED)
    assert dead.counters.balanced()
    assert 0 < dead.counters.written < ROWS
    names = {str(number): f"second {number}" for number in range(ROWS)}
    eventually("the rest", lambda: site.names() == names, seconds=180)
    eventually(
        "the end of the dead Dagster run",
        lambda: deployment.status(str(dead.dagster_run_id)) in ("FAILURE", "CANCELED"),
        seconds=240,
    )
