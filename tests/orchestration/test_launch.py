"""`launch`: a run from outside Dagster's processes, recorded by its instance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from programs import ROOT
from scene import Scene

from dagster_retl import Project, Service
from dagster_retl.engine.phase import Phase
from dagster_retl.errors import NotFoundError, RetlError
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunOptions, RunStatus
from dagster_retl.orchestration.instance import open_instance, prepare_home
from dagster_retl.orchestration.launch import launch


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def test_a_launched_run_is_in_the_projects_instance(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Counters] = []
    phases: list[Phase] = []
    run = launch(
        scene.project(),
        "people",
        RunOptions(limit=4),
        on_progress=seen.append,
        on_phase=lambda phase, _: phases.append(phase),
    )
    assert (run.status, run.counters.written, run.trigger) == (RunStatus.SUCCEEDED, 4, "cli")
    assert capfd.readouterr() == ("", "")
    assert seen[-1].written == 4
    assert phases == [phase for phase in Phase if phase is not Phase.WAIT]
    with open_instance(scene.folder) as instance:
        assert run.dagster_run_id is not None
        record = instance.get_run_by_id(run.dagster_run_id)
        assert record is not None
        assert (record.job_name, record.status) == ("retl_syncs", dg.DagsterRunStatus.SUCCESS)
        assert record.tags["retl/sync"] == "people"
    assert (scene.folder / ".dagster" / "dagster.yaml").exists()
    assert "DAGSTER_HOME" not in os.environ


def test_progress_is_live_in_the_store(scene: Scene) -> None:
    data = scene.data()
    data["destinations"]["crm"]["config"] |= {"batch_rows": 2, "concurrency": 1}
    scene.service.latency = 0.3
    project = Project(base=scene.folder, **data)
    stored: list[tuple[RunStatus, int]] = []
    told: list[tuple[RunStatus, int]] = []
    with Service.open(project) as service:

        def look(counters: Counters) -> None:
            [run] = service.runs("people")
            stored.append((run.status, run.counters.written))
            told.append((RunStatus.RUNNING, counters.written))

        launch(project, "people", on_progress=look)
    assert stored == told
    assert any(0 < written < 10 for _, written in told)


def test_a_failed_run_comes_back_with_its_reason(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    run = launch(scene.project(scene.sync(source_query="SELECT id, name FROM nowhere")), "people")
    assert (run.status, run.error_code) == (RunStatus.FAILED, "SOURCE_QUERY")
    assert "nowhere" in str(run.error_message)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_sync_is_not_found(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="'peopel'"):
        launch(scene.project(), "peopel")


def test_a_webserver_that_does_not_answer_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETL_DAGSTER_URL", "http://127.0.0.1:9")
    with pytest.raises(RetlError, match=r"Dagster at http://127\.0\.0\.1:9 cannot be reached"):
        launch(scene.project(), "people")
    assert scene.service.applied == []


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
print(launch(Project.load(sys.argv[1]), "people").status.value)
"""


@contextmanager
def launching(path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(path)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("order", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_run_ends_at_once_as_cancelled(scene: Scene, order: signal.Signals) -> None:
    data = scene.data()
    data["destinations"]["crm"]["config"] |= {"batch_rows": 1, "concurrency": 1}
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(data))
    scene.service.latency = 0.5
    with launching(path) as process:
        while not scene.service.records:
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(order)
        told = time.monotonic()
        output, _ = process.communicate(timeout=30)
    assert time.monotonic() - told < 30
    assert output == "cancelled\n"
    with Service.open(Project.load(path)) as service:
        [run] = service.runs("people")
        assert run.status is RunStatus.CANCELLED
        assert 0 < run.counters.written < run.counters.read == 10
    with open_instance(scene.folder) as instance:
        assert run.dagster_run_id is not None
        record = instance.get_run_by_id(run.dagster_run_id)
        assert record is not None
        assert record.is_finished


@pytest.mark.long
def test_first_runs_of_a_fresh_folder_do_not_race(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data(scene.sync(enabled=False))))
    with ExitStack() as stack:
        processes = [stack.enter_context(launching(path)) for _ in range(3)]
        ends = [process.communicate(timeout=60)[0] for process in processes]
    assert "succeeded\n" in ends
    assert set(ends) <= {"succeeded\n", "failed\n"}  # failed: the sync's lease was another's
