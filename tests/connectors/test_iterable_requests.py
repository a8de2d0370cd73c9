"""What the `iterable` connector sends: values, shapes, addresses, and what it refuses by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from iterable_things import batch, connector, counts, faults, sent, talk

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.iterable_entries import EVENT_ID_BYTES, ITEM_BYTES, epoch_seconds
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import KeyForm, Operation
from dagster_retl.testing import make_row
from dagster_retl.testing.rows import wire_value

ACCEPTED = httpx.Response(202)
_FINITE: dict[str, Any] = {"allow_nan": False, "allow_infinity": False}


def only(rows: Any, answer: httpx.Response | None = None, **how: Any) -> Request:
    rows = [rows] if isinstance(rows, Mapping) else rows
    (request,), _ = talk(rows, answer or counts(len(rows)), **how)
    return request


def event(**values: Any) -> Any:
    return sent(only({"id": "e1", "email": "a@b.co", "eventName": "Seen", **values}, object_name="events", key="id"))[
        "events"
    ][0]


class TestUsers:
    def test_the_key_stands_beside_the_fields(self) -> None:
        request = only({"email": "a@b.co", "userId": 7, "name": "A", "address.city": "Ulm"})
        assert (request.method, request.url) == ("POST", "/api/users/bulkUpdate")
        assert sent(request) == {
            "users": [
                {
                    "email": "a@b.co",
                    "dataFields": {"userId": 7, "name": "A", "address": {"city": "Ulm"}},
                    "mergeNestedObjects": True,
                }
            ],
            "createNewFields": False,
        }

    def test_a_user_id_is_text_and_creates_a_user(self) -> None:
        settings = {"identify_by": "userId", "merge_nested_objects": False}
        (user,) = sent(only({"userId": 42, "email": "a@b.co"}, settings=settings, key="userId"))["users"]
        assert user == {
            "userId": "42",
            "dataFields": {"email": "a@b.co"},
            "mergeNestedObjects": False,
            "preferUserId": True,
        }

    def test_values_keep_what_they_are(self) -> None:
        values = {
            "when": datetime(2025, 3, 27, 18, 0, 0, 999_999, timezone(timedelta(hours=1))),
            "naive": datetime.fromisoformat("2025-03-27T17:00:00"),
            "day": date(2025, 3, 27),
            "big": 2**63 - 1,
            "huge": 2**80,
            "exact": Decimal("12345678901234567890.10"),
            "flag": False,
            "nothing": None,
            "list": [1, None, {"x": Decimal("0.10")}],
        }
        content = only({"email": "a@b.co", **values}).content or b""
        fields = json.loads(content, parse_float=Decimal)["users"][0]["dataFields"]
        assert fields == {
            **values,
            "when": "2025-03-27 17:00:00 +00:00",
            "naive": "2025-03-27 17:00:00 +00:00",
            "day": "2025-03-27",
        }
        assert b"12345678901234567890.10" in content
        assert fields["flag"] is False
        assert "nothing" in fields, "null clears a field: it is sent"

    @given(
        st.dictionaries(
            st.text(min_size=1).filter(lambda name: "." not in name and name != "email"),
            st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.decimals(**_FINITE),
            max_size=5,
        )
    )
    def test_any_value_arrives_exactly(self, values: dict[str, Any]) -> None:
        content = only({"email": "a@b.co", **values}).content or b""
        assert json.loads(content, parse_float=Decimal)["users"][0]["dataFields"] == values


class TestLists:
    def test_members_come_with_their_fields(self) -> None:
        request = only({"email": "a@b.co", "plan": "pro"}, object_name="lists/5", operation="insert")
        assert request.url == "/api/lists/subscribe"
        assert sent(request) == {
            "listId": 5,
            "subscribers": [{"email": "a@b.co", "dataFields": {"plan": "pro"}, "mergeNestedObjects": True}],
            "updateExistingUsersOnly": False,
        }

    def test_who_leaves_stays_subscribed_to_everything_else(self) -> None:
        request = only({"email": "a@b.co", "plan": "pro"}, object_name="lists/5", operation="delete")
        assert request.url == "/api/lists/unsubscribe"
        assert sent(request) == {"listId": 5, "subscribers": [{"email": "a@b.co"}], "channelUnsubscribe": False}


class TestEvents:
    def test_its_own_fields_stand_beside_the_others(self) -> None:
        assert event(createdAt=1_743_094_800, campaignId=9, total=Decimal("1.5"), userId=None) == {
            "id": "e1",
            "email": "a@b.co",
            "eventName": "Seen",
            "createdAt": 1_743_094_800,
            "campaignId": 9,
            "dataFields": {"total": 1.5},
            "createNewFields": False,
        }

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (datetime(2025, 3, 27, 17, tzinfo=UTC), 1_743_094_800),
            (datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC), -1),
            ("2025-03-27T18:00:00.5+01:00", 1_743_094_800),
            ("2025-03-27T17:00:00Z", 1_743_094_800),
            (date(2025, 3, 27), 1_743_033_600),
            (1_743_094_800, 1_743_094_800),
        ],
    )
    def test_a_moment_is_seconds(self, value: Any, seconds: int) -> None:
        assert event(createdAt=value)["createdAt"] == seconds

    @given(st.datetimes(timezones=st.just(UTC)))
    def test_any_moment_is_seconds(self, moment: datetime) -> None:
        text = wire_value(moment, connector().spec.wire_form)
        assert epoch_seconds(text) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)

    @pytest.mark.parametrize("value", ["soon", True, Decimal("1.5"), [1], "2025-13-01"])
    def test_what_is_no_moment_fails(self, value: Any) -> None:
        rows = [{"id": "e1", "email": "a@b.co", "eventName": "Seen", "createdAt": value}]
        requests, results = talk(rows, object_name="events", key="id")
        assert (requests, faults(results)) == ([], {"e1": ("TYPE_COERCION", None)})

    def test_one_without_id_has_the_same_one_whenever_it_is_sent(self) -> None:
        rows = [{"order": 1, "email": "a@b.co", "eventName": "Bought"}]
        made = [make_row(row, key="order", idempotency_key="of-the-intent") for row in rows]
        request = only(made, object_name="events", key="order", operation="insert")
        (sent_event,) = sent(request)["events"]
        assert sent_event["id"] == "of-the-intent"
        assert sent_event["dataFields"] == {"order": 1}
        assert connector().idempotent(Operation.INSERT)

    @pytest.mark.parametrize(
        ("row", "code"),
        [
            ({"id": "x", "email": "a@b.co"}, "MISSING_REQUIRED_FIELD"),
            ({"id": "x", "email": "a@b.co", "eventName": None}, "MISSING_REQUIRED_FIELD"),
            ({"id": "x", "eventName": "Seen", "email": None}, "MISSING_REQUIRED_FIELD"),
            ({"id": "é" * (EVENT_ID_BYTES // 2 + 1), "eventName": "Seen", "email": "a"}, "DESTINATION_VALIDATION"),
        ],
    )
    def test_what_an_event_must_have(self, row: Any, code: str) -> None:
        good = {"id": "good", "email": "a@b.co", "eventName": "Seen"}
        (request,), results = talk([row, good], counts(1), object_name="events", key="id", operation="insert")
        assert [each["id"] for each in sent(request)["events"]] == ["good"]
        assert faults(results) == {row["id"]: (code, None)}
        assert {result.key for result in results} == {row["id"], "good"}

    def test_one_that_replaces_another_needs_an_id(self) -> None:
        rows = [{"order": 1, "email": "a@b.co", "eventName": "Bought"}]
        _, results = talk(rows, object_name="events", key="order", operation="upsert")
        assert faults(results) == {"1": ("MISSING_REQUIRED_FIELD", None)}

    def test_it_has_one_user(self) -> None:
        both = {"id": "e1", "email": "a@b.co", "userId": 7, "eventName": "Seen"}
        by_id = sent(only(both, object_name="events", key="id", settings={"identify_by": "userId"}))["events"][0]
        assert (by_id.get("email"), by_id["userId"]) == (None, "7")
        assert event(userId=7).keys() >= {"email"}
        assert "userId" not in event(userId=7)


class TestCatalogs:
    def test_items_by_id(self) -> None:
        rows = [{"id": 1, "name": "A", "place.lat": 1.5}, {"id": "b-2", "name": None}]
        request = only(rows, ACCEPTED, object_name="catalogs/shops", key="id")
        assert (request.method, request.url) == ("POST", "/api/catalogs/shops/items")
        assert sent(request) == {
            "documents": {"1": {"name": "A", "place": {"lat": 1.5}}, "b-2": {"name": None}},
            "replaceUploadedFieldsOnly": True,
        }

    def test_ids_of_those_that_go(self) -> None:
        request = only([{"id": 1}, {"id": "b"}], ACCEPTED, object_name="catalogs/shops", key="id", operation="delete")
        assert (request.method, request.url, sent(request)) == (
            "DELETE",
            "/api/catalogs/shops/items",
            {"itemIds": ["1", "b"]},
        )

    def test_what_would_be_lost_without_a_word_fails_here(self) -> None:
        rows = [{"id": "a_b"}, {"id": "x" * 256}, {"id": "big", "text": "x" * ITEM_BYTES}, {"id": "ok"}]
        (request,), results = talk(rows, ACCEPTED, object_name="catalogs/shops", key="id")
        assert list(sent(request)["documents"]) == ["ok"]
        assert faults(results) == {
            "a_b": ("DESTINATION_VALIDATION", None),
            "x" * 256: ("DESTINATION_VALIDATION", None),
            "big": ("PAYLOAD_TOO_LARGE", None),
        }


@pytest.mark.parametrize(
    ("object_name", "key", "operation", "code"),
    [
        ("contacts", "email", "upsert", ErrorCode.SCHEMA_DRIFT),
        ("lists/buyers", "email", "upsert", ErrorCode.SCHEMA_DRIFT),
        ("catalogs/no such", "id", "upsert", ErrorCode.SCHEMA_DRIFT),
        ("users/7", "email", "upsert", ErrorCode.SCHEMA_DRIFT),
        ("users", "userId", "upsert", ErrorCode.CONFIGURATION),
        ("users", ("email", "userId"), "upsert", ErrorCode.CONFIGURATION),
        ("lists/5", "userId", "delete", ErrorCode.CONFIGURATION),
        ("lists/5", "email", "update", ErrorCode.CONFIGURATION),
        ("catalogs/shops", "sku", "upsert", ErrorCode.CONFIGURATION),
        ("catalogs/shops", "id", "update", ErrorCode.CONFIGURATION),
        ("events", "id", "delete", ErrorCode.CONFIGURATION),
        ("events", "id", "update", ErrorCode.CONFIGURATION),
    ],
)
def test_what_cannot_be_ends_the_run_before_a_request(
    object_name: str, key: Any, operation: str, code: ErrorCode
) -> None:
    names = (key,) if isinstance(key, str) else key
    row = dict.fromkeys(names, "x")
    with pytest.raises(DestinationError) as caught:
        talk([row], object_name=object_name, key=key, operation=operation)
    assert caught.value.code is code
    assert caught.value.hint


def test_a_request_above_the_limit_is_halved() -> None:
    rows = [{"email": f"{n}@example.com", "text": "x" * 400} for n in range(3)]
    with pytest.raises(DestinationError) as caught:
        talk(rows, settings={"batch_bytes": 1000})
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    _, results = talk([{"email": "a@b.co", "text": "x" * 1000}], settings={"batch_bytes": 1000})
    assert faults(results) == {"a@b.co": ("PAYLOAD_TOO_LARGE", None)}


def test_all_requests_may_be_sent_again() -> None:
    for operation in ("upsert", "delete", "update"):
        assert next(connector().write(batch([{"email": "a@b.co"}], operation=operation))).idempotent


def test_keys_compare_as_iterable_compares_them() -> None:
    by_email, by_id = connector(), connector(identify_by="userId")
    assert by_email.key_form("users") == by_email.key_form("lists/5") == KeyForm(ignore_case=True)
    assert {by_id.key_form(name) for name in ("users", "lists/5", "events", "catalogs/x")} == {KeyForm()}
    assert by_email.key_form("events") == by_email.key_form("catalogs/x") == KeyForm()


def test_rows_of_a_batch() -> None:
    assert connector().batch_rows_for(Operation.UPSERT) == 1000
    assert connector().batch_rows_for(Operation.DELETE) == connector().batch_rows_for(Operation.UPDATE) == 100
    assert connector(one_by_one=True).batch_rows == 100
    assert connector(batch_rows=30).batch_rows_for(Operation.DELETE) == 30
