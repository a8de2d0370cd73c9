"""Syncs that stand elsewhere: as components of their own, in another location, beside another project's of one name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api_desk import KEY_FIELD, Desk, build_desk, client, listening, serving
from programs import ROOT, eventually, free_port

from dagster_retl import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.webserver import Webserver, WebserverError

pytestmark = pytest.mark.long

PROJECT = """
import os
from dagster_retl import Project, build_definitions
defs = build_definitions(Project.load({path!r}, environ={{}}))
"""
COMPONENTS = """
import dagster as dg
from dagster_retl import Project, ReverseEtlSyncComponent
project = Project.load({path!r}, environ={{}})
defs = dg.Definitions.merge(*(
    dg.build_defs_for_component(ReverseEtlSyncComponent(project.model_copy(update={{"syncs": [project.sync(slug)]}})))
    for slug in {slugs!r}
))
"""


def sync(name: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "source_query": "SELECT account_id, name FROM analytics.dim_crm_account WHERE account_id <> 'acc_2'",
        "destination_id": "conn_sf_prod",
        "object_name": "Account",
        "key": KEY_FIELD,
        "field_mappings": {KEY_FIELD: "account_id", "Name": "name"},
        **settings,
    }


@dataclass(frozen=True)
class Dagster:
    """A webserver with three locations: another project's, ours in components, and ours in one piece."""

    desk: Desk
    url: str
    api: httpx.Client

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def id_of(self, name: str) -> str:
        found = self.api.get("/syncs", params={"limit": 200}).json()["data"]
        return next(str(each["id"]) for each in found if each["attributes"]["name"] == name)

    def attributes(self, path: str) -> Any:
        return self.api.get(path).json()["data"]["attributes"]


@contextmanager
def webserver(desk: Desk, locations: dict[str, str]) -> Iterator[str]:
    """Dagster's webserver, daemon and code servers, of files in this order; the URL."""
    port = free_port()
    arguments = []
    for name, text in locations.items():
        (desk.folder / f"{name}.py").write_text(text)
        arguments += ["-f", str(desk.folder / f"{name}.py")]
    home = desk.folder / ".dagster"
    with open_instance(desk.folder):
        pass  # initialised by one process before several use it
    command = [*(sys.executable, "-W", "ignore", "-m", "dagster", "dev", "--log-level", "error"), *arguments]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, "--port", str(port)], env=environment, cwd=desk.folder) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            eventually("Dagster", lambda: process.poll() is not None or _loaded(url, len(locations)), seconds=120)
            assert process.poll() is None
            yield url
        finally:
            process.terminate()


def _loaded(url: str, count: int) -> bool:
    query = "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename}}}}}"
    try:
        entries = httpx.post(f"{url}/graphql", json={"query": query}, timeout=60).json()["data"]["workspaceOrError"]
    except httpx.TransportError:
        return False
    loaded = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries["locationEntries"]]
    assert "PythonError" not in loaded
    return loaded == ["RepositoryLocation"] * count


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    cron = {"schedule": "15 4 * * *"}
    with listening() as destination, listening() as other:
        foreign = build_desk(
            tmp_path_factory.mktemp("foreign"),
            other,
            project="foreign",
            syncs=[sync(name, **cron) for name in ("b", "c")],
        )
        desk = build_desk(
            tmp_path_factory.mktemp("desk"), destination, syncs=[sync(name, **cron) for name in ("a", "b", "c")]
        )
        whole = desk.folder / "whole.yaml"
        whole.write_text(json.dumps({**json.loads(desk.path.read_text()), "syncs": [sync("c", **cron)]}))
        locations = {
            "foreign": PROJECT.format(path=str(foreign.path)),
            "parts": COMPONENTS.format(path=str(desk.path), slugs=["a", "b"]),
            "whole": PROJECT.format(path=str(whole)),
        }
        with (
            webserver(desk, locations) as url,
            serving(desk.project(), dagster_url=url) as address,
            client(address, desk.key()) as api,
        ):
            yield Dagster(desk, url, api)


@pytest.mark.parametrize(
    ("name", "location", "job"),
    [("a", "parts.py", "retl_a"), ("b", "parts.py", "retl_b"), ("c", "whole.py", "retl_syncs")],
)
def test_a_sync_runs_where_it_stands(dagster: Dagster, name: str, location: str, job: str) -> None:
    """`b` and `c` are names of another project's syncs too, which Dagster may name first."""
    started = dagster.api.post("/sync/run", json={"syncId": dagster.id_of(name)})
    assert started.status_code == 202, started.text
    run_id = started.json()["data"]["id"]
    done = eventually(
        "the end of the run",
        lambda: found if (found := dagster.attributes(f"/runs/{run_id}"))["finished_at"] else None,
    )
    assert (done["status"], done["rows_written"], done["error"]) == ("succeeded", 2, None)
    run = dagster.graphql(
        "query ($id: ID!) {runOrError(runId: $id) {... on Run {jobName repositoryOrigin {repositoryLocationName}}}}",
        id=done["dagster_run_id"],
    )["runOrError"]
    assert (run["repositoryOrigin"]["repositoryLocationName"], run["jobName"]) == (location, job)


@pytest.mark.parametrize(("name", "location"), [("a", "parts.py"), ("b", "parts.py"), ("c", "whole.py")])
def test_its_own_schedule_is_shown_and_started(dagster: Dagster, name: str, location: str) -> None:
    sync_id = dagster.id_of(name)
    assert dagster.attributes(f"/syncs/{sync_id}")["schedule_state"] == "running"
    selector = {"repositoryLocationName": location, "repositoryName": "__repository__", "scheduleName": name}
    state = dagster.graphql(
        "query ($s: ScheduleSelector!) {scheduleOrError(scheduleSelector: $s) {... on Schedule {scheduleState {id}}}}",
        s=selector,
    )["scheduleOrError"]["scheduleState"]
    dagster.graphql("mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}", id=state["id"])
    assert dagster.attributes(f"/syncs/{sync_id}")["schedule_state"] == "stopped_in_dagster"
    on = dagster.api.post("/sync/toggle", json={"syncId": sync_id, "enabled": True}).json()["data"]["attributes"]
    assert on["schedule_state"] == "running"


def test_the_location_that_reads_the_list_of_syncs_is_reloaded(dagster: Dagster) -> None:
    """A sync that is made now becomes an asset of the whole project's location, and can be run there."""
    body = {**sync("made"), "schedule": {"type": "cron", "expression": "0 5 * * *"}}
    created = dagster.api.post("/syncs", json=body)
    assert created.status_code == 201, created.text
    assert created.json()["meta"]["definitions_stale"] is False
    assert dagster.attributes(f"/syncs/{created.json()['data']['id']}")["schedule_state"] == "running"
    node = dagster.graphql(
        """{assetNodeOrError(assetKey: {path: ["retl", "made"]}) {... on AssetNode {repository {location {name}}}}}"""
    )["assetNodeOrError"]
    assert node["repository"]["location"]["name"] == "whole.py"


def test_a_sync_that_no_location_of_its_project_holds_is_not_launched(dagster: Dagster) -> None:
    project = Project.load(dagster.desk.path, environ={})
    nowhere = Sync.model_validate({**sync("nowhere"), "project": project.project})
    namesake = Sync.model_validate({**sync("b"), "project": "third"})
    with Webserver(dagster.url) as asked:
        for missing in (nowhere, namesake):
            assert asked.schedule_status(missing) is None
            with pytest.raises(WebserverError, match="does not know sync"):
                asked.launch(missing, {}, {})
