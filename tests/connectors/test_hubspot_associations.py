"""Links from records to their parents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hubspot_things import COMPANY, batch, connector

from dagster_retl.connectors.hubspot import HubSpotConnector
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import RowResult
from dagster_retl.testing import Trouble, converse, deliver, drive, faults
from dagster_retl.testing.fake_hubspot import FakeHubSpot
from dagster_retl.testing.fake_hubspot_rules import PRIMARY, UNLABELLED, HubSpotRules


@pytest.fixture
def fake() -> Iterator[FakeHubSpot]:
    with FakeHubSpot(HubSpotRules(seed=4)) as server:
        server.add("companies", domain="acme.com", account_number="7")
        yield server


def _links(fake: FakeHubSpot) -> set[tuple[str | None, str | None, int]]:
    """Customer id, domain, type of each link from a contact to a company."""
    contacts, companies = fake.stored("contacts"), fake.stored("companies")
    return {
        (contacts[one].get("customer_id"), companies[other].get("domain"), type_id)
        for _, one, _, other, type_id in fake.links.all
    }


def _deliver(fake: FakeHubSpot, operation: str, *rows: Any, **association: Any) -> list[RowResult]:
    setting = {"company": {**COMPANY["company"], **association}}
    return deliver(connector(fake.url, associations=setting), batch(rows, operation))


@pytest.mark.parametrize("operation", ["upsert", "insert", "update"])
@pytest.mark.parametrize(("by", "value"), [("domain", "ACME.com"), ("account_number", "7"), ("hs_object_id", None)])
def test_a_record_is_linked_to_its_parent(fake: FakeHubSpot, operation: str, by: str, value: str | None) -> None:
    if operation == "update":
        fake.add("contacts", customer_id="c1")
        fake.add("contacts", customer_id="c2")
    parent = value or next(iter(fake.stored("companies")))
    rows = [{"customer_id": "c1", "association.company": parent}, {"customer_id": "c2", "association.company": None}]
    results = _deliver(fake, operation, *rows, by=by)
    assert [result.fault for result in results] == [None, None]
    assert _links(fake) == {("c1", "acme.com", UNLABELLED)}
    assert all("association.company" not in record for record in fake.stored("contacts").values())


@pytest.mark.parametrize("operation", ["upsert", "insert", "update"])
def test_a_row_without_parent_is_not_written(fake: FakeHubSpot, operation: str) -> None:
    fake.add("companies", domain="two.com")
    fake.add("companies", domain="two.com")
    if operation == "update":
        for name in ("c1", "c2", "c3"):
            fake.add("contacts", customer_id=name)
    rows = [
        {"customer_id": f"c{number}", "firstname": "x", "association.company": domain}
        for number, domain in enumerate(("nobody.com", "acme.com", "two.com"), 1)
    ]
    told = {result.key: result.fault for result in _deliver(fake, operation, *rows)}
    assert told["c2"] is None
    assert (told["c1"].code, told["c1"].message) == (
        ErrorCode.DESTINATION_VALIDATION,
        "there are no companies with domain 'nobody.com' to link to",
    )
    assert told["c3"].message == "there are 2 companies with domain 'two.com': which is the parent?"
    written = [record["customer_id"] for record in fake.stored("contacts").values() if "firstname" in record]
    assert written == ["c2"]


@pytest.mark.parametrize(("wanted", "type_id"), [("primary", PRIMARY), (PRIMARY, PRIMARY), (None, UNLABELLED)])
def test_the_type_is_chosen_by_label_or_id(fake: FakeHubSpot, wanted: Any, type_id: int) -> None:
    _deliver(fake, "upsert", {"customer_id": "c1", "association.company": "acme.com"}, type=wanted)
    assert _links(fake) == {("c1", "acme.com", type_id)}


@pytest.mark.parametrize(
    ("settings", "row", "words"),
    [
        ({"type": "Boss"}, {}, "no association type Boss leads from contacts to companies"),
        ({}, {"association.firm": "x"}, "the destination has no association 'firm'"),
        ({"object": "deals"}, {}, "no association type without a label leads from contacts to deals"),
    ],
)
def test_what_is_not_set_up_ends_the_run(fake: FakeHubSpot, settings: Any, row: Any, words: str) -> None:
    with pytest.raises(DestinationError, match=words) as caught:
        _deliver(fake, "upsert", {"customer_id": "c1", "association.company": "acme.com", **row}, **settings)
    assert caught.value.code is ErrorCode.CONFIGURATION
    assert caught.value.hint
    assert fake.stored("contacts") == {}


def test_a_parent_is_looked_up_once_a_request_and_its_type_once(fake: FakeHubSpot) -> None:
    rows = [{"customer_id": f"c{number}", "association.company": "acme.com"} for number in range(150)]
    _deliver(fake, "upsert", *rows)
    paths = [request.path for request in fake.requests]
    assert sum(path.endswith("/search") for path in paths) == 2
    assert sum(path.endswith("/labels") for path in paths) == 1
    searches = [request.json() for request in fake.requests if request.path.endswith("/search")]
    assert [each["filterGroups"][0]["filters"][0]["values"] for each in searches] == [["acme.com"]] * 2


def test_a_link_that_is_refused_fails_its_row() -> None:
    """The parent went between its lookup and the link."""
    found = [{"id": str(number), "properties": {"domain": f"d{number}.com"}} for number in (8, 9)]
    refused = {
        "category": "OBJECT_NOT_FOUND",
        "message": "COMPANY with ID 9 does not exist",
        "context": {"toObjectId": ["9"]},
    }
    made = [{"fromObjectId": 100, "toObjectId": 8}]
    rows = [{"customer_id": f"c{number}", "association.company": f"d{number}.com"} for number in (8, 9)]
    requests, results = converse(
        connector(associations=COMPANY).write(batch(rows)),
        httpx.Response(200, json={"results": [{"category": "HUBSPOT_DEFINED", "typeId": 279, "label": None}]}),
        httpx.Response(200, json={"hasUniqueValue": False}),
        httpx.Response(200, json={"results": found}),
        httpx.Response(
            200, json={"results": [{"id": str(92 + n), "properties": {"customer_id": f"c{n}"}} for n in (8, 9)]}
        ),
        httpx.Response(207, json={"results": made, "errors": [refused]}),
    )
    assert orjson.loads(requests[-1].content or b"")["inputs"][1] == {
        "from": {"id": "101"},
        "to": {"id": "9"},
        "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 279}],
    }
    told = {result.key: result.fault for result in results}
    assert told["c8"] is None
    assert (told["c9"].code, told["c9"].message) == (
        ErrorCode.DESTINATION_VALIDATION,
        "COMPANY with ID 9 does not exist",
    )


def test_an_error_after_the_records_were_written_says_that_they_may_be(fake: FakeHubSpot) -> None:
    fake.disturb(faults.error(403), where=lambda request: request.path.endswith("batch/create"))
    with pytest.raises(DestinationError) as caught:
        _deliver(fake, "upsert", {"customer_id": "c1", "association.company": "acme.com"})
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.PERMISSION, True)
    assert len(fake.stored("contacts")) == 1


def test_a_parent_that_went_is_no_record_that_is_gone(fake: FakeHubSpot) -> None:
    """In `update`, rows without a record are skipped; this one has one, and fails."""
    fake.add("contacts", customer_id="c1")
    body = orjson.dumps({"category": "OBJECT_NOT_FOUND", "message": "COMPANY with ID 9 does not exist"})
    trouble = Trouble(status=404, body=body)
    fake.disturb(trouble, where=lambda request: request.path.endswith("batch/create"))
    (result,) = _deliver(fake, "update", {"customer_id": "c1", "association.company": "acme.com"})
    assert result.fault is not None
    assert result.fault.code is ErrorCode.DESTINATION_VALIDATION


def test_associations_are_fields(fake: FakeHubSpot) -> None:
    made: HubSpotConnector = connector(fake.url, associations=COMPANY)
    field = drive(made, made.fields("contacts"))[-1]
    assert (field.name, field.label, field.data_type) == ("association.company", "companies by domain", "association")
