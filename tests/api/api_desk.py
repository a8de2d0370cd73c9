"""A project as in the API's document, the API in front of it, and clients that ask over a socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import uvicorn
from programs import ROOT, eventually, free_port

from dagster_retl import Project, Service
from dagster_retl.api.app import create_app
from dagster_retl.store.api_keys import Scope
from dagster_retl.testing import FakeHttpService, Rules

BASE = "/api/reverse-etl"
KEY_FIELD = "External_Id__c"
NOBODY = "http://127.0.0.1:9"
UP = """
import sys
from dagster_retl.orchestration.up import up
up(sys.argv[1], ui_port=int(sys.argv[2]), api_port=int(sys.argv[3]))
"""

SYNC: dict[str, Any] = {
    "name": "crm_accounts_warehouse_to_salesforce",
    "sourceQuery": "SELECT account_id, name, annual_revenue, last_activity_at FROM analytics.dim_crm_account "
    "WHERE is_active = true",
    "destinationId": "conn_sf_prod",
    "objectName": "Account",
    "fieldMappings": [
        {"source": "account_id", "destination": "External_Id__c", "key": True},
        {"source": "name", "destination": "Name"},
        {"source": "annual_revenue", "destination": "AnnualRevenue"},
        {"source": "last_activity_at", "destination": "Last_Activity__c"},
    ],
    "syncMode": "upsert",
    "schedule": {"type": "cron", "expression": "15 */4 * * *", "timezone": "UTC"},
}
"""The document's own example."""


def refuse(record: Mapping[str, Any]) -> str | None:
    """What the destination has against a record."""
    return "bad format for field Name" if "@@" in str(record.get("Name")) else None


@dataclass(frozen=True)
class Desk:
    """A project folder with a warehouse and a destination that listens on loopback."""

    folder: Path
    destination: FakeHttpService

    @property
    def path(self) -> Path:
        return self.folder / "retl.yaml"

    def sql(self, statement: str) -> None:
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    def project(self) -> Project:
        return Project.load(self.path, environ={})

    def key(self, *scopes: Scope, destinations: list[str] | None = None) -> str:
        with Service.open(self.project()) as service:
            chosen = scopes or tuple(Scope)
            return service.store.api_keys.create("test", chosen, "test", destinations=destinations)[1]


def build_desk(folder: Path, destination: FakeHttpService, **settings: Any) -> Desk:
    """Three accounts; one of them has a name that the destination refuses. One sync in the file."""
    field = {"data_type": "string", "createable": True}
    fields = [
        {"name": "Name", "label": "Account Name", "required": True, **field},
        {"name": KEY_FIELD, "label": "Warehouse Account Id", "external_id": True, **field},
        {"name": "AnnualRevenue", "data_type": "currency"},
        {"name": "Last_Activity__c", "data_type": "datetime"},
    ]
    config = {
        "url": f"{destination.url}/v1/{{object}}",
        "check_url": f"{destination.url}/v1/ping",
        "objects": ["Account", "Contact"],
        "fields": fields,
        "batch_rows": 50,
        "results": {"errors_path": "errors", "index_field": "index", "code_field": "code", "message_field": "message"},
    }
    nowhere = {"url": f"{NOBODY}/v1/{{object}}", "check_url": f"{NOBODY}/v1/ping", "timeout": 2}
    of_file = {
        "name": "in the file",
        "source_query": "SELECT account_id, name FROM analytics.dim_crm_account",
        "destination_id": "conn_sf_prod",
        "object_name": "Contact",
        "key": KEY_FIELD,
        "field_mappings": {KEY_FIELD: "account_id", "Name": "name"},
    }
    project = {
        "warehouses": {"default": {"url": "duckdb:///warehouse.duckdb"}},
        "destinations": {
            "conn_sf_prod": {"name": "Salesforce Production", "connector": "http", "config": config},
            "conn_nowhere": {"connector": "http", "config": nowhere},
        },
        "syncs": [of_file],
        **settings,
    }
    desk = Desk(folder, destination)
    desk.path.write_text(json.dumps(project), encoding="utf-8")
    desk.sql("CREATE SCHEMA analytics")
    desk.sql(
        "CREATE TABLE analytics.dim_crm_account AS SELECT 'acc_' || i AS account_id, 'Account ' || i AS name, "
        "i * 1000.50 AS annual_revenue, TIMESTAMP '2025-03-27 12:00:00' AS last_activity_at, true AS is_active "
        "FROM range(3) r(i)"
    )
    desk.sql("UPDATE analytics.dim_crm_account SET name = 'b@@d' WHERE account_id = 'acc_2'")
    return desk


@contextmanager
def serving(project: Project, *, dagster_url: str = NOBODY, rate_limit: float = 10_000) -> Iterator[str]:
    """The API of a project in this process, on a socket of its own; its address."""
    app = create_app(project, dagster_url=dagster_url, rate_limit=rate_limit)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", server_header=False))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        eventually("the API", lambda: server.started or not thread.is_alive())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def client(url: str, key: str | None = None, *, base: str = BASE) -> Iterator[httpx.Client]:
    """A client of the API at an address."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{url}{base}", headers=headers, timeout=60) as opened:
        yield opened


@dataclass(frozen=True)
class Stack:
    """`retl up` in a desk's folder: Dagster's webserver, daemon and code server, and the API, as processes."""

    desk: Desk
    ui: str
    api: str
    key: str

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.ui}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def schedules(self) -> dict[str, str]:
        """Name → status, as Dagster has them."""
        found = self.graphql(
            """query ($location: RepositorySelector!) {schedulesOrError(repositorySelector: $location) {
            ... on Schedules {results {name cronSchedule scheduleState {id selectorId status}}}}}""",
            location={"repositoryLocationName": "dagster_retl.definitions", "repositoryName": "__repository__"},
        )["schedulesOrError"]["results"]
        return {each["name"]: each["scheduleState"]["status"] for each in found}


@contextmanager
def stack_of(desk: Desk) -> Iterator[Stack]:
    """Start everything, and end it."""
    ui, api = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "RETL_PROJECT")}
    stack = Stack(desk, f"http://127.0.0.1:{ui}", f"http://127.0.0.1:{api}", desk.key())
    command = [sys.executable, "-c", UP, str(desk.path), str(ui), str(api)]
    with subprocess.Popen(command, env={**environment, "PYTHONPATH": str(ROOT)}) as process:
        try:
            eventually("the stack", lambda: process.poll() is not None or _answers(stack), seconds=120)
            assert process.poll() is None
            yield stack
        finally:
            process.terminate()


def _answers(stack: Stack) -> bool:
    query = "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename}}}}}"
    try:
        ready = httpx.get(f"{stack.api}/readyz").status_code == 200
        entries = stack.graphql(query)["workspaceOrError"]["locationEntries"]
    except httpx.TransportError:
        return False
    return ready and [entry["locationOrLoadError"] for entry in entries] == [{"__typename": "RepositoryLocation"}]


@contextmanager
def listening() -> Iterator[FakeHttpService]:
    """The destination."""
    operations = {"POST": "upsert", "PUT": "upsert", "PATCH": "update"}
    with FakeHttpService(Rules(key=KEY_FIELD, refuse=refuse, operations=operations)) as service:
        yield service
