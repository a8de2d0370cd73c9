"""What is made of answers that were recorded from HubSpot itself. They lie outside of the project."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hubspot_things import batch, connector

from dagster_retl.connectors.hubspot_errors import complaint_of
from dagster_retl.connectors.hubspot_fields import fields_of, objects_of
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import RowResult
from dagster_retl.testing import converse, make_row

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RETL_SHARED") or ROOT.parent / "shared")
RECORDED = SHARED / "recorded"

pytestmark = pytest.mark.skipif(not (RECORDED / "hubspot.jsonl").is_file(), reason=f"no recorded traffic in {SHARED}")


def _body(name: str) -> bytes:
    return (RECORDED / "amp-labs" / f"hubspot__{name}.json").read_bytes()


def _exchanges() -> list[Mapping[str, Any]]:
    lines = (RECORDED / "hubspot.jsonl").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def _answer(exchange: Mapping[str, Any]) -> httpx.Response:
    wire = ("transfer-encoding", "content-encoding", "content-length", "connection")
    headers = {name: text for name, text in exchange["headers"].items() if name not in wire}
    return httpx.Response(exchange["status"], headers=headers, content=orjson.dumps(exchange["resp"]))


def _batches(verb: str) -> Iterator[Mapping[str, Any]]:
    return (each for each in _exchanges() if each["path"].endswith(f"/batch/{verb}"))


def _key(object_name: str, values: Mapping[str, str]) -> str:
    """What identified the records: of custom objects, the property that was sent first."""
    return {"CONTACT": "email", "COMPANY": "domain"}.get(object_name) or next(iter(values))


def test_recorded_creates_are_matched_whatever_their_order() -> None:
    tried = shuffled = 0
    for exchange in _batches("create"):
        object_name = exchange["path"].split("/")[4]
        rows = [each["properties"] for each in exchange["req"]["inputs"]]
        key = _key(object_name, rows[0])
        made = batch(rows, "insert", object_name=object_name, key=key)
        _, results = converse(connector().write(made), _answer(exchange))
        ids = {each["properties"][key]: each["id"] for each in exchange["resp"]["results"]}
        assert {result.key: (result.fault, result.record_id) for result in results} == {
            row[key]: (None, ids[row[key]]) for row in rows
        }
        tried += 1
        shuffled += [each["properties"][key] for each in exchange["resp"]["results"]] != [row[key] for row in rows]
    assert tried >= 5
    assert shuffled >= 2


def test_recorded_updates_are_matched_by_record_id() -> None:
    tried = 0
    for exchange in _batches("update"):
        inputs = exchange["req"]["inputs"]
        rows = [{"hs_object_id": each["id"], **each["properties"]} for each in inputs]
        made = batch(rows, "update", object_name=exchange["path"].split("/")[4], key="hs_object_id")
        requests, results = converse(connector().write(made), _answer(exchange))
        sent = orjson.loads(requests[0].content or b"")["inputs"]
        assert [(each["id"], each["properties"]) for each in sent] == [(i["id"], i["properties"]) for i in inputs]
        assert {result.key: (result.fault, result.record_id) for result in results} == {
            each["id"]: (None, each["id"]) for each in inputs
        }
        tried += 1
    assert tried >= 4


def test_recorded_archives_are_understood() -> None:
    for exchange in _batches("archive"):
        rows = [{"hs_object_id": each["id"]} for each in exchange["req"]["inputs"]]
        made = batch(rows, "delete", object_name=exchange["path"].split("/")[4], key="hs_object_id")
        requests, results = converse(connector().write(made), httpx.Response(exchange["status"]))
        assert orjson.loads(requests[0].content or b"") == exchange["req"]
        assert [result.fault for result in results] == [None] * len(rows)


def test_recorded_searches_say_nothing_of_limits_and_their_429_asks_for_a_second() -> None:
    searches = [each for each in _exchanges() if each["path"].endswith("/search")]
    refused = [each for each in searches if each["status"] == 429]
    assert len(refused) >= 8
    for exchange in searches:
        state = connector().limits(_answer(exchange))
        if exchange["status"] == 429:
            assert state is not None
            assert (state.remaining, state.reset) == (0, 1.0)
        else:
            assert state is None


def test_recorded_headers_tell_the_limit() -> None:
    told = [state for each in _batches("create") if (state := connector().limits(_answer(each)))]
    assert told
    assert all(state.limit == 100 and state.window == 10.0 and state.remaining is not None for state in told)


_REFUSALS = [
    ("batch__create__contacts__err-conflict", 409, ErrorCode.BATCH_REJECTED, "CONFLICT", "Contact already exists"),
    (
        "batch__create__contacts__err-many-invalid-properties",
        400,
        ErrorCode.SCHEMA_DRIFT,
        "PROPERTY_DOESNT_EXIST",
        'Property values were not valid: Property "first000name" does not exist; Property "last000name"',
    ),
    (
        "batch__update__contacts__err-many-invalid-properties",
        400,
        ErrorCode.SCHEMA_DRIFT,
        "PROPERTY_DOESNT_EXIST",
        'Property "last000name" does not exist',
    ),
    (
        "batch__update__contacts__err-duplicate-ids",
        400,
        ErrorCode.BATCH_REJECTED,
        "VALIDATION_ERROR",
        "Duplicate IDs found in batch input: [123456]. IDs must be unique",
    ),
    (
        "metadata-err-schemas-scope",
        403,
        ErrorCode.PERMISSION,
        "MISSING_SCOPES",
        "One or more of the following scopes are required: custom-object-read",
    ),
    (
        "search__error-invalid-object",
        400,
        ErrorCode.CONFIGURATION,
        None,
        "Unable to infer object type from: butterflies",
    ),
]


@pytest.mark.parametrize(
    ("name", "status", "code", "vendor_code", "words"), _REFUSALS, ids=[each[0] for each in _REFUSALS]
)
def test_recorded_refusals(name: str, status: int, code: ErrorCode, vendor_code: str | None, words: str) -> None:
    rows = batch([{"customer_id": "1"}, {"customer_id": "2"}])
    with pytest.raises(DestinationError) as caught:
        converse(connector().write(rows), httpx.Response(status, content=_body(name)))
    assert (caught.value.code, caught.value.vendor_code) == (code, vendor_code)
    assert words in caught.value.message


def test_recorded_bad_values_of_old_endpoints_are_understood_as_well() -> None:
    found = {
        (complaint.vendor_code, complaint.of_row, complaint.message)
        for each in _exchanges()
        if each["status"] == 400
        for complaint in [complaint_of(each["resp"])]
    }
    assert found == {
        (
            "INVALID_LONG",
            ErrorCode.TYPE_COERCION,
            "Property values were not valid: closedate: asd000 was not a valid long.",
        ),
        (
            "INVALID_EMAIL",
            ErrorCode.DESTINATION_VALIDATION,
            "Property values were not valid: email: Email address 000 is invalid",
        ),
    }


def _faults(results: list[RowResult]) -> dict[str, Any]:
    return {result.key: result.fault and (result.fault.code.value, result.fault.vendor_code) for result in results}


def test_a_recorded_create_that_succeeded_in_part() -> None:
    body = _body("batch__create__contacts__err-partial-success")
    (written,) = orjson.loads(body)["results"]
    rows = batch([{"email": "taken@x.org"}, {"email": written["properties"]["email"]}], "insert", key="email")
    _, results = converse(connector().write(rows), httpx.Response(207, content=body))
    assert _faults(results) == {"taken@x.org": ("CONFLICT", "CONFLICT"), written["properties"]["email"]: None}
    assert [result.record_id for result in results] == [None, written["id"]]


def test_a_recorded_update_that_succeeded_in_part() -> None:
    body = _body("batch__update__contacts__err-partial-success")
    answer = orjson.loads(body)
    (gone,), there = answer["errors"][0]["context"]["ids"], answer["results"][0]["id"]
    rows = batch([{"hs_object_id": gone}, {"hs_object_id": there}], "update", key="hs_object_id")
    _, results = converse(connector().write(rows), httpx.Response(207, content=body))
    assert _faults(results) == {gone: ("NOT_FOUND", "OBJECT_NOT_FOUND"), there: None}


def test_a_recorded_update_that_does_not_return_the_key_is_matched_by_record_id() -> None:
    body = _body("batch__update__contacts__success")
    ids = sorted(each["id"] for each in orjson.loads(body)["results"])
    rows = [make_row({"email": f"{id_}@x.org"}, key="email", record_id=id_) for id_ in ids]
    _, results = converse(connector().write(batch(rows, "update", key="email")), httpx.Response(200, content=body))
    assert {result.key: result.record_id for result in results} == {f"{id_}@x.org": id_ for id_ in ids}


def test_recorded_properties_are_fields() -> None:
    sampled = orjson.loads(_body("metadata-contacts-properties-sampled"))["results"]
    fields = {field.name: field for field in fields_of("contacts", sampled, ())}
    assert fields.keys() == {each["name"] for each in sampled if each["type"] != "object_coordinates"}
    assert fields["address"].updateable
    assert not fields["hs_associated_target_accounts"].updateable
    created = orjson.loads(_body("custom__update__3-response-batch-create-properties"))["results"]
    assert {field.name: field.external_id for field in fields_of("contacts", created, ())} == {
        "hobby__c": True,
        "isready__c": False,
    }


def test_a_recorded_schema_is_an_object() -> None:
    schema = next(each["resp"] for each in _exchanges() if each["path"].startswith("/crm/v3/schemas/"))
    own = objects_of([schema])[-1]
    assert (own.api_name, own.label) == (schema["fullyQualifiedName"], schema["labels"]["plural"])
    fields = {field.name: field for field in fields_of("x", schema["properties"], schema["requiredProperties"])}
    assert [name for name, field in fields.items() if field.required] == schema["requiredProperties"]
