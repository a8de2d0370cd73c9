"""A store or state on a local disk is refused where runs start on other machines, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import ROOT
from scene import Scene

from dagster_retl import build_definitions
from dagster_retl.errors import ConfigurationError
from dagster_retl.orchestration.build import build_sync_definitions
from dagster_retl.orchestration.instance import prepare_home
from dagster_retl.orchestration.remote_runs import refuse_local_places, remote_launcher

K8S = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": {"job_namespace": {"env": "NAMESPACE"}}}
REMOTE = [
    K8S,
    {"module": "dagster_k8s.launcher", "class": "K8sRunLauncher"},
    {"module": "dagster_celery_k8s", "class": "CeleryK8sRunLauncher"},
    {"module": "dagster_celery", "class": "CeleryRunLauncher"},
    {"module": "dagster_docker", "class": "DockerRunLauncher"},
    {"module": "dagster_aws.ecs", "class": "EcsRunLauncher"},
]
ELSEWHERE = {"store": "postgresql://retl:s3cret@db.example.com/retl", "state": "s3://bucket/retl"}


def home(folder: Path, launcher: Mapping[str, Any] | None, **settings: Any) -> dict[str, str]:
    """The environment of a process whose instance has this run launcher."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {**settings, **({"run_launcher": dict(launcher)} if launcher else {})}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(written))
    return {"DAGSTER_HOME": str(folder)}


@pytest.mark.parametrize("launcher", REMOTE, ids=lambda launcher: launcher["module"])
def test_both_are_refused_and_named(scene: Scene, launcher: Mapping[str, Any]) -> None:
    environ = home(scene.folder / "home", launcher)
    with pytest.raises(ConfigurationError) as caught:
        refuse_local_places(scene.project(), environ)
    message = caught.value.message
    assert f"{launcher['module']}.{launcher['class']}" in message
    assert "retl.db is a file" in message
    assert f"the state {scene.folder / '.retl/state'} is a folder" in message
    assert "RETL_STORE" in str(caught.value.hint)
    assert "RETL_STATE" in str(caught.value.hint)


@pytest.mark.parametrize(("local", "word"), [("store", "is a file"), ("state", "is a folder")])
def test_only_what_is_local_is_named(scene: Scene, local: str, word: str) -> None:
    places = {name: value for name, value in ELSEWHERE.items() if name != local}
    with pytest.raises(ConfigurationError) as caught:
        refuse_local_places(scene.project(**places), home(scene.folder / "home", K8S))
    assert word in caught.value.message
    assert ("the store" in caught.value.message, "the state" in caught.value.message) == (
        local == "store",
        local == "state",
    )
    assert "s3cret" not in str(caught.value)


def test_what_all_machines_reach_is_fine(scene: Scene) -> None:
    refuse_local_places(scene.project(**ELSEWHERE), home(scene.folder / "home", K8S))


@pytest.mark.parametrize(
    "launcher",
    [
        None,
        {"module": "dagster", "class": "DefaultRunLauncher"},
        {"module": "dagster.core.launcher", "class": "DefaultRunLauncher"},
        {"module": "acme.launchers", "class": "LocalLauncher"},
        {"module": "dagster_k8s_not_quite", "class": "X"},
    ],
    ids=str,
)
def test_no_false_alarm(scene: Scene, launcher: Mapping[str, Any] | None) -> None:
    refuse_local_places(scene.project(), home(scene.folder / "home", launcher, telemetry={"enabled": False}))


def test_no_instance_no_alarm(scene: Scene, tmp_path: Path) -> None:
    assert remote_launcher({}) is None
    assert remote_launcher({"DAGSTER_HOME": str(tmp_path / "nowhere")}) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "dagster.yaml").write_text("# nothing yet\n")
    assert remote_launcher({"DAGSTER_HOME": str(empty)}) is None
    ours = tmp_path / "ours"
    prepare_home(ours)
    assert remote_launcher({"DAGSTER_HOME": str(ours)}) is None


def test_definitions_do_not_load(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home(scene.folder / "home", K8S)["DAGSTER_HOME"])
    for build in (build_definitions, build_sync_definitions):
        with pytest.raises(ConfigurationError, match=r"started elsewhere by dagster_k8s\.K8sRunLauncher"):
            build(scene.project())


def test_who_loads_definitions_is_told_and_needs_no_launcher_installed(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(yaml.safe_dump(scene.data()))
    environment = {**os.environ, **home(scene.folder / "home", K8S), "RETL_PROJECT": str(path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "import dagster_retl.definitions"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "runs are started elsewhere by dagster_k8s.K8sRunLauncher" in done.stderr
