"""What people type wrong: each mistake is named, says what to do, and never shows a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_shop import TOKEN, Shop, build_shop, forget_environment
from click.testing import Result

from dagster_retl.testing import FakeHttpService, Rules

MISTAKES = [
    (["run", "people_tabel"], 1, "Did you mean `people_table`?"),
    (["plan", "seat"], 1, "Did you mean `seats`?"),
    (["syncs", "show", "nothing_like_it"], 1, "people_table"),
    (["syncs", "enable", "peple_table"], 1, "people_table"),
    (["check", "servce"], 1, "Did you mean `service`?"),
    (["runs", "list", "people_tabel"], 1, "Did you mean `people_table`?"),
    (["runs", "show", "retl_run_none"], 1, "retl_run_none"),
    (["runs", "list", "--status", "finished"], 2, "succeeded"),
    (["runs", "list", "--limit", "0"], 2, "--limit"),
    (["dlq", "show", "none"], 1, "retl_dlq_none"),
    (["dlq", "list", "--code", "OOPS"], 2, "DESTINATION_VALIDATION"),
    (["dlq", "resolve", "none", "--resolution", "skipped"], 1, "retl_dlq_none"),
    (["dlq", "resolve", "none"], 2, "--resolution"),
    (["dlq", "resolve", "none", "--resolution", "Not a word"], 1, "fixed_source_data"),
    (["dlq", "resolve"], 2, "ID"),
    (["dlq", "replay"], 2, "--all"),
    (["dlq", "replay", "x", "--all"], 2, "--sync"),
    (["dlq", "replay", "none"], 1, "retl_dlq_none"),
    (["connectors", "htpp"], 1, "'http'"),
    (["run"], 2, "SYNC"),
    (["run", "seats", "--override", "everything"], 2, "deletes"),
    (["run", "seats", "--limit", "many"], 2, "many"),
    (["run", "seats", "--reset", "--keep-snapshot"], 2, "choose one"),
    (["run", "seats", "--key", "EU"], 2, "region=…,number=…"),
    (["run", "seats", "--key", "region=EU"], 2, "number"),
    (["run", "seats", "--key", "regoin=EU,number=1"], 2, "Did you mean `region`?"),
    (["run", "people_table", "--key", "name=Ada"], 2, "'name' is not a key field"),
    (["rnu", "seats"], 2, "run"),
    (["run", "seats", "--dry"], 2, "--dry-run"),
    (["up", "--ui-port", "99999"], 2, "65535"),
]


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop where nobody gets to changing anything."""
    with pytest.MonkeyPatch.context() as patch, FakeHttpService(Rules(token=TOKEN)) as service:
        forget_environment(patch)
        yield build_shop(tmp_path_factory.mktemp("shop"), service)


@pytest.mark.parametrize(("arguments", "code", "advice"), MISTAKES, ids=[" ".join(each[0]) for each in MISTAKES])
def test_a_mistake_is_told_to_people_and_to_programs(
    open_shop: Shop, arguments: list[str], code: int, advice: str
) -> None:
    told = open_shop.call(*arguments)
    assert (told.exit_code, told.stdout) == (code, ""), told.output
    assert advice in told.stderr
    assert "Traceback" not in told.stderr
    document = open_shop.document(*arguments, code=code)
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "hint"}
    assert advice in f"{document['error']['message']} {document['error']['hint']}"


def test_a_missing_project_says_how_to_get_one(tmp_path: Path, call_in: Callable[..., Result]) -> None:
    told = call_in(tmp_path, "run", "anything")
    assert told.exit_code == 1
    assert "there is no project file retl.yaml" in told.stderr
    assert "retl init" in told.stderr
    elsewhere = call_in(tmp_path, "--project", "none.yaml", "syncs", "list", "--json")
    assert json.loads(elsewhere.stdout)["error"]["code"] == "CONFIGURATION"


def test_all_mistakes_of_a_file_are_told_with_their_lines(tmp_path: Path, call_in: Callable[..., Result]) -> None:
    (tmp_path / "retl.yaml").write_text("warehouses: {}\ndestinatoins: {}\nsyncs: [{name: a}]\n", encoding="utf-8")
    told = call_in(tmp_path, "syncs", "list")
    assert told.exit_code == 1
    assert "retl.yaml:2" in told.stderr
    assert "destinations" in told.stderr
    assert "retl.yaml:3" in told.stderr


def test_a_connector_that_does_not_exist_fails_the_check(shop: Shop) -> None:
    file = shop.folder / "retl.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("connector: http", "connector: htpp"), encoding="utf-8")
    findings = {finding["subject"]: finding for finding in shop.document("check", "--offline", code=1)}
    assert "Did you mean 'http'?" in findings["destination service"]["error"]["hint"]


def test_a_table_that_does_not_exist_is_named(shop: Shop) -> None:
    shop.warehouse("DROP TABLE seats")
    told = shop.call("plan", "seats")
    assert told.exit_code == 1
    assert "seats" in told.stderr
    assert "Traceback" not in told.output


def test_without_arguments_it_explains_itself(tmp_path: Path, call_in: Callable[..., Result]) -> None:
    assert "Usage: retl" in call_in(tmp_path).output
    for command in (
        "",
        "run",
        "plan",
        "check",
        "syncs",
        "runs",
        "dlq",
        "db",
        "up",
        "demo",
        "init",
        "connectors",
        "schema",
    ):
        helped = call_in(tmp_path, *command.split(), "--help")
        assert helped.exit_code == 0
        assert helped.stdout.startswith("Usage: retl")
