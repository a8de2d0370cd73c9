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
from programs import ROOT, UP, eventually

from dagster_retl import Project, Service
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunOptions, RunStatus
from dagster_retl.orchestration.launch import launch
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
LOCATION = {"repositoryLocationName": "dagster_retl.definitions", "repositoryName": "__repository__"}


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

    def launch(self, slug: str) -> str:
        """Start a run as the UI does; the Dagster run's id."""
        launched = self.graphql(
            """mutation ($params: ExecutionParams!) {launchRun(executionParams: $params) {
                __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}""",
            params={
                "selector": {**LOCATION, "jobName": "retl_syncs", "assetSelection": [{"path": ["retl", slug]}]},
                "runConfigData": {},
            },
        )["launchRun"]
        return str(launched["run"]["runId"])

    def status(self, run_id: str) -> str:
        """Dagster's status of a Dagster run."""
        query = "query ($id: ID!) {runOrError(runId: $id) {... on Run {status}}}"
        return str(self.graphql(query, id=run_id)["runOrError"]["status"])

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
    page.get_by_text("ago", exact=False).first.wait_for()
    page.reload()
    page.get_by_text("retl/rows_written").first.wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "after.png", full_page=True)
    for name, value in (("retl/rows_read", 10), ("retl/rows_written", 10), ("retl/rows_failed", 0)):
        assert page.get_by_role("row").filter(has_text=name).filter(has_text=str(value)).count() == 1
    [run] = stack.runs("people")
    assert (run.status, run.counters.written, run.trigger) == (RunStatus.SUCCEEDED, 10, "manual")


def test_schedules_are_listed_as_running(stack: Stack, page: Page, tmp_path: Path) -> None:
    page.goto(f"{stack.url}/automation")
    page.get_by_text("nightly").first.wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "automation.png")
    states = stack.graphql(
        """query ($location: RepositorySelector!) {schedulesOrError(repositorySelector: $location) {
            ... on Schedules {results {name scheduleState {status}}}}}""",
        location=LOCATION,
    )["schedulesOrError"]["results"]
    assert {state["name"]: state["scheduleState"]["status"] for state in states} == {
        "by_the_minute": "RUNNING",
        "nightly": "RUNNING",
    }


def test_a_terminated_run_is_cancelled_at_once(stack: Stack) -> None:
    stack.service.latency = 0.5
    run_id = stack.launch("nightly")
    eventually("a write", lambda: stack.service.records.get("nights"))
    told = time.monotonic()
    stack.graphql("mutation ($id: String!) {terminateRun(runId: $id) {__typename}}", id=run_id)
    eventually("the end", lambda: stack.status(run_id) == "CANCELED", seconds=10)
    stack.service.latency = 0.0
    assert time.monotonic() - told < 30
    run = stack.runs("nightly")[0]
    assert (run.status, run.dagster_run_id) == (RunStatus.CANCELLED, run_id)
    assert 0 < run.counters.written < run.counters.read
    assert run.counters.balanced()


def test_a_launch_goes_through_the_webserver(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETL_DAGSTER_URL", stack.url)
    seen: list[Counters] = []
    run = launch(Project.load(stack.path), "nightly", RunOptions(limit=2), on_progress=seen.append)
    assert (run.status, run.trigger, run.counters.written) == (RunStatus.SUCCEEDED, "cli", 2)
    assert seen
    assert run.dagster_run_id is not None
    assert stack.status(run.dagster_run_id) == "SUCCESS"


@pytest.mark.long
def test_a_sync_that_is_enabled_runs_at_the_next_tick(stack: Stack) -> None:
    assert stack.runs("by_the_minute") == []
    with Service.open(Project.load(stack.path)) as service:
        service.set_enabled("by_the_minute", True, actor="test")
    ended = eventually(
        "the tick's run", lambda: [run for run in stack.runs("by_the_minute") if run.status.ended], seconds=120
    )
    assert (ended[0].status, ended[0].trigger, ended[0].counters.written) == (RunStatus.SUCCEEDED, "schedule", 10)
