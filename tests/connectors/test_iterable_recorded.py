"""The `iterable` connector against what Iterable itself says: recorded answers, and its published contract.

Both lie in a folder outside of this repository; without it these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import httpx
import jsonschema
import pytest
from iterable_things import batch, connector, faults, shared, talk

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.iterable import IterableConnector
from dagster_retl.model.rows import RowResult
from dagster_retl.testing import converse, deliver, drive
from dagster_retl.testing.fake_iterable import FakeIterable, IterableRules
from dagster_retl.testing.fake_iterable_catalogs import Catalog
from dagster_retl.testing.fake_iterable_lists import List

# --- recorded answers


@cache
def recorded() -> list[Mapping[str, Any]]:
    lines = shared("recorded/iterable.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def answers(method: str, path: str, status: int = 200) -> list[httpx.Response]:
    """The recorded answers of an endpoint: at least one."""
    found = [
        httpx.Response(each["status"], json=each["resp"])
        for each in recorded()
        if (each["method"], each["status"]) == (method, status) and each["path"].startswith(path)
    ]
    assert found
    return found


def test_fields() -> None:
    for answer in answers("GET", "/api/users/getFields"):
        fields = {each.name: each for each in converse(connector().fields("users"), answer)[1]}
        assert (fields["Lifetime Value"].data_type, fields["signupDate"].data_type) == ("double", "date")
        assert fields["email"].external_id
        assert not fields["devices.token"].updateable
        assert not fields["itblInternal.emailDomain"].updateable


def test_lists() -> None:
    (answer,) = answers("GET", "/api/lists")
    catalogs = httpx.Response(200, json={"catalogNames": [], "totalCatalogsCount": 0})
    _, objects = converse(connector().objects(), answer, catalogs)
    lists = [each for each in objects if each.api_name.startswith("lists/")]
    assert len(lists) == 14
    assert [each.label for each in lists if not each.writable] == ["List: maybe all users?"]


def test_a_user_who_is_not_there() -> None:
    rows = batch([{"email": "nobody@example.com"}])
    for answer in answers("GET", "/api/users/caio"):
        assert converse(connector().read(rows, ["name"]), answer)[1] == {}


def test_an_address_that_is_none() -> None:
    (answer,) = answers("GET", "/api/users/000", 400)
    _, results = talk([{"email": "000"}], answer, operation="update")
    assert faults(results) == {"000": ("DESTINATION_VALIDATION", "InvalidEmailAddressError")}


def test_one_user_is_updated() -> None:
    (answer,) = answers("POST", "/api/users/update", 200)[:1]
    _, results = talk([{"email": "ada@example.com", "name": "Ada"}], answer, settings={"one_by_one": True})
    assert results == [RowResult("ada@example.com")]


def test_a_value_of_another_type() -> None:
    (answer,) = answers("POST", "/api/users/update", 400)
    row = {"email": "ada@example.com", "signupDate": "GGG"}
    for settings in ({"one_by_one": True}, {}):
        _, results = talk([row], answer, settings=settings)
        assert faults(results) == {"ada@example.com": ("TYPE_COERCION", "RequestFieldsTypesMismatched")}
        assert results[0].fault is not None
        assert "Field 'signupDate' already exists" in results[0].fault.message


@pytest.mark.parametrize(("path", "operation"), [("subscribe", "upsert"), ("unsubscribe", "delete")])
def test_members_come_and_go(path: str, operation: str) -> None:
    for answer in answers("POST", f"/api/lists/{path}"):
        _, results = talk([{"email": "ada@example.com"}], answer, object_name="lists/5", operation=operation)
        assert faults(results) == {}


# --- the published contract


@cache
def contract() -> Any:
    return json.loads(shared("specs/iterable.swagger.json").read_text(encoding="utf-8"))


def operation_of(method: str, path: str) -> Mapping[str, Any]:
    """The operation of an address; exact paths go before those with names in them."""
    places = path.split("/")
    for pattern in sorted(contract()["paths"], key=lambda each: each.count("{")):
        parts = pattern.split("/")
        fits = len(parts) == len(places) and all(
            name.startswith("{") or name == part for name, part in zip(parts, places, strict=True)
        )
        if fits and method.lower() in contract()["paths"][pattern]:
            operation: Mapping[str, Any] = contract()["paths"][pattern][method.lower()]
            return operation
    raise AssertionError(f"the contract has no {method} {path}")


def closed(schema: Any) -> Any:
    """A schema that takes no fields but those it names: misspelt ones are found."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    return {**inner, "additionalProperties": False} if schema.get("properties") and schema.get("type") else inner


def validate(value: Any, schema: Any) -> None:
    whole = {**closed(schema), "definitions": closed(contract()["definitions"])}
    jsonschema.Draft4Validator(whole).validate(value)


def check_request(request: Request) -> None:
    path = httpx.URL(request.url).raw_path.decode().partition("?")[0]
    parameters = operation_of(request.method, path)["parameters"]
    bodies = [each for each in parameters if each["in"] == "body"]
    queries = {each["name"] for each in parameters if each["in"] == "query"}
    assert set(request.params) <= queries
    assert bool(bodies) == (request.content is not None)
    for each in bodies:
        validate(json.loads(request.content or b""), each["schema"])


