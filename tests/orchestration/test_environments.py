"""Dagster itself, with code locations that share a store: two projects, one without writes, one without its store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import programs
import pytest
from programs import ROOT, free_port
from scene import Scene

from dagster_retl import Project, Service
from dagster_retl.model.dagster_names import run_tags
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.testing import FakeHttpService
from dagster_retl.webserver import Webserver

pytestmark = pytest.mark.long

eventually = partial(programs.eventually, seconds=90.0)
LOCATION = """
from dagster_retl import Project, build_definitions
defs = build_definitions(Project.load({path!r}, environ={{}}))
"""
LOCATIONS = """{repositoriesOrError {... on RepositoryConnection {nodes {
  location {name}
  assetNodes {assetKey {path} isExecutable description}
  schedules {name scheduleState {status}}
  sensors {name sensorState {status}}
}}}}"""
ERRORS = """{workspaceOrError {... on Workspace {locationEntries {
  name locationOrLoadError {__typename ... on PythonError {message causes {message}}}
}}}}"""
MESSAGES = """query($id: ID!) {logsForRun(runId: $id) {... on EventConnection {events {
  ... on ExecutionStepFailureEvent {error {message causes {message}}}
  ... on EngineEvent {message error {message causes {message}}}
  ... on RunFailureEvent {message error {message}}
}}}}"""


@dataclass(frozen=True)
class Site:
    """Dagster's webserver and daemon, and the projects `one` and `two` on one store; `two` has `writes: off`."""

    url: str
    scene: Scene
    projects: Mapping[str, Project]

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def location(self, name: str) -> Any:
        found = self.graphql(LOCATIONS)["repositoriesOrError"]["nodes"]
        return next(each for each in found if each["location"]["name"] == f"{name}.py")

    def syncs(self, name: str) -> list[str]:
        """Slugs of the syncs that a location has, as often as it has them."""
        nodes = [node for node in self.location(name)["assetNodes"] if node["isExecutable"]]
        return sorted("/".join(node["assetKey"]["path"]) for node in nodes)

    def launch(self, sync: Sync, config: Mapping[str, Any] | None = None) -> str:
        """Run a sync, and wait until its Dagster run is over; the id of that."""
        with Webserver(self.url) as webserver:
            run_id = webserver.launch(sync, config or {}, run_tags(sync))
            eventually("the run's end", lambda: webserver.ended(run_id))
            return run_id

    def run(self, name: str, sync: Sync) -> Run:
        dagster_run_id = self.launch(sync)
        with Service.open(self.projects[name]) as service:
            found = service.store.runs.find(dagster_run_id, sync.slug)
            assert found is not None
            return found

    def words(self, dagster_run_id: str) -> str:
        return json.dumps(self.graphql(MESSAGES, id=dagster_run_id))


