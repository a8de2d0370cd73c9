"""Where runs compute: each in a folder of its own, and what killed ones leave there goes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from dagster_retl.engine.workspace import workspace
from dagster_retl.model.project import EngineSettings

KILLED = """
import os, signal, sys
from dagster_retl.engine.workspace import workspace
from dagster_retl.model.project import EngineSettings
with workspace(EngineSettings(spill=sys.argv[1])) as space:
    space.connection.execute("CREATE TABLE t AS FROM range(10000)")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_workspace_goes_with_its_run(tmp_path: Path) -> None:
    with workspace(EngineSettings(spill=str(tmp_path))) as space:
        assert names(tmp_path) == [space.folder.name]
    assert names(tmp_path) == []


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = names(tmp_path)
    with workspace(EngineSettings(spill=str(tmp_path))) as space:
        assert names(tmp_path) == [space.folder.name] != [left]


def test_runs_side_by_side_leave_each_other_alone(tmp_path: Path) -> None:
    settings = EngineSettings(spill=str(tmp_path))
    with workspace(settings) as one, workspace(settings) as other:
        one.connection.execute("CREATE TABLE t AS FROM range(10000)")
        assert names(tmp_path) == sorted([one.folder.name, other.folder.name])


def test_a_folder_without_an_owners_file_is_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "retl-run-of-old").mkdir()
    with workspace(EngineSettings(spill=str(tmp_path))):
        pass
    assert names(tmp_path) == ["retl-run-of-old"]
