"""What a HubSpot account says of itself, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hubspot_things import COMPANY, batch, connector

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import FieldInfo, Operation
from dagster_retl.testing import converse, drive
from dagster_retl.testing.fake_hubspot import FakeHubSpot
from dagster_retl.testing.fake_hubspot_rules import HubSpotRules


@pytest.fixture(params=["v3", "2026-03"])
def version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture
def fake() -> Iterator[FakeHubSpot]:
    with FakeHubSpot(HubSpotRules(seed=1)) as server:
        yield server


def _fields(fake: FakeHubSpot, object_name: str, **settings: Any) -> dict[str, FieldInfo]:
    made = connector(fake.url, **settings)
    return {field.name: field for field in drive(made, made.fields(object_name))}


def test_standard_and_custom_objects_are_found(fake: FakeHubSpot, version: str) -> None:
    made = connector(fake.url, api_version=version)
    objects = {each.api_name: each.label for each in drive(made, made.objects())}
    assert objects["contacts"] == "Contacts"
    assert objects["line_items"] == "Line items"
    assert objects["p4711_cars"] == "Cars"


def test_without_the_scope_of_schemas_standard_objects_are_found() -> None:
    with FakeHubSpot(HubSpotRules(without_scopes=frozenset({"schemas"}))) as fake:
        made = connector(fake.url)
        names = [each.api_name for each in drive(made, made.objects())]
        with pytest.raises(DestinationError) as caught:
            drive(made, made.fields("p4711_cars"))
    assert "companies" in names
    assert "p4711_cars" not in names
    assert caught.value.code is ErrorCode.PERMISSION


def test_an_outage_is_not_taken_for_an_account_without_custom_objects() -> None:
    with pytest.raises(DestinationError):
        converse(connector().objects(), httpx.Response(503))


def test_fields_of_contacts(fake: FakeHubSpot, version: str) -> None:
    fields = _fields(fake, "contacts", api_version=version)
    assert fields["email"] == FieldInfo("email", "Email", "string", external_id=True)
    assert fields["customer_id"].external_id
    assert not fields["firstname"].external_id
    assert (fields["hubspotscore"].createable, fields["hubspotscore"].updateable) == (False, False)
    assert (fields["hs_object_id"].createable, fields["hs_object_id"].updateable) == (False, False)
    assert fields["interests"].data_type == "enumeration"
    assert "hs_additional_emails" in fields, "hidden ones may be mapped"
    assert "hs_coordinates" not in fields
    assert not any(field.required for field in fields.values())


def test_fields_of_a_custom_object_know_what_is_required(fake: FakeHubSpot, version: str) -> None:
    fields = _fields(fake, "p4711_cars", api_version=version, associations=COMPANY)
    assert {name for name, field in fields.items() if field.required} == {"vin", "model"}
    assert "association.company" in fields


@pytest.mark.parametrize("object_name", ["butterflies", "2-999"])
def test_an_object_that_does_not_exist_is_told(fake: FakeHubSpot, object_name: str) -> None:
    with pytest.raises(DestinationError, match="Unable to infer object type") as caught:
        _fields(fake, object_name)
    assert caught.value.code is ErrorCode.CONFIGURATION


def test_check_reaches_the_account(fake: FakeHubSpot) -> None:
    made = connector(fake.url)
    assert drive(made, made.check()).id == "4711"
    assert made.record_url("contacts", "5") == "https://app-eu1.hubspot.com/contacts/4711/record/0-1/5"


@pytest.mark.parametrize("answer", [httpx.Response(200, html="<html>"), httpx.Response(200, json={"portal": 1})])
def test_check_is_not_content_with_anything(answer: httpx.Response) -> None:
    with pytest.raises(DestinationError):
        converse(connector().check(), answer)


def test_values_are_read_by_key(fake: FakeHubSpot) -> None:
    fake.add("contacts", customer_id="c1", email="ann@x.org", firstname="Ann", score="5")
    fake.add("contacts", customer_id="c2", email="bob@x.org")
    made = connector(fake.url)
    rows = batch([{"customer_id": each} for each in ("c1", "c2", "c3")])
    fields = ["customer_id", "firstname", "score", "association.company"]
    assert drive(made, made.read(rows, fields)) == {
        "c1": {"customer_id": "c1", "firstname": "Ann", "score": "5"},
        "c2": {"customer_id": "c2", "firstname": None, "score": None},
    }
    by_email = batch([{"email": "ANN@x.org"}], key="email")
    assert drive(made, made.read(by_email, ["firstname"])) == {"ANN@x.org": {"firstname": "Ann"}}


def test_values_are_read_by_record_id_and_by_search(fake: FakeHubSpot) -> None:
    one = fake.add("companies", domain="one.com", name="One")
    for _ in range(2):
        fake.add("companies", domain="two.com", name="Two")
    made = connector(fake.url)
    by_id = batch([{"hs_object_id": one}, {"hs_object_id": "9"}], "update", object_name="companies", key="hs_object_id")
    assert drive(made, made.read(by_id, ["name"])) == {one: {"name": "One"}}
    assert drive(made, made.read(replace(by_id, operation=Operation.UPSERT), ["name"])) == {one: {"name": "One"}}
    by_domain = batch([{"domain": "one.com"}, {"domain": "two.com"}], object_name="companies", key="domain")
    assert drive(made, made.read(by_domain, ["name"])) == {"one.com": {"name": "One"}}


def test_nothing_is_asked_for_no_rows_or_rows_without_a_key() -> None:
    assert converse(connector().read(batch([]), ["name"])) == ([], {})
    assert converse(connector().read(batch([{"a": 1}], "insert", key=()), ["a"])) == ([], {})
