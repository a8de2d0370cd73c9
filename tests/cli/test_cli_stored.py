"""The command line of the API: keys, the audit, and syncs that live in the store."""

from __future__ import annotations

from typing import Any

import pytest
from cli_shop import Shop
from ruamel.yaml import YAML

from dagster_retl.model.project import Project
from dagster_retl.service import Service

SYNC: dict[str, Any] = {
    "name": "Made elsewhere",
    "source_query": "SELECT id, name, email FROM people",
    "destination_id": "ops",
    "object_name": "people",
    "key": "id",
    "field_mappings": {"id": "id", "name": "upper(name)"},
    "schedule": "0 6 * * *",
}


@pytest.fixture
def made(shop: Shop) -> str:
    """The id of a sync that somebody made through the API."""
    with Service.open(Project.load(shop.folder / "retl.yaml")) as service:
        return service.editor.create(SYNC, actor="api:test").entry.sync.id


def test_a_key_is_made_listed_and_revoked(shop: Shop) -> None:
    made = shop.document("keys", "create", "--name", "ci", "--scopes", "read, run", "--destination", "ops")
    assert set(made) == {"id", "key"}
    assert made["key"].startswith(made["id"] + "_")
    [listed] = shop.document("keys", "list")
    assert (listed["name"], listed["scopes"], listed["destinations"]) == ("ci", ["read", "run"], ["ops"])
    assert (listed["id"], listed["revoked_at"]) == (made["id"], None)
    assert made["key"] not in shop.call("keys", "list").stdout
    assert shop.document("keys", "revoke", made["id"].removeprefix("retl_key_"))["revoked_at"]
    text = shop.call("keys", "create", "--name", "other", "--scopes", "write").stdout.strip()
    with Service.open(Project.load(shop.folder / "retl.yaml")) as service:
        assert service.store.api_keys.authenticate(made["key"]) is None
        key = service.store.api_keys.authenticate(text)
    assert key is not None
    assert (key.name, key.destinations) == ("other", None)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["keys", "create", "--name", "x", "--scopes", "admin"], 2),
        (["keys", "create", "--name", "x", "--scopes", ""], 2),
        (["keys", "create", "--name", "x"], 2),
        (["keys", "create", "--name", "x", "--scopes", "read", "--destination", "opps"], 1),
        (["keys", "revoke", "nobody"], 1),
        (["syncs", "purge", "retl_sync_x", "--json"], 2),
        (["syncs", "purge", "retl_sync_x", "--yes"], 1),
        (["syncs", "history", "people_table"], 1),
    ],
)
def test_mistakes(shop: Shop, arguments: list[str], code: int) -> None:
    assert shop.call(*arguments).exit_code == code
    assert shop.document("keys", "list") == []


def test_a_sync_of_the_store_is_one_of_all(shop: Shop, made: str) -> None:
    assert [sync["slug"] for sync in shop.document("syncs", "list")][-1] == "made_elsewhere"
    assert shop.document("syncs", "show", "Made elsewhere")["id"] == made
    run = shop.document("run", "made_elsewhere")
    assert (run["sync_id"], run["status"], run["rows_written"]) == (made, "succeeded", 3)
    assert shop.table("SELECT name FROM people WHERE id = 1") == [("ADA",)]
    assert shop.document("plan", made)["rows_unchanged"] == 3
    assert shop.document("syncs", "disable", made)["enabled"] is False
    [version] = shop.document("syncs", "history", made)
    assert (version["version"], version["actor"]) == (1, "api:test")
    actions = [(entry["actor"].partition(":")[0], entry["action"]) for entry in shop.document("audit")]
    assert actions == [("cli", "sync.disable"), ("api", "sync.create")]
    assert shop.call("audit").stdout.count("sync.") == 2


def test_a_sync_moves_into_the_file(shop: Shop, made: str) -> None:
    shop.document("run", "made_elsewhere")
    exported = YAML(typ="safe").load(shop.call("syncs", "export").stdout)
    assert exported["syncs"] == shop.document("syncs", "export", made)
    assert [sync["adopt"] for sync in exported["syncs"]] == [made]
    file = shop.folder / "retl.yaml"
    lines = shop.call("syncs", "export").stdout.splitlines()[1:]
    file.write_text(file.read_text() + "\n".join(lines) + "\n")
    assert shop.document("run", "made_elsewhere")["rows_unchanged"] == 3
    assert shop.document("syncs", "export") == []
    assert [sync["id"] for sync in shop.document("syncs", "list")].count(made) == 1


def test_what_is_gone_is_listed_and_purged(shop: Shop, made: str) -> None:
    shop.document("run", "made_elsewhere")
    assert shop.document("syncs", "list", "--retired") == []
    with Service.open(Project.load(shop.folder / "retl.yaml")) as service:
        service.editor.delete(made, actor="api:test")
    [line] = [line for line in shop.call("syncs", "list").stdout.splitlines() if "Made elsewhere" in line]
    assert "retired" in line
    [gone] = shop.document("syncs", "list", "--retired")
    assert (gone["id"], gone["name"]) == (made, "Made elsewhere")
    assert shop.document("syncs", "purge", made, "--yes")["files"] > 0
    assert shop.document("syncs", "list", "--retired") == []
    assert shop.document("runs", "list") == []
    assert "retired" not in shop.call("syncs", "list").stdout


def test_after_is_shown(shop: Shop) -> None:
    file = shop.folder / "retl.yaml"
    file.write_text(file.read_text().replace("  - name: seats\n", "  - name: seats\n    after: [people_table]\n"))
    assert shop.document("syncs", "show", "seats")["after"] == ["people_table"]
    assert "people_table" in shop.call("syncs", "show", "seats").stdout
    assert "after" not in shop.call("syncs", "show", "people_table").stdout