def ready(url: str, count: int) -> bool:
    try:
        answer = httpx.post(f"{url}/graphql", json={"query": ERRORS}, timeout=60).json()
    except httpx.TransportError:
        return False
    entries = answer["data"]["workspaceOrError"]["locationEntries"]
    return len([each for each in entries if each["locationOrLoadError"]]) == count


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "garbage.db").write_bytes(b"this is no database" * 100)
    with FakeHttpService() as service:
        scene = Scene(folder, service)
        cron = {"schedule": "0 4 1 1 *"}
        shared = scene.sync(name="shared", **cron)
        files = {
            "one": scene.data(shared, scene.sync(name="first", **cron), project="one"),
            "two": scene.data(shared, scene.sync(name="second", schedule="on_upstream"), project="two", writes=False),
            "broken": scene.data(project="broken", store="sqlite:///garbage.db"),
        }
        for name, data in files.items():
            (folder / f"{name}.yaml").write_text(json.dumps(data))
            (folder / f"{name}.py").write_text(LOCATION.format(path=str(folder / f"{name}.yaml")))
        projects = {name: Project.load(folder / f"{name}.yaml", environ={}) for name in ("one", "two")}
        for name, project in projects.items():
            with Service.open(project) as opened:
                opened.editor.create(scene.sync(name=f"made for {name}", **cron), actor="ann")
        port = free_port()
        with open_instance(folder):
            pass  # initialised by one process before several use it
        files_of = [part for name in files for part in ("-f", str(folder / f"{name}.py"))]
        command = [sys.executable, "-W", "ignore", "-m", "dagster", "dev", "--log-level", "error", *files_of]
        environment = {**os.environ, "DAGSTER_HOME": str(folder / ".dagster"), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen([*command, "--port", str(port)], env=environment, cwd=folder) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                eventually("Dagster", lambda: ready(url, len(files)), seconds=180)
                yield Site(url, scene, projects)
            finally:
                process.terminate()


def test_a_location_has_the_syncs_of_its_project_only_and_each_once(site: Site) -> None:
    assert site.syncs("one") == ["retl/first", "retl/made_for_one", "retl/shared"]
    assert site.syncs("two") == ["retl/made_for_two", "retl/second", "retl/shared"]
    assert {each["name"] for each in site.location("one")["schedules"]} == {"first", "made_for_one", "shared"}
    assert {each["name"] for each in site.location("two")["schedules"]} == {"made_for_two", "shared"}


def test_syncs_of_one_slug_in_two_projects_are_two(site: Site) -> None:
    one, two = (site.projects[name].sync("shared") for name in ("one", "two"))
    assert one.id != two.id
    ran = site.run("one", one)
    assert (ran.sync_id, ran.status, ran.dry_run) == (one.id, RunStatus.SUCCEEDED, False)
    with Service.open(site.projects["two"]) as service:
        assert service.store.snapshots.pointer(two.id) is None
        assert one.id not in {view.sync.id for view in service.syncs()}
        assert service.retired() == []


def test_what_one_project_retires_is_nobody_elses(site: Site) -> None:
    site.run("one", site.projects["one"].sync("first"))
    with Service.open(site.projects["one"].model_copy(update={"syncs": ()})) as emptied:
        assert {view.retired.name for view in emptied.retired()} >= {"first"}
    with Service.open(site.projects["two"].model_copy(update={"syncs": ()})) as other:
        assert other.retired() == []


def test_without_writes_nothing_runs_by_itself_and_every_run_is_a_plan(site: Site) -> None:
    on, off = site.location("one"), site.location("two")
    states = {each["name"]: each["scheduleState"]["status"] for each in off["schedules"]}
    states |= {each["name"]: each["sensorState"]["status"] for each in off["sensors"]}
    assert states.keys() >= {"shared", "made_for_two", "retl_alerts", "retl_reaper", "retl_automation"}
    assert set(states.values()) == {"STOPPED"}
    assert {each["scheduleState"]["status"] for each in on["schedules"]} == {"RUNNING"}
    assert {each["sensorState"]["status"] for each in on["sensors"]} == {"RUNNING"}
    told = {"/".join(node["assetKey"]["path"]): node["description"] for node in off["assetNodes"]}
    assert "**Writes are off**" in told["retl/second"]
    asked = len(site.scene.service.requests)
    ran = site.run("two", site.projects["two"].sync("second"))
    assert (ran.status, ran.dry_run, ran.counters.written) == (RunStatus.SUCCEEDED, True, 0)
    assert [request.method for request in site.scene.service.requests[asked:] if request.method != "GET"] == []


def test_a_store_that_cannot_be_read_fails_its_location_and_no_other(site: Site) -> None:
    entries = site.graphql(ERRORS)["workspaceOrError"]["locationEntries"]
    kinds = {each["name"]: each["locationOrLoadError"]["__typename"] for each in entries}
    assert kinds == {"one.py": "RepositoryLocation", "two.py": "RepositoryLocation", "broken.py": "PythonError"}
    told = json.dumps(next(each for each in entries if each["name"] == "broken.py"))
    assert "garbage.db" in told
    assert "not a database" in told


def test_a_run_of_a_sync_that_was_deleted_meanwhile_sends_nothing_and_says_why(site: Site) -> None:
    """Dagster's worker loads the definitions anew, where the sync is no more; the run of ours says it in its words."""
    with Service.open(site.projects["one"]) as service:
        saved = service.editor.create(site.scene.sync(name="short lived", schedule="0 4 1 1 *"), actor="ann")
        sync = saved.entry.sync
        with Webserver(site.url) as webserver:
            webserver.reload("one")
        assert "retl/short_lived" in site.syncs("one")
        queued = service.queue(sync.id)
        service.editor.delete(sync.id, actor="ann")
        asked = len(site.scene.service.requests)
        dagster_run_id = site.launch(sync, {"ops": {sync.slug: {"config": {"run_id": queued.id}}}})
        ended = service.run_of(queued.id)
    assert (ended.status, ended.error_message) == (RunStatus.CANCELLED, "the sync was deleted before the run began")
    assert "['retl/short_lived'] were selected, but no AssetsDefinition" in site.words(dagster_run_id)
    assert len(site.scene.service.requests) == asked
