"""Pools: as many syncs into one destination at a time as somebody allows, across runs; a real daemon."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from scene import Scene

import dagster_retl
from dagster_retl import Project, Service, build_definitions
from dagster_retl.errors import RetlError
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.webserver import Webserver

ROOT = Path(dagster_retl.__file__).parents[1]
UP = "import sys; from dagster_retl.orchestration.up import up; up(sys.argv[1], ui_port=int(sys.argv[2]))"
SLUGS = ("people", "others")


def test_syncs_of_one_destination_share_a_pool(scene: Scene) -> None:
    data = scene.data(scene.sync(), scene.sync(name="others"), scene.sync(name="third", destination_id="Team-B"))
    data["destinations"]["Team-B"] = data["destinations"]["crm"]
    definitions = build_definitions(Project(base=scene.folder, **data))
    pools = {asset.op.name: asset.op.pool for asset in definitions.assets or [] if hasattr(asset, "op")}
    assert pools == {"people": "retl_crm", "others": "retl_crm", "third": "retl_team_b"}


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, look: object, *, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if callable(look) and look():
            return
        time.sleep(0.3)
    pytest.fail(f"{what} did not happen within {seconds:g} s")


@contextmanager
def up(path: Path) -> Iterator[str]:
    """Webserver, daemon and code server; the URL."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [sys.executable, "-c", UP, str(path), str(port)]
    with subprocess.Popen(command, env={**environment, "PYTHONPATH": str(ROOT)}) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


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
