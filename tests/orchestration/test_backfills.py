"""Backfills and schedules of partitions, by a real daemon."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
from real_dagster import eventually, up
from scene import Scene

from dagster_retl import Project, Service
from dagster_retl.errors import RetlError
from dagster_retl.model.runs import RunStatus
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.webserver import Webserver

KEYS = ("0", "1", "2")
BACKFILL = """
    mutation($params: LaunchBackfillParams!) {
        launchPartitionBackfill(backfillParams: $params) { __typename ... on PythonError { message } }
    }
"""


def parted(scene: Scene, backfill: str, **changes: Any) -> dict[str, Any]:
    partitions = {"type": "static", "keys": list(KEYS), "backfill": backfill}
    return scene.sync(
        source_query="SELECT id, name FROM people WHERE id % 3 = :partition::INT", partitions=partitions, **changes
    )


def known(url: str, project: Project) -> bool:
    try:
        with Webserver(url) as webserver:
            webserver.reload(project.project)
    except (RetlError, httpx.HTTPError):
        return False
    return True


def start(url: str) -> None:
    params = {"assetSelection": [{"path": ["retl", "people"]}], "partitionNames": list(KEYS)}
    answer = httpx.post(f"{url}/graphql", json={"query": BACKFILL, "variables": {"params": params}}, timeout=60)
    assert answer.json()["data"]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answer.text


def ended(project: Project) -> list[Any]:
    with Service.open(project) as service:
        return [run for run in service.runs("people") if run.status.ended]


@pytest.mark.long
@pytest.mark.parametrize(("backfill", "dagster_runs"), [("single_run", 1), ("run_per_partition", 3)])
def test_a_backfill_is_one_run_or_one_for_each_partition(scene: Scene, backfill: str, dagster_runs: int) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data(parted(scene, backfill))))
    scene.service.latency = 0.3
    project = Project.load(path)
    with up(path) as url:
        eventually("the load", lambda: known(url, project))
        start(url)
        eventually("the end of three runs", lambda: len(ended(project)) == 3)
    runs = ended(project)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    assert sorted(run.partition for run in runs) == list(KEYS)
    assert len({run.dagster_run_id for run in runs}) == dagster_runs
    assert {run.trigger for run in runs} == {"backfill"}
    assert len(scene.service.records["people"]) == 10
    spans = sorted((run.started_at, run.finished_at) for run in runs)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


@pytest.mark.long
def test_a_schedule_and_a_launch_over_the_webserver_run_partitions(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data(parted(scene, "single_run", schedule="* * * * *"))))
    project = Project.load(path)
    with up(path) as url:
        eventually("the load", lambda: known(url, project))
        with Webserver(url) as webserver:
            launched = webserver.launch(project.sync("people"), {}, {}, "1")
            eventually("the launched run", lambda: webserver.ended(launched))
            assert webserver.status(launched) == "SUCCESS"
        eventually("a tick", lambda: {run.trigger for run in ended(project)} >= {"schedule"})
        eventually("all partitions", lambda: len(scene.service.records["people"]) == 10)
    with Service.open(project) as service, open_instance(scene.folder) as instance:
        assert {run.partition for run in service.runs("people")} >= set(KEYS)
        assert instance.get_run_by_id(launched) is not None
