"""What the Salesforce connector makes of answers that a live org gave. Needs the recordings; see `shared`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from salesforce_orgs import accounts
from test_salesforce_write import offline

from dagster_retl.connectors.jobs import JobRef, JobState
from dagster_retl.connectors.salesforce_csv import read_csv
from dagster_retl.connectors.salesforce_errors import RowError
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch
from dagster_retl.testing import converse, make_batch, make_row

SHARED = Path(os.environ.get("RETL_SHARED") or Path(__file__).resolve().parents[3] / "shared") / "recorded"
BODIES = SHARED / "amp-labs"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings at {SHARED}: set RETL_SHARED")


def _exchanges() -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (SHARED / "salesforce.jsonl").read_text().splitlines()]


def _body(name: str) -> Any:
    return json.loads((BODIES / f"salesforce__{name}").read_text())


def _answer(exchange: Mapping[str, Any]) -> httpx.Response:
    headers = {name: value for name, value in exchange["headers"].items() if "encoding" not in name}
    return httpx.Response(exchange["status"], json=exchange["resp"], headers=headers)


def _batch(rows: list[dict[str, Any]], operation: str) -> Batch:
    """Rows as they were sent, with numbers as their keys and the ids that they named."""
    made = [
        make_row({"N__c": str(number), **row}, key="N__c", record_id=row.get("id")) for number, row in enumerate(rows)
    ]
    return make_batch(made, operation=operation, object_name="Account", key="N__c")


def test_recorded_collections() -> None:
    found = [each for each in _exchanges() if each["path"].endswith("/composite/sobjects")]
    assert len(found) >= 9
    refused: dict[str | None, ErrorCode] = {}
    for exchange in found:
        operation = {"POST": "insert", "PATCH": "update", "DELETE": "delete"}[exchange["method"]]
        ids = exchange.get("query", {}).get("ids", "").replace("%2C", ",").split(",")
        rows = exchange["req"]["records"] if "req" in exchange else [{"id": each} for each in ids]
        _, results = converse(offline().write(_batch(rows, operation)), _answer(exchange))
        assert len(results) == len(exchange["resp"])
        for result, entry in zip(results, exchange["resp"], strict=True):
            assert (result.fault is None) == entry["success"]
            assert result.record_id == entry.get("id")
            if result.fault:
                refused[result.fault.vendor_code] = result.fault.code
    assert refused == {
        "INVALID_EMAIL_ADDRESS": ErrorCode.DESTINATION_VALIDATION,
        "REQUIRED_FIELD_MISSING": ErrorCode.MISSING_REQUIRED_FIELD,
        "CANNOT_UPDATE_CONVERTED_LEAD": ErrorCode.DESTINATION_VALIDATION,
    }


def test_recorded_usage() -> None:
    states = [offline().limits(_answer(each)) for each in _exchanges()]
    known = [state for state in states if state]
    assert len(known) == len(states)
    assert all(state.limit == 15_000 and state.remaining for state in known)


def test_recorded_descriptions() -> None:
    found = [each for each in _exchanges() if each["path"].endswith("/describe")]
    assert len(found) >= 8
    for exchange in found:
        _, fields = converse(offline().fields("x"), _answer(exchange))
        names = {info.name: info for info in fields}
        assert len(names) == len(fields), "a parent is called otherwise than every field"
        assert not names["Id"].createable
        if exchange["path"].endswith("/Contact/describe"):
            assert [info.name for info in fields if info.required] == ["LastName"]
            assert names["Email"].external_id
            assert names["Account"].data_type == "parent"


def test_recorded_queries() -> None:
    found = [each for each in _exchanges() if each["path"].endswith("/query")]
    assert found
    for exchange in found:
        described = httpx.Response(200, json={"fields": [{"name": "AccountNumber", "type": "string"}]})
        batch = accounts({"AccountNumber": "x"}, operation="delete", key="AccountNumber")
        _, (result,) = converse(offline().write(batch), described, _answer(exchange))
        assert result.fault
        assert result.fault.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("batch__create__contacts__success.json", [None, None]),
        ("batch__update__contacts__success.json", [None, None]),
        ("batch__update__contacts__err-each-no-ids.json", [ErrorCode.MISSING_KEY, ErrorCode.MISSING_KEY]),
        (
            "batch__create__contacts__partial-but-allOrNone.json",
            [ErrorCode.MISSING_REQUIRED_FIELD, ErrorCode.DESTINATION_UNAVAILABLE],
        ),
        (
            "batch__update__contacts__partial-but-allOrNone.json",
            [ErrorCode.DESTINATION_UNAVAILABLE, ErrorCode.SCHEMA_DRIFT],
        ),
    ],
)
def test_recorded_answers_to_rows(name: str, codes: list[ErrorCode | None]) -> None:
    batch = _batch([{"LastName": "a"}, {"LastName": "b"}], "insert")
    _, results = converse(offline().write(batch), httpx.Response(200, json=_body(name)))
    assert [result.fault and result.fault.code for result in results] == codes


@pytest.mark.parametrize(
    ("name", "status", "code", "vendor_code"),
    [
        ("unknown-field.json", 400, ErrorCode.SCHEMA_DRIFT, "INVALID_FIELD"),
        ("unknown-object.json", 400, ErrorCode.SCHEMA_DRIFT, "INVALID_TYPE"),
        ("batch__create__contacts__err-bad-request.json", 400, ErrorCode.BATCH_REJECTED, "REQUIRED_FIELD_MISSING"),
        ("invalid-field-upsert.json", 400, ErrorCode.BATCH_REJECTED, "INVALID_FIELD_FOR_INSERT_UPDATE"),
    ],
)
def test_recorded_refusals(name: str, status: int, code: ErrorCode, vendor_code: str) -> None:
    response = httpx.Response(status, json=_body(name))
    with pytest.raises(DestinationError) as caught:
        converse(offline().write(accounts({"A__c": "a"}, {"A__c": "b"}, key="A__c")), response)
    assert (caught.value.code, caught.value.vendor_code) == (code, vendor_code)
    assert caught.value.message


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("bulk__info__in-progress.json", JobState.RUNNING, ""),
        ("bulk__info__success.json", JobState.DONE, ""),
        ("bulk__info__partial-failure.json", JobState.DONE, ""),
        ("bulk__info__complete-failure.json", JobState.FAILED, "InvalidBatch : Field name not found"),
        ("bulk__write__launch-job-opportunity.json", JobState.OPEN, ""),
        ("bulk__write__update-job-opportunity.json", JobState.RUNNING, ""),
    ],
)
def test_recorded_jobs(name: str, state: JobState, message: str) -> None:
    _, status = converse(offline().poll(JobRef("7")), httpx.Response(200, json=_body(name)))
    assert status.state is state
    assert status.message.startswith(message)
    assert bool(status.message) == bool(message)


def test_a_recorded_job_with_an_unknown_column() -> None:
    answer = httpx.Response(200, json=_body("bulk__info__complete-failure.json"))
    batch = accounts({"external_id__c": "a"}, key="external_id__c", object_name="Opportunity")
    with pytest.raises(DestinationError, match="StageName_invalid_field_on_purpose") as caught:
        converse(offline().collect(batch, JobRef("7")), answer)
    assert caught.value.code is ErrorCode.SCHEMA_DRIFT


def test_recorded_results_of_a_job() -> None:
    content = (BODIES / "salesforce__bulk__info__partial-failure.csv").read_bytes()
    (line,) = read_csv(content)
    assert RowError.of_job(line["sf__error"]).fields == ("CloseDate",)
    info = httpx.Response(200, json=_body("bulk__info__partial-failure.json"))
    batch = accounts({"external_id__c": line["external_id__c"]}, key="external_id__c", object_name="Opportunity")
    answers = [info, httpx.Response(200), httpx.Response(200, content=content), httpx.Response(200)]
    _, (result,) = converse(offline().collect(batch, JobRef("7")), *answers)
    assert result.fault
    assert (result.key, result.fault.code) == (line["external_id__c"], ErrorCode.TYPE_COERCION)
    assert result.fault.message.startswith("Failed to deserialize field at col 3.")
