"""Projects built in Python: the same checks, and looking things up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_retl.errors import NotFoundError
from dagster_retl.model.ids import sync_id_of
from dagster_retl.model.project import AlertRule, Destination, EngineSettings, Project, Warehouse
from dagster_retl.model.sync import FieldMapping, Sync


def sync(**settings: Any) -> Sync:
    mappings = (FieldMapping(destination="Id", source="id", key=True), FieldMapping(destination="K", value=None))
    known = {"name": "One Two", "source_query": "SELECT 1", "destination_id": "d", "object_name": "o"}
    return Sync(**{**known, "field_mappings": mappings, **settings})


def project(**settings: Any) -> Project:
    known: dict[str, Any] = {
        "warehouses": {"default": Warehouse(url="duckdb:///w.duckdb")},
        "destinations": {"d": Destination(connector="http", config={"token": "hunter2"})},
        "syncs": [sync()],
    }
    return Project(**{**known, **settings})


def test_names_come_from_the_keys() -> None:
    built = project(project="revops")
    assert built.warehouse().name == "default"
    assert (built.destination("d").id, built.destination("d").name) == ("d", "d")
    assert built.syncs[0].project == "revops"
    assert built.syncs[0].id == sync_id_of("revops", "one_two")
    assert built.syncs[0].field_mappings[1].value is None


def test_lists_of_named_items() -> None:
    built = project(
        warehouses=[Warehouse(name="default", url="duckdb://")],
        destinations=[Destination(id="d", name="D", connector="x")],
    )
    assert built.warehouse("default").url == "duckdb://"
    assert built.destination("d").name == "D"


def test_models_and_plain_data_are_the_same() -> None:
    one = project(base="/x")
    assert Project.model_validate(one.model_dump(exclude_unset=True)) == one


def test_lookups() -> None:
    built = project(syncs=[sync(), sync(name="one_two_three", slug="x")])
    first = built.syncs[0]
    assert built.sync("One Two") is first
    assert built.sync("one_two") is first
    assert built.sync(first.id) is first
    for find, name, offer in (
        (built.sync, "one_to", "`one_two`"),
        (built.destination, "D", "d"),
        (built.warehouse, "defualt", "`default`"),
    ):
        with pytest.raises(NotFoundError, match=f"there is no .* '{name}'") as caught:
            find(name)
        assert offer in str(caught.value.hint)


def test_lookups_in_an_empty_project() -> None:
    with pytest.raises(NotFoundError) as caught:
        Project(warehouses={}, destinations={}, syncs=[]).sync("x")
    assert caught.value.hint == "The project defines no sync."


def test_everything_is_immutable() -> None:
    built = project()
    with pytest.raises(ValidationError, match="frozen"):
        built.writes = False  # type: ignore[misc]  # it is what the test is about


def messages(**settings: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        project(**settings)
    assert "hunter2" not in str(caught.value)
    return [(details["loc"], details["msg"]) for details in caught.value.errors()]


def test_references_are_checked() -> None:
    found = messages(syncs=[sync(), sync(destination_id="dd", warehouse="w"), {"name": "One  Two"}])
    assert {loc for loc, message in found if "missing" not in message and "required" not in message} == {
        ("syncs", 1, "name"),
        ("syncs", 1, "destination_id"),
        ("syncs", 1, "warehouse"),
        ("syncs", 2, "name"),
    }
    assert (("syncs", 1, "destination_id"), "there is no destination 'dd'. Did you mean `d`?") in found


def test_a_sync_of_another_project_is_refused() -> None:
    assert messages(syncs=[sync(project="other")])[0][0] == ("syncs", 0, "project")


def test_a_destination_under_another_id_is_refused() -> None:
    assert messages(destinations={"d": Destination(id="e", connector="http")})[0][0] == ("destinations", "d", "id")


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("sqlite:///a/b.db", "sqlite:////base/a/b.db"),
        ("sqlite:////abs/b.db", "sqlite:////abs/b.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql+psycopg://u:p%40w@h/db", "postgresql+psycopg://u:p%40w@h/db"),
    ],
)
def test_store_url(store: str, expected: str) -> None:
    assert project(store=store, base=Path("/base")).store_url == expected


@pytest.mark.parametrize(
    ("state", "expected"), [("s", "/base/s"), ("/s", "/s"), ("s3://b/s", "s3://b/s"), ("gs://b", "gs://b")]
)
def test_state_url(state: str, expected: str) -> None:
    assert project(state=state, base=Path("/base")).state_url == expected


def test_spill_folder() -> None:
    assert project(engine=EngineSettings(spill="tmp"), base="/base").spill_folder == "/base/tmp"
    assert project().spill_folder is None


def test_statement_timeout_in_seconds() -> None:
    assert Warehouse(url="duckdb://", statement_timeout="5m").statement_timeout == 300.0
    assert Warehouse(url="duckdb://", statement_timeout=2.5).statement_timeout == 2.5


def test_secrets_are_in_no_repr() -> None:
    built = project(
        warehouses={"default": Warehouse(url="postgresql://u:hunter2@h/d", connect_args={"password": "hunter2"})},
        store="postgresql://u:hunter2@h/d",
        alerts=[AlertRule(notify=["slack://hunter2"])],
    )
    assert "hunter2" not in repr(built) + str(built)
    assert built.warehouse().display_url == "postgresql://u:***@h/d"
