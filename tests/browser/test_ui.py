"""Syncs in Dagster's own UI: the real webserver, daemon and code server, and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import httpx
import psutil
import pytest

import dagster_retl
from dagster_retl import Project, Service
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.testing import FakeHttpService

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium", path=f"{os.environ.get('PATH', '')}:/usr/bin")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
ROOT = Path(dagster_retl.__file__).parents[1]
UP = "import sys; from dagster_retl.orchestration.up import up; up(sys.argv[1], ui_port=int(sys.argv[2]))"


def eventually(what: str, look: Any, *, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.2)
    return pytest.fail(f"{what} did not happen within {seconds:g} s")


class Stack:
    """`retl up` in a folder that holds a retl.yaml and a warehouse, and nothing else."""

    def __init__(self, folder: Path, service: FakeHttpService) -> None:
        self.service = service
        self.path = folder / "retl.yaml"
        with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
            connection.execute("CREATE TABLE people AS SELECT i AS id, 'name ' || i AS name FROM range(10) r(i)")
        self.path.write_text(json.dumps(self._project()))
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def _project(self) -> dict[str, Any]:
        config = {"url": f"{self.service.url}/v1/{{object}}", "batch_rows": 1, "concurrency": 1}
        sync = {
            "source_query": "SELECT id, name\nFROM people\nWHERE id >= 0",
            "destination_id": "crm",
            "key": "id",
            "field_mappings": {"id": "id", "name": "upper(name)"},
            "owners": ["team:revops"],
            "group": "sales",
        }
        return {
            "warehouses": {"default": {"url": "duckdb:///warehouse.duckdb"}},
            "destinations": {"crm": {"name": "Team CRM", "connector": "http", "config": config}},
            "syncs": [
                sync | {"name": "people", "object_name": "people", "description": "Everybody we know."},
                sync | {"name": "by the minute", "object_name": "minutes", "schedule": "* * * * *", "enabled": False},
                sync | {"name": "nightly", "object_name": "nights", "schedule": "30 2 * * *"},
            ],
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        with subprocess.Popen(
            [sys.executable, "-c", UP, str(self.path), str(self.port)], env={**environment, "PYTHONPATH": str(ROOT)}
        ) as process:
            try:
                eventually("the UI", lambda: process.poll() is not None or self._answers())
                yield psutil.Process(process.pid)
            finally:
                process.terminate()

    def _answers(self) -> bool:
        query = "{workspaceOrError {... on Workspace {locationEntries {loadStatus locationOrLoadError {__typename}}}}}"
        try:
            entries = self.graphql(query)["workspaceOrError"]["locationEntries"]
        except httpx.TransportError:
            return False
        return [entry["locationOrLoadError"] for entry in entries] == [{"__typename": "RepositoryLocation"}]

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def runs(self, slug: str) -> list[Run]:
        with Service.open(Project.load(self.path)) as service:
            return service.runs(slug)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    with FakeHttpService() as service:
        stack = Stack(tmp_path_factory.mktemp("up"), service)
        with stack.running():
            yield stack


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


def test_materializing_a_sync_shows_its_counts(stack: Stack, page: Page, tmp_path: Path) -> None:
    page.goto(f"{stack.url}/assets/retl/people")
    page.get_by_text("Everybody we know.").wait_for()
    page.screenshot(path=tmp_path / "before.png")
    page.get_by_text("Materialize", exact=True).click()
    eventually("the run", lambda: [run for run in stack.runs("people") if run.status.ended])
    page.wait_for_timeout(5000)
    page.screenshot(path=tmp_path / "after.png")
    [run] = stack.runs("people")
    assert (run.status, run.counters.written, run.trigger) == (RunStatus.SUCCEEDED, 10, "manual")


def test_schedules_are_listed_as_running_unless_disabled(stack: Stack, page: Page, tmp_path: Path) -> None:
    page.goto(f"{stack.url}/automation")
    page.get_by_text("nightly").first.wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "automation.png")
    states = stack.graphql(
        """{schedulesOrError(repositorySelector: {repositoryLocationName: "dagster_retl.definitions",
                                                  repositoryName: "__repository__"}) {
            ... on Schedules {results {name scheduleState {status}}}}}"""
    )["schedulesOrError"]["results"]
    assert {state["name"]: state["scheduleState"]["status"] for state in states} == {
        "by_the_minute": "STOPPED",
        "nightly": "RUNNING",
    }
