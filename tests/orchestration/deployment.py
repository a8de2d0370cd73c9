"""A deployment: webserver, daemon and code server as processes of their own, on Postgres."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from programs import ROOT, free_port
from real_dagster import eventually

LOCATION = "retl"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Deployment:
    """Dagster's three processes over one project file. `logs` has a file for each of them."""

    ui: str
    logs: Path
    processes: dict[str, subprocess.Popen[bytes]]

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.ui}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def ready(self) -> bool:
        """Whether the webserver serves the code server's definitions."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended:\n{self.log(name)}"
        query = "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename}}}}}"
        try:
            entries = self.graphql(query)["workspaceOrError"]["locationEntries"]
        except (httpx.TransportError, json.JSONDecodeError):
            return False
        return [entry["locationOrLoadError"] for entry in entries] == [{"__typename": "RepositoryLocation"}]

    def log(self, name: str) -> str:
        return (self.logs / name).read_text(errors="replace")

    def status(self, run_id: str) -> str:
        """Of a Dagster run."""
        found = self.graphql("query ($id: ID!) {runOrError(runId: $id) {... on Run {status}}}", id=run_id)
        return str(found["runOrError"]["status"])

    def stop_schedule(self, name: str) -> None:
        find = """query ($s: ScheduleSelector!) {scheduleOrError(scheduleSelector: $s) {
            ... on Schedule {scheduleState {id}}}}"""
        state = self.graphql(find, s=_schedule(name))["scheduleOrError"]["scheduleState"]
        stop = "mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}"
        answer = self.graphql(stop, id=state["id"])["stopRunningSchedule"]
        assert answer == {"__typename": "ScheduleStateResult"}

    def start_schedule(self, name: str) -> None:
        start = "mutation ($s: ScheduleSelector!) {startSchedule(scheduleSelector: $s) {__typename}}"
        answer = self.graphql(start, s=_schedule(name))["startSchedule"]
        assert answer == {"__typename": "ScheduleStateResult"}

    def sensor_ticks(self) -> dict[str, list[tuple[str, str]]]:
        """Sensor → what its ticks ended as, and what they said."""
        found = self.graphql(
            """query ($selector: RepositorySelector!) {sensorsOrError(repositorySelector: $selector) {
            ... on Sensors {results {name sensorState {status ticks(limit: 20) {
                status skipReason error {message}}}}}}}""",
            selector={"repositoryLocationName": LOCATION, "repositoryName": "__repository__"},
        )["sensorsOrError"]["results"]
        return {
            sensor["name"]: [
                (tick["status"], tick["skipReason"] or (tick["error"] or {}).get("message") or "")
                for tick in sensor["sensorState"]["ticks"]
            ]
            for sensor in found
        }


def _schedule(name: str) -> dict[str, str]:
    return {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "scheduleName": name}


def write_settings(home: Path, storage_url: str) -> None:
    """An instance as docs/deployment.md has it."""
    home.mkdir()
    settings = {
        "telemetry": {"enabled": False},
        "storage": {"postgres": {"postgres_url": storage_url}},
        "run_coordinator": {
            "module": "dagster",
            "class": "QueuedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1},
        },
        "concurrency": {"pools": {"granularity": "op"}},
        "run_monitoring": {"enabled": True, "free_slots_after_run_end_seconds": 30},
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))


@contextmanager
def deployed(folder: Path, project: Path, storage_url: str) -> Iterator[Deployment]:
    """Start the three processes at the same moment, on a home that knows nothing yet; end them."""
    home, logs = folder / "home", folder / "logs"
    write_settings(home, storage_url)
    logs.mkdir()
    code, ui = free_port(), free_port()
    server = {"grpc_server": {"host": "127.0.0.1", "port": code, "location_name": LOCATION}}
    workspace = folder / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [server]}))
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    ours = {**environment, "RETL_PROJECT": str(project)}
    with ExitStack() as stack:
        started = {
            "code-server": _process(
                stack, logs, ours, "code-server", ["dagster", "code-server", "start", "-m", "dagster_retl.definitions",
                "-h", "127.0.0.1", "-p", str(code)]
            ),
            "webserver": _process(
                stack, logs, environment, "webserver", ["dagster-webserver", "-h", "127.0.0.1", "-p", str(ui),
                "-w", str(workspace)]
            ),
            "daemon": _process(stack, logs, environment, "daemon", ["dagster-daemon", "run", "-w", str(workspace)]),
        }  # fmt: skip
        deployment = Deployment(f"http://127.0.0.1:{ui}", logs, started)
        eventually("the deployment", deployment.ready)
        yield deployment


def _process(
    stack: ExitStack, logs: Path, environment: dict[str, str], name: str, command: Sequence[str]
) -> subprocess.Popen[bytes]:
    output = stack.enter_context((logs / name).open("wb"))
    process = subprocess.Popen(
        [str(BIN / command[0]), *command[1:]], env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=logs
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
