"""`launch`: a run from outside Dagster's processes, recorded by its instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from scene import Scene

import dagster_retl
from dagster_retl import Service
from dagster_retl.errors import NotFoundError
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunOptions, RunStatus
from dagster_retl.orchestration.instance import open_instance, prepare_home
from dagster_retl.orchestration.launch import launch

ROOT = Path(dagster_retl.__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def test_a_launched_run_is_in_the_projects_instance(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Counters] = []
    run = launch(scene.project(), "people", RunOptions(limit=4), on_progress=seen.append)
    assert (run.status, run.counters.written, run.trigger) == (RunStatus.SUCCEEDED, 4, "cli")
    assert capfd.readouterr() == ("", "")
    assert seen[-1].written == 4
    with open_instance(scene.folder) as instance:
        assert run.dagster_run_id is not None
        record = instance.get_run_by_id(run.dagster_run_id)
        assert record is not None
        assert (record.job_name, record.status) == ("retl_syncs", dg.DagsterRunStatus.SUCCESS)
        assert record.tags["retl/sync"] == "people"
    assert (scene.folder / ".dagster" / "dagster.yaml").exists()
    assert "DAGSTER_HOME" not in os.environ


def test_a_failed_run_comes_back_with_its_reason(scene: Scene) -> None:
    run = launch(scene.project(scene.sync(source_query="SELECT id, name FROM nowhere")), "people")
    assert (run.status, run.error_code) == (RunStatus.FAILED, "SOURCE_QUERY")
    assert "nowhere" in str(run.error_message)


def test_an_unknown_sync_is_not_found(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="'peopel'"):
        launch(scene.project(), "peopel")


def test_settings_are_written_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_home(home)
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


LAUNCHER = """
import sys
from dagster_retl import Project
from dagster_retl.orchestration.launch import launch
run = launch(Project.load(sys.argv[1]), "people")
print(run.status.value)
"""


def start(scene: Scene, path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DAGSTER_HOME", None)
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
