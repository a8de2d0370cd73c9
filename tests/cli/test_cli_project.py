"""`retl init`, `check`, `schema`, `connectors`, `syncs`, `db`: a project and what it says of itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cli_shop import Shop
from click.testing import Result

from dagster_retl.connectors.registry import connector_class, connector_names
from dagster_retl.model.project import Project

Call = Callable[..., Result]


def test_init_writes_a_project_that_runs_at_once(tmp_path: Path, call_in: Call) -> None:
    written = call_in(tmp_path, "init")
    assert written.exit_code == 0, written.output
    assert {path.name for path in tmp_path.iterdir()} == {"retl.yaml", "example", ".gitignore"}
    assert call_in(tmp_path, "check").exit_code == 0
    plan = json.loads(call_in(tmp_path, "plan", "customers", "--json").stdout)
    assert (plan["rows_read"], plan["rows_added"], plan["failing"]) == (5, 5, [])
    run = call_in(tmp_path, "run", "customers", "--json")
    assert (run.exit_code, json.loads(run.stdout)["rows_written"]) == (0, 5), run.output
    with closing(sqlite3.connect(tmp_path / "example" / "crm.sqlite")) as connection:
        rows = connection.execute(
            "SELECT full_name, email, plan, revenue FROM contacts ORDER BY external_id"
        ).fetchall()
    assert rows[:2] == [
        ("Ada Lovelace", "ada@example.com", "team", 1200.5),
        ("Łukasz Żak", "lukasz@example.com", "free", None),
    ]


def test_init_overwrites_nothing(tmp_path: Path, call_in: Call) -> None:
    (tmp_path / "retl.yaml").write_text("mine", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("mine too", encoding="utf-8")
    refused = call_in(tmp_path, "init")
    assert (refused.exit_code, "retl.yaml exists already" in refused.stderr) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"retl.yaml", ".gitignore"}
    elsewhere = call_in(tmp_path, "init", "new/place", "--json")
    assert elsewhere.exit_code == 0
    assert len(json.loads(elsewhere.stdout)["written"]) == 4
    assert (tmp_path / "retl.yaml").read_text(encoding="utf-8") == "mine"
    assert Project.load(tmp_path / "new" / "place" / "retl.yaml").sync("customers")


def test_init_keeps_a_gitignore(tmp_path: Path, call_in: Call) -> None:
    (tmp_path / ".gitignore").write_text("mine", encoding="utf-8")
    assert call_in(tmp_path, "init").exit_code == 0
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "mine"


def test_check_names_what_it_reached(shop: Shop) -> None:
    findings = shop.document("check")
    assert [finding["subject"] for finding in findings] == [
        "warehouse default",
        "destination ops",
        "destination service",
        "sync people_table",
        "sync people_service",
        "sync seats",
    ]
    assert all(finding["ok"] for finding in findings)
    assert shop.document("check", "service")[0]["subject"] == "destination service"


def test_check_fails_when_something_does_and_goes_on(shop: Shop) -> None:
    (shop.folder / "warehouse.duckdb").unlink()
    findings = shop.document("check", code=1)
    assert [finding["ok"] for finding in findings] == [False, True, True, True, True, True]
    assert findings[0]["error"]["code"] == "SOURCE_UNAVAILABLE"
    told = shop.call("check")
    assert (told.exit_code, "✗ warehouse default" in told.stdout) == (1, True)
    shop.service.close()
    assert all(finding["ok"] for finding in shop.document("check", "--offline"))


def test_schema_is_the_projects(call_in: Call, tmp_path: Path) -> None:
    schema = json.loads(call_in(tmp_path, "schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org")
    assert "syncs" in schema["properties"]


def test_connectors_lists_all_that_are_installed(call_in: Call, tmp_path: Path) -> None:
    listed = json.loads(call_in(tmp_path, "connectors", "--json").stdout)
    assert [connector["name"] for connector in listed] == connector_names()
    assert "Custom HTTP service" in call_in(tmp_path, "connectors").stdout


@pytest.mark.parametrize("name", connector_names())
def test_a_connectors_settings_are_those_of_its_model(call_in: Call, tmp_path: Path, name: str) -> None:
    described = json.loads(call_in(tmp_path, "connectors", name, "--json").stdout)
    fields = connector_class(name).Config.model_fields
    assert {setting["name"] for setting in described["settings"]} == {each.alias or key for key, each in fields.items()}
    required = {setting["name"] for setting in described["settings"] if setting["required"]}
    assert required == {each.alias or key for key, each in fields.items() if each.is_required()}
    told = call_in(tmp_path, "connectors", name)
    assert all(setting["name"] in told.stdout for setting in described["settings"])


def test_syncs_say_how_they_stand(shop: Shop) -> None:
    listed = shop.document("syncs", "list")
    assert [sync["name"] for sync in listed] == ["people_table", "people_service", "seats"]
    assert (listed[1]["schedule"]["expression"], listed[1]["last_run"], listed[1]["open_dead_letters"]) == (
        "15 */4 * * *",
        None,
        0,
    )
    assert listed[2]["field_mappings"][1] == {"destination": "number", "source": "number", "key": True}
    assert shop.document("syncs", "show", listed[1]["id"]) == listed[1]
    assert "service.people" in shop.call("syncs", "list").stdout
    assert "SELECT id, name, email FROM people" in shop.call("syncs", "show", "people_service").stdout


def test_disabling_lasts_until_enabling(shop: Shop) -> None:
    assert shop.document("syncs", "disable", "people_service")["enabled"] is False
    assert shop.document("syncs", "show", "people_service")["enabled"] is False
    assert "disabled" in shop.call("syncs", "list").stdout
    assert "enabled" in shop.call("syncs", "enable", "people_service").stdout
    assert shop.document("syncs", "show", "people_service")["enabled"] is True


def test_db_upgrade_creates_and_is_content_with_what_is_new(shop: Shop) -> None:
    first = shop.document("db", "upgrade")
    assert (shop.folder / ".retl" / "retl.db").exists()
    assert shop.document("db", "upgrade") == first
    assert first["revision"] in shop.call("db", "upgrade").stdout
