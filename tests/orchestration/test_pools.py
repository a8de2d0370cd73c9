"""Pools: as many syncs into one destination at a time as somebody allows, across runs; a real daemon."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest
from real_dagster import eventually, up
from scene import Scene

from dagster_retl import Project, Service, build_definitions
from dagster_retl.errors import RetlError
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.webserver import Webserver

SLUGS = ("people", "others")


def test_syncs_of_one_destination_share_a_pool(scene: Scene) -> None:
    data = scene.data(scene.sync(), scene.sync(name="others"), scene.sync(name="third", destination_id="Team-B"))
    data["destinations"]["Team-B"] = data["destinations"]["crm"]
    definitions = build_definitions(Project(base=scene.folder, **data))
    pools = {asset.op.name: asset.op.pool for asset in definitions.assets or [] if hasattr(asset, "op")}
    assert pools == {"people": "retl_crm", "others": "retl_crm", "third": "retl_team_b"}


def launch(url: str, project: Project) -> list[str]:
    """Start a run of each sync as soon as Dagster can."""
    runs: list[str] = []

    def try_all() -> bool:
        try:
            with Webserver(url) as webserver:
                while len(runs) < len(SLUGS):
                    runs.append(webserver.launch(project.sync(SLUGS[len(runs)]), {}, {}))
        except (RetlError, httpx.HTTPError):
            return False
        return True

    eventually("the launch", try_all)
    return runs


@pytest.mark.long
def test_a_limit_holds_across_runs(scene: Scene) -> None:
    data = scene.data(scene.sync(), scene.sync(name="others", object_name="others"))
    data["destinations"]["crm"]["config"] |= {"batch_rows": 1, "concurrency": 1}
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(data))
    scene.service.latency = 0.5
    project = Project.load(path)
    with open_instance(scene.folder):
        limit = [sys.executable, "-m", "dagster", "instance", "concurrency", "set", "retl_crm", "1"]
        subprocess.run(limit, check=True, capture_output=True)
    with up(path) as url:
        launched = launch(url, project)
        with Webserver(url) as webserver:
            eventually("the end", lambda: all(webserver.ended(run) for run in launched))
    with Service.open(project) as service:
        first, second = sorted((service.runs(slug)[0] for slug in SLUGS), key=lambda run: run.created_at)
    assert (first.counters.written, second.counters.written) == (10, 10)
    assert first.finished_at is not None
    assert second.started_at is not None
    assert first.finished_at <= second.started_at