_DAYS = {"age": 36, "when": "2025-03-27 17:00:00 +00:00", "address.city": "Ulm", "nothing": None}
_CASES: list[tuple[str, str, str, Mapping[str, Any], Mapping[str, Any]]] = [
    ("users", "email", "upsert", {"email": "ada@example.com", **_DAYS}, {}),
    ("users", "email", "upsert", {"email": "ada@example.com", **_DAYS}, {"one_by_one": True}),
    ("users", "userId", "upsert", {"userId": 7, **_DAYS}, {"identify_by": "userId"}),
    ("users", "email", "update", {"email": "ada@example.com", **_DAYS}, {}),
    ("users", "userId", "update", {"userId": 7, **_DAYS}, {"identify_by": "userId"}),
    ("users", "email", "delete", {"email": "ada@example.com"}, {}),
    ("users", "userId", "delete", {"userId": "a/b"}, {"identify_by": "userId"}),
    ("lists/5", "email", "upsert", {"email": "ada@example.com", **_DAYS}, {}),
    ("lists/5", "userId", "insert", {"userId": 7}, {"identify_by": "userId", "update_existing_users_only": True}),
    ("lists/5", "email", "delete", {"email": "ada@example.com"}, {}),
    (
        "events",
        "id",
        "insert",
        {"id": 9, "email": "a@b.co", "eventName": "Seen", "createdAt": 1, "campaignId": 2, "templateId": 3, **_DAYS},
        {},
    ),
    ("events", "id", "upsert", {"id": "x", "userId": 7, "eventName": "Seen"}, {"identify_by": "userId"}),
    ("catalogs/shops", "id", "upsert", {"id": "a", **_DAYS}, {}),
    ("catalogs/shops", "id", "delete", {"id": "a"}, {}),
]


@pytest.fixture
def place() -> Iterator[FakeIterable]:
    keys: Any = {connector().config.api_key.get_secret_value(): "server"}
    with FakeIterable(IterableRules(keys, accepts_new_fields=True)) as fake:
        fake.lists.all[5] = List("Buyers")
        fake.catalogs.all["shops"] = Catalog()
        yield fake


@pytest.mark.parametrize(("object_name", "key", "operation", "row", "settings"), _CASES)
def test_requests_keep_to_the_contract(
    place: FakeIterable,
    object_name: str,
    key: str,
    operation: str,
    row: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    contract()
    there = connector(place, **settings)
    rows = batch([row], object_name=object_name, key=key)
    sent: list[Request] = []
    if operation in ("update", "delete"):
        deliver(there, rows)
    deliver(there, batch([row], object_name=object_name, key=key, operation=operation), sent.append)
    assert sent
    for request in sent:
        check_request(request)


def test_questions_keep_to_the_contract(place: FakeIterable) -> None:
    contract()
    asked: list[Request] = []
    there = connector(place)
    for question in (there.check(), there.objects(), *map(there.fields, ("users", "lists/5", "catalogs/shops"))):
        drive(there, question, sent=asked.append)
    for name, row in (
        ("users", {"email": "a@b.co"}),
        ("lists/5", {"email": "a@b.co"}),
        ("catalogs/shops", {"id": "a"}),
    ):
        rows = batch([row], object_name=name, key=tuple(row))
        drive(there, there.read(rows, ["x"]), sent=asked.append)
    for request in asked:
        check_request(request)
    assert len(asked) >= 9


def test_a_misspelt_field_breaks_the_contract() -> None:
    contract()
    request = Request("POST", "/api/users/bulkUpdate", content=b'{"users": [{"email": "a@b.co", "datafields": {}}]}')
    with pytest.raises(jsonschema.ValidationError):
        check_request(request)


_ANSWERS = (
    ("POST", "/api/users/bulkUpdate", "UserBulkUpdateListResponse"),
    ("POST", "/api/events/trackBulk", "BulkTrackResponse"),
    ("POST", "/api/lists/subscribe", "UserBulkUpdateListResponse"),
    ("GET", "/api/lists", "GetListsResponse"),
    ("GET", "/api/catalogs", "GetCatalogsResponse"),
    ("GET", "/api/channels", "ChannelsResponse"),
    ("GET", "/api/users/getFields", "GetUserFieldsResponse"),
    ("GET", "/api/users/getByEmail", "UserResponse"),
    ("GET", "/api/catalogs/shops/fieldMappings", "CatalogFieldMappingsResponse"),
)
_BODIES: Mapping[str, Any] = {
    "/api/users/bulkUpdate": {"users": [{"email": "ada@example.com", "dataFields": {"x": 1}}, {"email": "bob"}]},
    "/api/events/trackBulk": {"events": [{"email": "a@b.co", "eventName": "Seen"}, {"email": "b", "eventName": "No"}]},
    "/api/lists/subscribe": {"listId": 5, "subscribers": [{"email": "a@b.co"}, {"email": "b"}]},
}


@pytest.mark.parametrize(("method", "path", "definition"), _ANSWERS)
def test_the_fake_answers_as_the_contract_says(place: FakeIterable, method: str, path: str, definition: str) -> None:
    contract()
    headers = {"Api-Key": next(iter(place.rules.keys))}
    params = {"email": "ada@example.com"} if path.endswith("getByEmail") else None
    httpx.post(f"{place.url}/api/users/bulkUpdate", headers=headers, json=_BODIES["/api/users/bulkUpdate"])
    answer = httpx.request(method, f"{place.url}{path}", headers=headers, json=_BODIES.get(path), params=params)
    assert answer.status_code == 200
    validate(answer.json(), contract()["definitions"][definition])


def test_the_connector_knows_every_code_of_the_contract() -> None:
    codes = contract()["definitions"]["IterableApiResponse"]["properties"]["code"]["enum"]
    assert set(codes) - {"Success"} == set(IterableConnector.spec.vendor_codes)
