"""Runs, plans and dead letters of syncs that are read in partitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from api_desk import KEY_FIELD, Desk, client, serving
from fake_dagster import FakeDagster

from dagster_retl import Service
from dagster_retl.model.runs import RunOptions


@pytest.fixture
def dagster() -> Iterator[FakeDagster]:
    with FakeDagster() as running:
        yield running


@pytest.fixture
def api(own: Desk, dagster: FakeDagster) -> Iterator[httpx.Client]:
    own.destination.latency = 0
    with ExitStack() as stack:
        url = stack.enter_context(serving(own.project(), dagster_url=dagster.url))
        yield stack.enter_context(client(url, own.key()))


def create(api: httpx.Client, **changes: Any) -> Any:
    body = {
        "name": "parted accounts",
        "sourceQuery": "SELECT account_id, name FROM analytics.dim_crm_account WHERE account_id = :partition",
        "destinationId": "conn_sf_prod",
        "objectName": "Contact",
        "key": KEY_FIELD,
        "fieldMappings": {KEY_FIELD: "account_id", "Name": "name"},
        "partitions": ["acc_1", "acc_2"],
    }
    answer = api.post("/syncs", json=body | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


def test_a_run_and_a_plan_are_of_a_partition(own: Desk, api: httpx.Client, dagster: FakeDagster) -> None:
    sync_id = create(api)["id"]
    plan = api.post(f"/syncs/{sync_id}/plan", json={"partition": "acc_2"})
    assert plan.status_code == 200, plan.text
    run = api.post("/sync/run", json={"syncId": sync_id, "partition": "acc_2"})
    assert run.status_code == 202, run.text
    assert run.json()["data"]["attributes"]["partition"] == "acc_2"
    assert dagster.tags[-1]["dagster/partition"] == "acc_2"
    with Service.open(own.project()) as service:
        assert service.run_of(run.json()["data"]["id"]).partition == "acc_2"


@pytest.mark.parametrize("body", [{}, {"partition": "acc_3"}])
def test_a_partition_that_there_is_not(api: httpx.Client, body: dict[str, str]) -> None:
    sync_id = create(api)["id"]
    for answer in (
        api.post("/sync/run", json={"syncId": sync_id, **body}),
        api.post(f"/syncs/{sync_id}/plan", json=body),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["details"][0]["field"] == "partition"


def test_a_partition_of_a_sync_that_has_none(api: httpx.Client) -> None:
    name = {"name": "whole", "sourceQuery": "SELECT account_id, name FROM analytics.dim_crm_account"}
    sync_id = create(api, **name, partitions=None)["id"]
    answer = api.post("/sync/run", json={"syncId": sync_id, "partition": "acc_1"})
    assert answer.status_code == 422
    assert "has no partitions" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"partitions": {"type": "daily"}}, "partitions", "start"),
        ({"partitions": ["a", "a"]}, "partitions.keys", "twice"),
        ({"sourceQuery": "SELECT account_id, name FROM analytics.dim_crm_account"}, "source_query", "partition"),
        ({"partitions": None}, "source_query", "partitions"),
    ],
)
def test_what_cannot_be_kept(api: httpx.Client, changes: dict[str, Any], field: str, said: str) -> None:
    body = {
        "name": "x",
        "sourceQuery": "SELECT account_id, name FROM analytics.dim_crm_account WHERE account_id = :partition",
        "destinationId": "conn_sf_prod",
        "objectName": "Contact",
        "key": KEY_FIELD,
        "fieldMappings": {KEY_FIELD: "account_id", "Name": "name"},
        "partitions": ["acc_1"],
    }
    answer = api.post("/syncs", json=body | changes)
    assert answer.status_code == 422, answer.text
    details = answer.json()["error"]["details"]
    assert any(each["field"] == field and said in each["message"] for each in details), details


def test_dead_letters_say_of_which_partition_they_are(own: Desk, api: httpx.Client, dagster: FakeDagster) -> None:
    sync_id = create(api, fieldMappings={KEY_FIELD: "account_id", "Name": "'b@@d'"})["id"]
    with Service.open(own.project()) as service:
        service.run(sync_id, RunOptions(partition=service.partition(sync_id, "acc_1")))
    [letter] = api.get("/dlq", params={"sync_id": sync_id}).json()["data"]
    assert letter["attributes"]["partition"] == "acc_1"
    answer = api.post("/dlq/resolve", json={"entryIds": [letter["id"]], "resolution": "fixed", "replay": True})
    assert answer.status_code == 200, answer.text
    assert dagster.tags[-1]["dagster/partition"] == "acc_1"
