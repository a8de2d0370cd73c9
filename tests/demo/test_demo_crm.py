"""The demo's CRM insists on its rules, and remembers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dagster_retl.demo.crm import MAX_ROWS, NAME_LENGTH, Crm

GOOD = {"external_id": 9007199254740993, "name": "Zoë", "email": "zoe@example.com"}


@pytest.fixture
def crm(tmp_path: Path) -> Iterator[Crm]:
    with Crm(tmp_path / "crm.sqlite", token="let-me-in") as running:
        yield running


@pytest.fixture
def client(crm: Crm) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=crm.url, headers={"Authorization": "Bearer let-me-in"}) as opened:
        yield opened


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"external_id": None}, "MISSING_EXTERNAL_ID"),
        ({"external_id": ""}, "MISSING_EXTERNAL_ID"),
        ({"name": None}, "REQUIRED"),
        ({"name": "  "}, "REQUIRED"),
        ({"name": "x" * (NAME_LENGTH + 1)}, "TOO_LONG"),
        ({"email": "nobody"}, "INVALID_EMAIL"),
        ({"email": "a@@example.com"}, "INVALID_EMAIL"),
        ({"email": "a@localhost"}, "INVALID_EMAIL"),
        ({"email": ""}, "INVALID_EMAIL"),
    ],
)
def test_a_bad_record_is_refused_alone(crm: Crm, client: httpx.Client, wrong: dict[str, Any], code: str) -> None:
    answer = client.post("/v1/accounts", json=[{**GOOD, "external_id": 1}, {**GOOD, **wrong}])
    assert answer.status_code == 207
    (error,) = answer.json()["errors"]
    assert (error["index"], error["code"]) == (1, code)
    assert list(crm.records("accounts")) == ["1"]


def test_good_records_are_kept_exactly(crm: Crm, client: httpx.Client, tmp_path: Path) -> None:
    body = '[{"external_id": 9007199254740993, "name": "山田", "email": null, "revenue": 12345678901234.50}]'
    assert client.post("/v1/accounts", content=body).status_code == 200
    held = {"external_id": 9007199254740993, "name": "山田", "email": None, "revenue": "12345678901234.50"}
    assert crm.records("accounts") == {"9007199254740993": held}
    with Crm(tmp_path / "crm.sqlite", token="another") as later:
        assert later.records("accounts") == crm.records("accounts")


def test_an_external_id_is_one_record(crm: Crm, client: httpx.Client) -> None:
    answer = client.post("/v1/accounts", json=[GOOD, {**GOOD, "name": "another"}])
    assert [error["code"] for error in answer.json()["errors"]] == ["DUPLICATE_ID"]
    client.post("/v1/accounts", json=[{**GOOD, "name": "changed"}])
    assert [record["name"] for record in crm.records("accounts").values()] == ["changed"]


def test_deleting(crm: Crm, client: httpx.Client) -> None:
    client.post("/v1/accounts", json=[GOOD])
    answer = client.post("/v1/accounts/delete", json=[{"external_id": 5}, {"external_id": GOOD["external_id"]}])
    assert answer.status_code == 207
    assert [(error["index"], error["code"]) for error in answer.json()["errors"]] == [(0, "NOT_FOUND")]
    assert crm.records("accounts") == {}


def test_strangers_large_requests_and_nonsense_are_turned_away(crm: Crm, client: httpx.Client) -> None:
    assert httpx.get(f"{crm.url}/v1/ping").status_code == 401
    assert httpx.get(f"{crm.url}/v1/ping", headers={"Authorization": "Bearer nö".encode()}).status_code == 401
    assert client.get("/v1/ping").status_code == 200
    assert client.post("/v1/accounts", json=[GOOD] * (MAX_ROWS + 1)).status_code == 413
    assert client.post("/v1/accounts", content="{").status_code == 400
    assert client.get("/v2/accounts").status_code == 404


def test_people_can_look(client: httpx.Client) -> None:
    client.post("/v1/accounts", json=[{**GOOD, "external_id": number} for number in range(1, 30)])
    shown = client.get("/v1/accounts").json()
    assert (shown["count"], len(shown["records"])) == (29, 10)
    assert len(client.get("/v1/accounts?limit=20").json()["records"]) == 20
    assert client.get("/v1/accounts?limit=all").status_code == 400
