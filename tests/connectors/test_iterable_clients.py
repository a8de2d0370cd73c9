"""The fake Iterable is credible: clients that other people wrote for Iterable run against it as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from iterable import Iterable
from iterable.exceptions import AuthorizationError, InvalidParameters
from iterable_things import KEY, batch, connector
from iterablepythonwrapper.client import IterableApi

from dagster_retl.testing import deliver
from dagster_retl.testing.fake_iterable import FakeIterable, IterableRules


@pytest.fixture
def place() -> Iterator[FakeIterable]:
    with FakeIterable(IterableRules({KEY: "server", "app": "mobile"}, accepts_new_fields=True)) as fake:
        yield fake


@pytest.fixture
def client(place: FakeIterable) -> Iterator[Any]:
    """iterable-api, which takes the address of the service."""
    api = Iterable(KEY, base_uri=place.url)
    yield api
    api._session.close()


@pytest.fixture
def wrapper(place: FakeIterable) -> Any:
    """iterablepythonwrapper, whose address is an attribute."""
    api = IterableApi(KEY)
    api.base_uri = place.url
    return api


class TestIterableApi:
    def test_users(self, client: Any) -> None:
        users = [
            {"email": "ada@example.com", "dataFields": {"plan": "pro", "address": {"city": "Ulm"}}},
            {"email": "bob", "dataFields": {}},
        ]
        answer = client.users.bulk_update(users).data
        assert (answer["successCount"], answer["failCount"]) == (1, 1)
        assert answer["failedUpdates"] == {"invalidEmails": ["bob"]}
        assert client.users.update("ada@example.com", {"plan": "free"}).data["code"] == "Success"
        user = client.users.get("ada@example.com").data["user"]
        assert user["dataFields"]["plan"] == "free"
        assert client.users.get_fields().data["fields"]["address.city"] == "string"
        assert client.users.delete("ada@example.com").data["code"] == "Success"
        assert client.users.get("ada@example.com").data == {}

    def test_a_field_keeps_its_type(self, client: Any) -> None:
        client.users.update("ada@example.com", {"age": 36})
        with pytest.raises(InvalidParameters) as caught:
            client.users.update("ada@example.com", {"age": "old"})
        (problem,) = caught.value.args
        assert problem["code"] == "RequestFieldsTypesMismatched"
        assert problem["params"]["validationErrors"]["age"]["expectedType"] == "long"

    def test_lists(self, client: Any) -> None:
        number = client.lists.create("Buyers").data["listId"]
        assert client.lists.add_subscribers(number, {"email": "ada@example.com"}).data["successCount"] == 1
        assert client.lists.user_count(number).data == 1
        assert client.lists.users(number).data == "ada@example.com\n"
        assert client.lists.remove_subscribers_to_list(number, [{"email": "ada@example.com"}]).data["failCount"] == 0
        assert client.lists.user_count(number).data == 0
        assert [each["name"] for each in client.lists.list().data["lists"]] == ["Buyers"]

    def test_events(self, client: Any) -> None:
        for plan in ("pro", "free"):
            answer = client.events.track("Upgraded", "ada@example.com", 1_743_094_800, {"plan": plan}, event_id="e1")
            assert answer.data["code"] == "Success"
        (event,) = client.events.get("ada@example.com").data["events"]
        assert (event["id"], event["dataFields"]) == ("e1", {"plan": "free"})

    def test_keys(self, place: FakeIterable) -> None:
        for key in ("wrong", "app"):
            api = Iterable(key, base_uri=place.url)
            with pytest.raises(AuthorizationError):
                api.lists.list()
            api._session.close()


class TestIterablePythonWrapper:
    def test_users(self, wrapper: Any) -> None:
        answer = wrapper.bulk_update_user([{"userId": "7", "preferUserId": True, "dataFields": {"plan": "pro"}}])
        assert (answer["code"], answer["body"]["successCount"]) == (200, 1)
        assert wrapper.get_users_by_userid("7")["body"]["user"]["dataFields"]["plan"] == "pro"
        assert wrapper.get_users_by_userid_userid("7")["body"]["user"]["userId"] == "7"
        assert wrapper.delete_users_by_userid_userid("7")["body"]["code"] == "Success"
        assert wrapper.get_users_by_userid("7")["body"] == {}

    def test_lists(self, wrapper: Any) -> None:
        number = wrapper.create_static_list("Buyers")["body"]["listId"]
        wrapper.add_subscribers_to_list(number, [{"email": "ada@example.com"}])
        assert wrapper.count_of_users_in_list(number)["body"] == 1
        gone = wrapper.remove_subscribers_to_list(number, [{"email": "bob@example.com"}])["body"]
        assert gone["failedUpdates"] == {"notFoundEmails": ["bob@example.com"]}

    def test_events(self, wrapper: Any) -> None:
        assert wrapper.track_event("Seen", email="ada@example.com")["body"]["code"] == "Success"
        assert len(wrapper.get_events("ada@example.com")["body"]["events"]) == 1


def test_they_see_what_the_connector_wrote(place: FakeIterable, client: Any, wrapper: Any) -> None:
    rows = [{"email": "ada@example.com", "plan": "pro", "address.city": "Ulm"}]
    deliver(connector(place, create_new_fields=True), batch(rows))
    fields = client.users.get("ada@example.com").data["user"]["dataFields"]
    assert (fields["plan"], fields["address"]) == ("pro", {"city": "Ulm"})
    assert wrapper.get_user_by_email("ada@example.com")["body"]["user"]["dataFields"] == fields
    deliver(connector(place), batch(rows, operation="delete"))
    assert client.users.get("ada@example.com").data == {}
