"""The fake account is one that HubSpot's own Python client takes for HubSpot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hubspot import HubSpot
from hubspot.crm.associations.v4 import BatchInputPublicAssociationMultiPost
from hubspot.crm.contacts import (
    BatchInputSimplePublicObjectBatchInput,
    BatchInputSimplePublicObjectBatchInputForCreate,
    BatchInputSimplePublicObjectBatchInputUpsert,
    BatchInputSimplePublicObjectId,
    BatchReadInputSimplePublicObjectId,
    PublicObjectSearchRequest,
    SimplePublicObjectInputForCreate,
)
from hubspot.crm.contacts.exceptions import ApiException

from dagster_retl.testing.fake_hubspot import FakeHubSpot
from dagster_retl.testing.fake_hubspot_rules import UNLABELLED, HubSpotRules

TOKEN = "pat-eu1-1f7c"


@pytest.fixture
def fake() -> Iterator[FakeHubSpot]:
    with FakeHubSpot(HubSpotRules(seed=5)) as server:
        yield server


@pytest.fixture
def client(fake: FakeHubSpot) -> HubSpot:
    return HubSpot(access_token=TOKEN, host=fake.url)


def _create(client: HubSpot, *emails: str) -> Any:
    inputs = [{"properties": {"email": email}, "associations": []} for email in emails]
    body = BatchInputSimplePublicObjectBatchInputForCreate(inputs=inputs)
    return client.crm.contacts.batch_api.create(body)


def test_records_are_created_read_changed_and_archived(client: HubSpot, fake: FakeHubSpot) -> None:
    made = client.crm.contacts.basic_api.create(
        SimplePublicObjectInputForCreate(properties={"email": "Ann@Example.com", "firstname": "Ann"}, associations=[])
    )
    read = client.crm.contacts.basic_api.get_by_id("ann@example.com", id_property="email", properties=["firstname"])
    assert (read.id, read.properties["firstname"]) == (made.id, "Ann")
    client.crm.contacts.basic_api.update(made.id, {"properties": {"firstname": "Anna"}})
    assert fake.stored("contacts")[made.id] == {"email": "ann@example.com", "firstname": "Anna"}
    client.crm.contacts.basic_api.archive(made.id)
    assert fake.stored("contacts") == {}


def test_a_batch_is_created_in_another_order_than_it_was_sent(client: HubSpot, fake: FakeHubSpot) -> None:
    emails = [f"user{number}@example.com" for number in range(20)]
    answer = _create(client, *emails)
    assert [each.properties["email"] for each in answer.results] != emails
    assert sorted(each.properties["email"] for each in answer.results) == sorted(emails)
    assert len(fake.stored("contacts")) == 20


def test_a_batch_is_upserted(client: HubSpot, fake: FakeHubSpot) -> None:
    fake.add("contacts", customer_id="c1", firstname="Old")
    inputs = [
        {"id": each, "idProperty": "customer_id", "objectWriteTraceId": each, "properties": {"firstname": each}}
        for each in ("c1", "c2")
    ]
    answer = client.crm.contacts.batch_api.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=inputs))
    assert {each.properties["firstname"]: each.new for each in answer.results} == {"c1": False, "c2": True}
    assert sorted(record["firstname"] for record in fake.stored("contacts").values()) == ["c1", "c2"]


def test_an_update_of_a_record_that_is_gone_is_told_beside_the_others(client: HubSpot, fake: FakeHubSpot) -> None:
    there = fake.add("contacts", firstname="Ann")
    inputs = [{"id": id_, "properties": {"firstname": "Bob"}} for id_ in (there, "999")]
    answer = client.crm.contacts.batch_api.update(BatchInputSimplePublicObjectBatchInput(inputs=inputs))
    assert [each.id for each in answer.results] == [there]
    assert (answer.num_errors, answer.errors[0].category) == (1, "OBJECT_NOT_FOUND")
    assert answer.errors[0].context["ids"] == ["999"]


def test_a_batch_is_read_by_a_unique_property(client: HubSpot, fake: FakeHubSpot) -> None:
    there = fake.add("contacts", email="ann@example.com", firstname="Ann")
    wanted = BatchReadInputSimplePublicObjectId(
        id_property="email",
        properties=["firstname", "lastname"],
        properties_with_history=[],
        inputs=[{"id": "ANN@example.com"}, {"id": "nobody@example.com"}],
    )
    answer = client.crm.contacts.batch_api.read(wanted)
    assert [(each.id, each.properties["firstname"], each.properties["lastname"]) for each in answer.results] == [
        (there, "Ann", None)
    ]
    assert answer.num_errors == 1


def test_a_batch_is_archived(client: HubSpot, fake: FakeHubSpot) -> None:
    ids = [fake.add("contacts", firstname=str(number)) for number in range(3)]
    body = BatchInputSimplePublicObjectId(inputs=[{"id": id_} for id_ in ids[:2]])
    client.crm.contacts.batch_api.archive(body)
    assert list(fake.stored("contacts")) == ids[2:]


def test_records_are_searched_page_by_page(client: HubSpot, fake: FakeHubSpot) -> None:
    for number in range(5):
        fake.add("contacts", firstname="Ann", lastname=str(number))
    found: list[str] = []
    after = None
    while True:
        page = client.crm.contacts.search_api.do_search(
            PublicObjectSearchRequest(
                filter_groups=[{"filters": [{"propertyName": "firstname", "operator": "EQ", "value": "ann"}]}],
                properties=["lastname"],
                limit=2,
                after=after,
                sorts=[],
            )
        )
        found += [each.properties["lastname"] for each in page.results]
        if page.paging is None:
            break
        after = page.paging.next.after
    assert found == ["0", "1", "2", "3", "4"]


def test_properties_and_schemas_are_discovered(client: HubSpot) -> None:
    properties = {each.name: each for each in client.crm.properties.core_api.get_all("contacts").results}
    assert properties["customer_id"].has_unique_value
    assert properties["hs_object_id"].modification_metadata.read_only_value
    assert [option.value for option in properties["interests"].options] == ["art", "travel", "swimming"]
    (car,) = client.crm.schemas.core_api.get_all().results
    assert (car.fully_qualified_name, car.required_properties) == ("p4711_cars", ["vin", "model"])


def test_records_are_linked(client: HubSpot, fake: FakeHubSpot) -> None:
    contact, company = fake.add("contacts"), fake.add("companies")
    types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": UNLABELLED}]
    inputs = [{"from": {"id": contact}, "to": {"id": other}, "types": types} for other in (company, "404")]
    answer = client.crm.associations.v4.batch_api.create(
        "contacts", "companies", BatchInputPublicAssociationMultiPost(inputs=inputs)
    )
    assert [(each.from_object_id, each.to_object_id) for each in answer.results] == [(contact, company)]
    assert answer.num_errors == 1
    assert fake.links.all == {("0-1", contact, "0-2", company, UNLABELLED)}


def test_a_refresh_token_gives_an_access_token() -> None:
    with FakeHubSpot(HubSpotRules(token=None, app=("app", "secret", "refresh"))) as fake:
        tokens = HubSpot(host=fake.url).oauth.tokens_api
        given = tokens.create(
            grant_type="refresh_token", client_id="app", client_secret="secret", refresh_token="refresh"
        )
        own = HubSpot(access_token=given.access_token, host=fake.url)
        assert own.crm.contacts.basic_api.create({"properties": {"firstname": "Ann"}}).id


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"emial": "x"}, "PROPERTY_DOESNT_EXIST"),
        ({"hubspotscore": "5"}, "READ_ONLY_VALUE"),
        ({"email": "no address"}, "INVALID_EMAIL"),
        ({"score": "many"}, "INVALID_NUMBER"),
        ({"birthday": "1743033660000"}, "not midnight"),
        ({"interests": "art;golf"}, "INVALID_OPTION"),
        ({"notes": "x" * 65_537}, "VALUE_TOO_LONG"),
    ],
)
def test_bad_values_refuse_the_whole_batch(
    client: HubSpot, fake: FakeHubSpot, properties: dict[str, str], words: str
) -> None:
    inputs = [{"properties": {"firstname": "Good"}}, {"properties": properties}]
    with pytest.raises(ApiException) as caught:
        client.crm.contacts.batch_api.create(BatchInputSimplePublicObjectBatchInputForCreate(inputs=inputs))
    assert caught.value.status == 400
    assert words in caught.value.body
    assert fake.stored("contacts") == {}


@pytest.mark.parametrize(
    ("verb", "inputs", "status", "words"),
    [
        ("create", [{"properties": {"firstname": str(number)}} for number in range(101)], 400, "maximum number"),
        ("create", [{"properties": {"email": "ann@example.com"}}], 409, "already exists"),
        ("update", [{"id": "1", "properties": {}}, {"id": "1", "properties": {}}], 400, "Duplicate IDs"),
        ("upsert", [{"idProperty": "firstname", "id": "Ann", "properties": {}}], 400, "non-unique"),
    ],
)
def test_rules_of_batches_are_enforced(
    client: HubSpot, fake: FakeHubSpot, verb: str, inputs: list[Any], status: int, words: str
) -> None:
    fake.add("contacts", email="ann@example.com")
    with pytest.raises(ApiException) as caught:
        getattr(client.crm.contacts.batch_api, verb)({"inputs": inputs})
    assert caught.value.status == status
    assert words in caught.value.body


def test_limits_are_told_and_enforced(fake: FakeHubSpot) -> None:
    with FakeHubSpot(HubSpotRules(limit=(2, 60.0, "TEN_SECONDLY_ROLLING"), daily=100)) as limited:
        api = HubSpot(access_token=TOKEN, host=limited.url).crm.contacts.batch_api
        _, status, headers = api.create_with_http_info({"inputs": [{"properties": {"firstname": "a"}}]})
        assert (status, headers["X-HubSpot-RateLimit-Max"], headers["X-HubSpot-RateLimit-Remaining"]) == (201, "2", "1")
        assert headers["X-HubSpot-RateLimit-Daily-Remaining"] == "99"
        api.create({"inputs": [{"properties": {"firstname": "b"}}]})
        with pytest.raises(ApiException) as caught:
            api.create({"inputs": [{"properties": {"firstname": "c"}}]})
        assert caught.value.status == 429
        assert "TEN_SECONDLY_ROLLING" in caught.value.body
        assert "Retry-After" not in caught.value.headers


def test_strangers_are_kept_out(fake: FakeHubSpot) -> None:
    with pytest.raises(ApiException) as caught:
        _create(HubSpot(access_token="stolen", host=fake.url), "ann@example.com")
    assert caught.value.status == 401
