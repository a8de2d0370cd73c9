"""Bad input, through a fake Iterable that minds it: the code, the vendor's words, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from iterable_things import KEY, batch, connector, faults

from dagster_retl.connectors.base import Request
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import RowResult
from dagster_retl.testing import deliver, drive, write
from dagster_retl.testing.fake_iterable import FakeIterable, IterableRules
from dagster_retl.testing.fake_iterable_catalogs import Catalog
from dagster_retl.testing.fake_iterable_lists import List

ADA, BOB = {"email": "ada@example.com", "age": 36}, {"email": "bob@example.com", "age": 41}


@pytest.fixture
def place() -> Iterator[FakeIterable]:
    keys = {KEY: "server", "reads": "read-only", "app": "mobile", "signed": "jwt"}
    with FakeIterable(IterableRules(keys)) as fake:  # type: ignore[arg-type]
        fake.users.fields.types |= {"age": "long", "address": "object", "address.city": "string"}
        fake.lists.all |= {5: List("Buyers"), 6: List("Of a query", "Dynamic")}
        fake.catalogs.all["shops"] = Catalog(types={"opened": "date"})
        yield fake


def put(place: FakeIterable, rows: Sequence[Mapping[str, Any]], **how: Any) -> list[RowResult]:
    settings = how.pop("settings", {})
    return deliver(connector(place, **settings), batch(rows, **how))


def failure(place: FakeIterable, **settings: Any) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        write(connector(place, **settings), batch([ADA]))
    assert place.users.all == []
    return caught.value


def rule(place: FakeIterable, **changes: Any) -> None:
    place.rules = replace(place.rules, **changes)


def names(place: FakeIterable) -> set[str | None]:
    return {user.email for user in place.users.all}


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [
        ("unknown", ErrorCode.AUTH, "Invalid API key"),
        ("app", ErrorCode.AUTH, "This type of key has no access"),
        ("signed", ErrorCode.AUTH, "requires a JWT"),
        ("reads", ErrorCode.PERMISSION, "This key is read-only"),
    ],
)
def test_keys_that_may_not_write_end_the_run(place: FakeIterable, key: str, code: ErrorCode, words: str) -> None:
    error = failure(place, api_key=key)
    assert (error.code, ACTIONS[error.code]) == (code, Action.ABORT)
    assert words in error.message


def test_a_list_that_does_not_exist(place: FakeIterable) -> None:
    there = connector(place)
    with pytest.raises(DestinationError, match="the project has no list 7") as caught:
        drive(there, there.fields("lists/7"))
    assert caught.value.code is ErrorCode.SCHEMA_DRIFT
    refused = put(place, [ADA], object_name="lists/7")
    assert faults(refused) == {"ada@example.com": ("DESTINATION_VALIDATION", "BadParams")}


def test_a_list_that_takes_no_members(place: FakeIterable) -> None:
    there = connector(place)
    with pytest.raises(DestinationError, match="type Dynamic") as caught:
        drive(there, there.fields("lists/6"))
    assert caught.value.code is ErrorCode.CONFIGURATION


@pytest.mark.parametrize("operation", ["upsert", "delete"])
def test_a_catalog_that_does_not_exist(place: FakeIterable, operation: str) -> None:
    there = connector(place)
    for ask in (
        lambda: drive(there, there.fields("catalogs/cars")),
        lambda: put(place, [{"id": "1"}], object_name="catalogs/cars", key="id", operation=operation),
    ):
        with pytest.raises(DestinationError) as caught:
            ask()
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_field_that_the_project_does_not_have_is_left_out(place: FakeIterable, one_by_one: bool) -> None:
    rows = [{**ADA, "nickname": "Countess", "address.zip": "1"}, BOB]
    results = put(place, rows, settings={"one_by_one": one_by_one})
    assert faults(results) == {}
    assert "nickname" not in place.users.fields.types
    assert place.users.find("email", "ada@example.com")[0].data == {"age": 36, "address": {}}
    if not one_by_one:  # the answer to a single update does not say what was left out
        assert [result.warning for result in results] == [
            "Iterable left out address.zip, nickname: the project has no such field, and creates none",
            None,
        ]


def test_a_field_is_created_where_somebody_allows_it(place: FakeIterable) -> None:
    results = put(place, [{**ADA, "nickname": "Countess"}], settings={"create_new_fields": True})
    assert results == [RowResult("ada@example.com")]
    assert place.users.fields.types["nickname"] == "string"


def test_a_project_with_too_many_fields_ends_the_run(place: FakeIterable) -> None:
    place.users.fields.most = len(place.users.fields.types)
    with pytest.raises(DestinationError, match="at most") as caught:
        put(place, [{**ADA, "nickname": "C"}], settings={"create_new_fields": True})
    assert caught.value.code is ErrorCode.SCHEMA_DRIFT


@pytest.mark.parametrize(
    ("mismatches", "expected"),
    [
        ("row", ("DESTINATION_VALIDATION", "invalidDataEmails")),
        ("request", ("TYPE_COERCION", "RequestFieldsTypesMismatched")),
    ],
)
def test_a_value_of_another_type_fails_its_row_only(
    place: FakeIterable, mismatches: str, expected: tuple[str, str]
) -> None:
    rule(place, mismatches=mismatches)
    results = put(place, [ADA, {**BOB, "age": "forty"}, {"email": "eve@example.com", "age": 1}])
    assert faults(results) == {"bob@example.com": expected}
    assert names(place) == {"ada@example.com", "eve@example.com"}
    assert len(results) == 3


def test_the_vendor_says_which_field_has_another_type(place: FakeIterable) -> None:
    rule(place, mismatches="request")
    (result,) = put(place, [{**BOB, "age": "forty"}])
    assert result.fault is not None
    assert "'age' has the data type 'long'" in result.fault.message


def test_names_that_nobody_can_have(place: FakeIterable) -> None:
    assert faults(put(place, [ADA, {"email": "bob", "age": 1}])) == {"bob": ("DESTINATION_VALIDATION", "invalidEmails")}
    rows = [{"userId": "u" * 53}, {"userId": "ü"}, {"userId": "u "}, {"userId": "u"}]
    rule(place, identity="userId")
    results = put(place, rows, settings={"identify_by": "userId"}, key="userId")
    assert set(faults(results).values()) == {("DESTINATION_VALIDATION", "invalidUserIds")}
    assert len(faults(results)) == 3


def test_users_who_were_forgotten(place: FakeIterable) -> None:
    place.users.forgotten.add("ada@example.com")
    assert faults(put(place, [ADA, BOB])) == {"ada@example.com": ("DESTINATION_VALIDATION", "forgottenEmails")}
    alone = put(place, [ADA], settings={"one_by_one": True})
    assert faults(alone) == {"ada@example.com": ("DESTINATION_VALIDATION", "ForgottenUserError")}


def test_a_user_id_that_another_user_has(place: FakeIterable) -> None:
    rule(place, identity="hybrid")
    put(place, [{**ADA, "userId": "7"}])
    assert faults(put(place, [{**BOB, "userId": "7"}])) == {"bob@example.com": ("CONFLICT", "conflictUserIds")}
    alone = put(place, [{**BOB, "userId": "7"}], settings={"one_by_one": True})
    assert faults(alone) == {"bob@example.com": ("CONFLICT", "UserIdAlreadyExists")}


def test_two_users_of_one_request_who_want_the_same_id(place: FakeIterable) -> None:
    """The answer names the id and counts one failure: only alone can each of them be told apart."""
    rule(place, identity="hybrid")
    results = put(place, [{**ADA, "userId": "7"}, {**BOB, "userId": "7"}])
    assert faults(results) == {"bob@example.com": ("CONFLICT", "conflictUserIds")}


def test_an_id_that_two_users_have(place: FakeIterable) -> None:
    """A project that knows its users by address does not keep ids apart: what is written is written to both."""
    put(place, [{**ADA, "userId": "7"}, {**BOB, "userId": "7"}])
    how: dict[str, Any] = {"settings": {"identify_by": "userId"}, "key": "userId"}
    assert faults(put(place, [{"userId": "7", "age": 50}], **how)) == {}
    assert [user.data["age"] for user in place.users.all] == [50, 50]
    put(place, [{"userId": "7"}], operation="delete", **how)
    assert place.users.all == []


def test_a_user_who_was_deleted_meanwhile(place: FakeIterable) -> None:
    put(place, [ADA, BOB])
    place.users.delete("email", "ada@example.com")
    updated = put(place, [{**ADA, "age": 37}, {**BOB, "age": 42}], operation="update")
    assert faults(updated) == {"ada@example.com": ("NOT_FOUND", None)}
    assert names(place) == {"bob@example.com"}
    assert faults(put(place, [ADA, BOB], operation="delete")) == {}
    assert place.users.all == []


def test_an_unknown_user_in_a_list(place: FakeIterable) -> None:
    rule(place, identity="userId")
    how: dict[str, Any] = {"object_name": "lists/5", "key": "userId"}
    settings = {"identify_by": "userId", "update_existing_users_only": True}
    put(place, [{"userId": "1"}], settings={"identify_by": "userId"}, key="userId")
    results = put(place, [{"userId": "1"}, {"userId": "2"}], settings=settings, **how)
    assert faults(results) == {"2": ("NOT_FOUND", "notFoundUserIds")}
    assert [user.user_id for user in place.lists.members(5)] == ["1"]
    assert faults(put(place, [{"userId": "2"}], settings=settings, operation="delete", **how)) == {}


def test_an_event_of_an_unknown_user(place: FakeIterable) -> None:
    rows = [{"id": "1", "userId": "u", "eventName": "Seen"}, {"id": "2", "userId": "v", "eventName": "Seen"}]
    put(place, [{**ADA, "userId": "v"}])
    results = put(place, rows, object_name="events", key="id", settings={"identify_by": "userId"}, operation="insert")
    assert faults(results) == {"1": ("NOT_FOUND", "notFoundUserIds")}
    assert set(place.events.all) == {"2"}


def test_an_event_that_the_project_does_not_take(place: FakeIterable) -> None:
    rule(place, disallowed_events=frozenset({"Noise"}))
    rows = [{"id": str(n), "email": "a@b.co", "eventName": "Noise" if n % 2 else "Seen"} for n in range(4)]
    results = put(place, rows, object_name="events", key="id", operation="insert")
    assert faults(results) == dict.fromkeys(("1", "3"), ("DESTINATION_VALIDATION", "disallowedEventNames"))
    assert set(place.events.all) == {"0", "2"}


def test_events_of_one_user_written_in_two_ways(place: FakeIterable) -> None:
    place.users.forgotten.add("ada@example.com")
    addresses = ["ada@example.com", "ADA@example.com", "bob@example.com", "Ada@Example.com"]
    rows = [{"id": str(n), "email": address, "eventName": "Seen"} for n, address in enumerate(addresses)]
    results = put(place, rows, object_name="events", key="id", operation="insert")
    assert set(faults(results)) == {"0", "1", "3"}
    assert set(place.events.all) == {"2"}


def test_failures_that_are_counted_and_not_named(place: FakeIterable) -> None:
    rule(place, vague=True)
    sent: list[Request] = []
    rows = [{"email": f"u{n}@example.com", "age": "old" if n == 5 else n} for n in range(8)]
    results = deliver(connector(place), batch(rows), sent.append)
    assert faults(results) == {"u5@example.com": ("DESTINATION_VALIDATION", None)}
    assert len(names(place)) == 7
    assert len(sent) == 7, "eight rows are halved three times"


def test_a_body_that_is_too_large_is_halved(place: FakeIterable) -> None:
    rule(place, max_bytes=600)
    rows = [{"email": f"u{n}@example.com", "age": n} for n in range(10)]
    assert faults(put(place, rows)) == {}
    assert len(names(place)) == 10


def test_an_item_that_is_no_item(place: FakeIterable) -> None:
    rows = [{"id": "ok", "n": 1}, {"id": "dotted", "n": {"a.b": 1}}]
    results = put(place, rows, object_name="catalogs/shops", key="id")
    assert faults(results) == {"dotted": ("DESTINATION_VALIDATION", "BadParams")}
    assert set(place.catalogs.all["shops"].items) == {"ok"}


def test_an_item_that_is_lost_without_a_word_was_unconfirmed(place: FakeIterable) -> None:
    rows = [{"id": "ok", "opened": "2025-01-01"}, {"id": "bad", "opened": "soon"}]
    results = put(place, rows, object_name="catalogs/shops", key="id")
    assert [(result.fault, result.unconfirmed) for result in results] == [(None, True), (None, True)]
    assert set(place.catalogs.all["shops"].items) == {"ok"}
