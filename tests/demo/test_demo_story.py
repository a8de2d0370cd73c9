"""The whole demo, as people run it: every number that it tells."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from dagster_retl.cli import main
from dagster_retl.demo import story
from dagster_retl.demo.warehouse import CHANGES, CONTACTS, MISTAKES
from dagster_retl.model.project import Project

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """A folder where the demo can be told, and a port for its CRM."""

    folder: Path

    def call(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["--project", str(self.folder / "retl.yaml"), *arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for variable in ("RETL_PROJECT", "RETL_STORE", "RETL_STATE", "RETL_WRITES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "demo" / ".dagster"))
    monkeypatch.setenv("RETL_DEMO_CRM", f"http://127.0.0.1:{_free_port()}")
    return Place(tmp_path)


def test_the_story(place: Place) -> None:
    told = place.call("demo", "--json")
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["verified"] is True
    steps = document["steps"]
    assert [step["step"] for step in steps] == list(range(1, 9))
    _check_first_sync(steps[1])
    _check_changes(steps[2], steps[1]["runs"][0], steps[3]["runs"][0])
    _check_letters(steps[4])
    _check_replay(steps[6], steps[3])
    contacts, balances = steps[7]["runs"]
    assert (contacts["rows_read"], contacts["rows_failed"]) == (CONTACTS, 5)
    assert balances["rows_written"] == balances["rows_read"] == _count(place.folder / "demo" / "ops.sqlite")
    assert {path.name for path in place.folder.iterdir()} == {"retl.yaml", "demo"}


@pytest.mark.long
def test_it_can_be_told_again_and_starts_over(place: Place) -> None:
    assert place.call("demo", "--json").exit_code == 0
    again = place.call("demo")
    assert again.exit_code == 0, again.output
    for piece in ("The first sync", "The replay", "each exactly as the query says", "retl up"):
        assert piece in again.stdout
    listed = json.loads(place.call("runs", "list", "--json").stdout)
    assert len(listed) == 5, "the second telling starts over"


def _check_first_sync(step: dict[str, Any]) -> None:
    (run,) = step["runs"]
    assert run["rows_failed"] == MISTAKES.rows
    assert run["rows_written"] == run["rows_read"] - MISTAKES.rows == step["proof"]["held"]
    assert run["dead_letters_opened"] == MISTAKES.rows - MISTAKES.twice == step["proof"]["refused"]


def _check_changes(step: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (step["updated"], step["inserted"], step["deleted"]) == (CHANGES.updated, CHANGES.inserted, CHANGES.deleted)
    assert second["rows_deleted"] == second["rows_removed"] == CHANGES.deleted
    assert second["rows_unchanged"] == first["rows_written"] - CHANGES.updated - CHANGES.deleted
    assert second["rows_written"] == second["rows_read"] - second["rows_unchanged"] - MISTAKES.rows
    assert CHANGES.updated < second["rows_written"] <= CHANGES.updated + CHANGES.inserted
    assert (second["rows_failed"], second["dead_letters_opened"]) == (MISTAKES.rows, 0)


def _check_letters(step: dict[str, Any]) -> None:
    assert (step["open"], step["rows"]) == (MISTAKES.rows - MISTAKES.twice, MISTAKES.rows)
    codes = [letter["error_code"] for letter in step["dead_letters"]]
    assert {code: codes.count(code) for code in codes} == {
        "DESTINATION_VALIDATION": MISTAKES.emails + MISTAKES.long_names,
        "MISSING_REQUIRED_FIELD": MISTAKES.missing_names,
        "DUPLICATE_SOURCE_KEY": MISTAKES.twice,
    }
    assert {letter["attempts"] for letter in step["dead_letters"]} == {2}


def _check_replay(step: dict[str, Any], before: dict[str, Any]) -> None:
    (run,) = step["runs"]
    letters = MISTAKES.rows - MISTAKES.twice
    assert (step["resolved"], step["open"]) == (letters, 0)
    assert (run["rows_written"], run["rows_failed"]) == (letters, 0)
    assert (step["proof"]["held"], step["proof"]["refused"]) == (before["proof"]["held"] + letters, 0)


def test_a_busy_port_is_told_before_anything_is_removed(place: Place) -> None:
    kept = place.folder / "demo" / "warehouse.duckdb"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(os.environ["RETL_DEMO_CRM"].rpartition(":")[2])))
        listener.listen()
        told = place.call("demo")
    assert told.exit_code == 1
    assert "something listens on 127.0.0.1" in told.stderr
    assert kept.read_bytes() == b"mine"


def test_serving_the_crm_until_it_is_told_to_stop(place: Place) -> None:
    (place.folder / "retl.yaml").write_text(story.project_text(), encoding="utf-8")
    command = [sys.executable, "-c", "from dagster_retl.cli import main; main()", "demo", "--serve"]
    with subprocess.Popen(command, cwd=place.folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url is not None
        answer = httpx.get(f"{url.group()}/v1/accounts", headers={"Authorization": "Bearer demo-token"})
        process.terminate()
        assert (process.wait(timeout=30), answer.json()) == (0, {"count": 0, "records": []})


def test_another_project_is_left_alone(place: Place) -> None:
    own = "warehouses: {}\ndestinations: {}\nsyncs: []\n"
    (place.folder / "retl.yaml").write_text(own, encoding="utf-8")
    told = place.call("demo")
    assert told.exit_code == 1
    assert "a project of its own" in told.stderr
    assert [path.name for path in place.folder.iterdir()] == ["retl.yaml"]


def test_checking_before_the_demo_says_what_to_do(place: Place) -> None:
    (place.folder / "retl.yaml").write_text(story.project_text(), encoding="utf-8")
    told = place.call("check")
    assert told.exit_code == 1
    assert "run `retl demo` first" in told.stdout


def test_starting_over_removes_only_what_the_demo_made(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / ".retl").mkdir()
    (tmp_path / ".retl" / "retl.db").write_bytes(b"old")
    story.start_over(tmp_path)
    assert (tmp_path / "notes.txt").exists()
    assert not (tmp_path / ".retl").exists()


def test_the_repositorys_project_is_the_packages() -> None:
    assert (ROOT / "retl.yaml").read_text(encoding="utf-8") == story.project_text()
    assert story.is_demo(Project.load(ROOT / "retl.yaml", environ={}))


def test_git_tracks_nothing_that_the_demo_makes() -> None:
    made = [f"demo/{name}" for name in ("warehouse.duckdb", "crm.sqlite", "ops.sqlite", ".retl/retl.db", ".dagster/x")]
    ignored = subprocess.run(["git", "check-ignore", *made], cwd=ROOT, capture_output=True, text=True, check=False)
    if ignored.returncode == 128:
        pytest.skip("this is no git repository")
    assert ignored.stdout.split() == made


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute("SELECT count(*) FROM account_balances").fetchone()
        return int(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
