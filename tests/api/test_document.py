"""The API against its own OpenAPI document: schemathesis asks, and looks at each answer."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from api_desk import SYNC
from hypothesis import HealthCheck, assume, settings
from schemathesis import GenerationMode

from dagster_retl.api.app import create_app
from dagster_retl.api.openapi import openapi_of
from dagster_retl.model.project import Project

_NOTHING = Project(base=Path(tempfile.gettempdir()), warehouses={}, destinations={}, syncs=[])
DOCUMENT = openapi_of(create_app(_NOTHING))
schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE], allow_x00=False)

# If-Match that no version has, or could have.
schema.config.checks.negative_data_rejection.expected_statuses.append("412")

# What a valid request may be refused for is in MAY_BE_REFUSED, operation by operation.
OWN_CHECK = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]

_CURSOR = {"cursor": "only what a list gave is a cursor of it"}
_TEXT = {"": "half of a surrogate pair is JSON, and no text; numbers of any type fit into 64 bits"}
_AGAIN = {"idempotency-key": "it did not come before with another request"}
_SYNC = _TEXT | {
    "destination_id": "there is such a destination",
    "warehouse": "there is such a warehouse",
    "source_query": "it is one SELECT that the warehouse understands",
    "object_name": "the destination has such an object",
    "field_mappings[]": "one of `source` and `value`; none for a key that a row cannot have",
    "field_mappings[].source": "a column of the query, or an expression",
    "field_mappings[].destination": "the object has such a field",
    "field_mappings": "each field is mapped once; those that are required are",
    "key": "it is among the mapped fields",
    "key[]": "it is among the mapped fields",
    "sync_mode": "the connector has the mode; most need a key",
    "slug": "letters, digits and underscores; no name that Dagster reserves",
    "name": "what a slug can be made of",
    "schedule": "an expression belongs to cron, and cron has one",
    "schedule.expression": "a cron expression that comes true",
    "schedule.timezone": "a time zone that there is",
    "change_detection": "it goes with mode and key",
    "change_detection.lookback": "not longer than a duration can be",
    "partitions": "what belongs to the type, and no window that ends before it begins",
    "partitions.keys": "keys that can be printed, each once",
    "partitions.timezone": "a time zone that there is",
    "owners[]": "an e-mail address, or team:name",
    "group": "a name as Dagster allows it",
    "tags": "names and values as Dagster allows them",
}
MAY_BE_REFUSED: dict[str, dict[str, str]] = {
    "GET /syncs": _CURSOR,
    "GET /runs": _CURSOR,
    "GET /dlq": _CURSOR,
    "POST /syncs": _SYNC | _AGAIN,
    "PUT /syncs/{sync_id}": _SYNC,
    "POST /syncs/{sync_id}/plan": _TEXT | _AGAIN,
    "POST /sync/run": _TEXT | _AGAIN,
    "POST /sync/toggle": _TEXT | _AGAIN,
    "POST /runs/{run_id}/cancel": _AGAIN,
    "POST /dlq/resolve": _AGAIN | {"": f"{_TEXT['']}; `skipped` and `manual_push` do not go with `replay`"},
}
"""What the schema of a request cannot say: where it may be refused all the same, and what has to hold there."""

_HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
BRIEF = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=_HEALTH)
THOROUGH = settings(max_examples=200, deadline=None, suppress_health_check=_HEALTH)


class Known:
    """Ids of things that there are, so that half of the requests are about one."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self._sync_id = ""
        self._made = 0

    def put_into(self, case: Any) -> None:
        names = case.path_parameters or {}
        if "sync_id" in names and len(names["sync_id"]) % 2:
            names["sync_id"] = self._sync()

    def _sync(self) -> str:
        if not self._sync_id or self._api.get(f"/syncs/{self._sync_id}").status_code == 404:
            self._made += 1
            created = self._api.post("/syncs", json={**SYNC, "name": f"known {self._made}"})
            assert created.status_code == 201, created.text
            self._sync_id = created.json()["data"]["id"]
        return self._sync_id


@pytest.fixture(scope="module")
def known(api: httpx.Client) -> Known:
    return Known(api)


@pytest.fixture(scope="module")
def headers(api: httpx.Client) -> dict[str, str]:
    return {"Authorization": api.headers["Authorization"]}


def ask(case: Any, url: str, headers: dict[str, str]) -> None:
    response = case.call(base_url=url, headers=headers)
    case.validate_response(response, excluded_checks=OWN_CHECK)
    if case.meta.generation.mode.is_positive and response.status_code in (400, 406, 412, 413, 415, 422):
        _require_reason(case.operation.label.replace("/api/reverse-etl", ""), response.json()["error"])


def _require_reason(operation: str, error: Any) -> None:
    if error["code"] == "PRECONDITION_FAILED":
        return  # the sync has another version
    allowed = MAY_BE_REFUSED.get(operation, {})
    places = {re.sub(r"\[\d+\]", "[]", each["field"]) for each in error["details"]}
    # Below `tags` and `field_mappings` are names that the client chose.
    places = {re.sub(r"^(tags|field_mappings)\..*", r"\1", place, flags=re.DOTALL) for place in places}
    assert places, f"{operation}: a valid request was refused: {error}"
    assert places <= set(allowed), f"{operation}: a valid request was refused for {places - set(allowed)}: {error}"


@schema.parametrize()
@BRIEF
def test_the_api_answers_as_its_document_says(case: Any, url: str, headers: dict[str, str]) -> None:
    _assume_invalid_on_the_wire(case)
    ask(case, url, headers)


@pytest.mark.long
@schema.parametrize()
@THOROUGH
def test_the_api_answers_as_its_document_says_at_length(
    case: Any, url: str, headers: dict[str, str], known: Known
) -> None:
    _assume_invalid_on_the_wire(case)
    known.put_into(case)
    ask(case, url, headers)


def _assume_invalid_on_the_wire(case: Any) -> None:
    """In a query string a list of one value, or of one twice, is that value; an object is its pairs."""
    for value in (case.query or {}).values():
        assume(not isinstance(value, dict))
        assume(not isinstance(value, list) or len(set(map(str, value))) > 1)


def references(document: Any) -> Iterator[str]:
    for each in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from references(each)
    if isinstance(document, dict) and "$ref" in document:
        yield document["$ref"]


def test_all_that_the_document_refers_to_is_in_it() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 20
    assert {each.removeprefix("#/components/schemas/") for each in found} <= set(DOCUMENT["components"]["schemas"])
