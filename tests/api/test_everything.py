"""Everything that a sync can say in retl.yaml can be said, is kept and is shown by the API; nothing is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from api_desk import KEY_FIELD, Desk
from pydantic import BaseModel

from dagster_retl import Project
from dagster_retl.model.sync import FieldMapping, Sync

FILE_ONLY = {"project", "adopt", "renamed_from"}

FULL: dict[str, Any] = {
    "name": "says everything",
    "slug": "everything",
    "description": "for the test",
    "source_query": "SELECT account_id, name, annual_revenue FROM analytics.dim_crm_account",
    "warehouse": "other",
    "destination_id": "conn_sf_prod",
    "object_name": "Contact",
    "field_mappings": [
        {"source": "account_id", "destination": KEY_FIELD, "key": True},
        {"source": "name", "destination": "Name", "default": "nobody", "on_null": "send"},
        {"source": "annual_revenue", "destination": "AnnualRevenue", "on_null": "omit"},
        {"value": 7, "destination": "Level"},
    ],
    "sync_mode": "update",
    "schedule": {"type": "cron", "expression": "5 1 * * *", "timezone": "Europe/Berlin"},
    "enabled": False,
    "change_detection": {"watermark": "account_id", "lookback": "1h30m"},
    "guards": {"deletes": 0.2, "shrink": 0.4, "failures": 0.5},
    "checks": {"dead_letters": {"open": 3, "age": "2h"}, "unique_keys": True, "destination_contract": True},
    "after": ["in_the_file"],
    "max_attempts": 9,
    "on_missing": "fail",
    "owners": ["team:revops"],
    "group": "crm",
    "tags": {"tier": "gold"},
}
PARTED = FULL | {
    "name": "in parts",
    "slug": "in_parts",
    "source_query": "SELECT account_id, name, annual_revenue FROM analytics.dim_crm_account "
    "WHERE last_activity_at >= :partition_start AND last_activity_at < :partition_end",
    "change_detection": "none",
    "partitions": {
        "type": "daily",
        "start": "2025-03-01",
        "end": "2025-04-01",
        "timezone": "Europe/Berlin",
        "keys": [],
        "backfill": "run_per_partition",
    },
}


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def in_camel_case(value: Any, model: type[BaseModel] | None = Sync) -> Any:
    """As clients of other languages write it; names of tags stay."""
    if isinstance(value, list):
        return [in_camel_case(each, model) for each in value]
    if not isinstance(value, dict) or model is None:
        return value
    fields = model.model_fields
    return {camel(name): in_camel_case(each, part(fields[name].annotation)) for name, each in value.items()}


def part(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := part(each)) is not None), None)


def paths(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every setting, with those inside."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}"
        if (inner := part(field.annotation)) is not None:
            yield from paths(inner, f"{before}{name}.")


def said_in(value: Any, before: str = "") -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        for name, inner in each.items() if isinstance(each, dict) else ():
            yield f"{before}{name}"
            yield from said_in(inner, f"{before}{name}.")


@pytest.fixture(scope="module")
def desk(desk: Desk) -> Desk:
    """With a second warehouse, so that nothing is as it is by default."""
    project = json.loads(desk.path.read_text())
    project["warehouses"]["other"] = project["warehouses"]["default"]
    project["destinations"]["conn_sf_prod"]["config"]["fields"].append({"name": "Level", "data_type": "number"})
    desk.path.write_text(json.dumps(project))
    return desk


def test_the_examples_say_every_setting_and_none_as_it_is_by_default() -> None:
    """A setting that is new is to be said here, so that the other tests look at it."""
    left = set(paths(Sync)) - set(said_in(FULL)) - set(said_in(PARTED))
    assert {each for each in left if each.partition(".")[0] not in FILE_ONLY} == set()
    for name, field in Sync.model_fields.items():
        if name in FULL:
            assert FULL[name] != field.default, name


@pytest.mark.parametrize("said", [FULL, PARTED], ids=["full", "parted"])
@pytest.mark.parametrize("spelling", ["snake", "camel"])
def test_what_is_said_is_kept_and_shown(api: httpx.Client, desk: Desk, said: dict[str, Any], spelling: str) -> None:
    body = said | {"name": f"{said['name']} {spelling}", "slug": f"{said['slug']}_{spelling}"}
    created = api.post("/syncs", json=body if spelling == "snake" else in_camel_case(body))
    assert created.status_code == 201, created.text
    sync_id = created.json()["data"]["id"]
    for attributes in (created.json()["data"]["attributes"], api.get(f"/syncs/{sync_id}").json()["data"]["attributes"]):
        assert {name: attributes[name] for name in body} == body
    [version] = api.get(f"/syncs/{sync_id}/versions").json()["data"]
    kept = version["attributes"]["definition"]
    assert {name: kept[name] for name in body if name in kept} == {n: v for n, v in body.items() if n in kept}
    assert set(body) - set(kept) == {"name", "slug", "enabled"}
    project = json.loads(desk.path.read_text())
    of_file = Project(base=desk.folder, **(project | {"syncs": [*project["syncs"], body]})).sync(body["slug"])
    again = api.put(f"/syncs/{sync_id}", json=body)
    assert again.status_code == 200, again.text
    assert {name: again.json()["data"]["attributes"][name] for name in body} == body
    dumped = of_file.model_dump(mode="json", exclude=FILE_ONLY)
    assert {n: v for n, v in again.json()["data"]["attributes"].items() if n in dumped} == dumped | {
        "field_mappings": body["field_mappings"]
    }


def test_the_document_describes_every_setting(api: httpx.Client) -> None:
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    fields = set(Sync.model_fields) - FILE_ONLY
    for name in ("SyncInput", "SyncChanges"):
        assert fields - set(schemas[name]["properties"]) == set()
    assert fields - set(schemas["SyncAttributes"]["properties"]) == set()
    for setting, shape in (("checks", "ChecksShape"), ("partitions", "PartitionsShape"), ("schedule", "ScheduleShape")):
        inner = part(Sync.model_fields[setting].annotation)
        assert inner is not None
        assert set(inner.model_fields) == set(schemas[shape]["properties"])
    assert set(schemas["FieldMapping"]["properties"]) == set(FieldMapping.model_fields)


def test_parts_may_be_spelled_in_one_way_only(api: httpx.Client) -> None:
    checks = {"unique_keys": True, "uniqueKeys": False}
    refused = api.post("/syncs", json={**FULL, "name": "other", "slug": "other", "checks": checks})
    assert (refused.status_code, refused.json()["error"]["details"][0]["code"]) == (422, "contradiction")
