"""Custom events of a fake Iterable. One with the id of another replaces it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster_retl.testing.fake_api import Call
from dagster_retl.testing.fake_iterable_fields import Fields, without
from dagster_retl.testing.fake_iterable_rules import answer, mismatch, refused
from dagster_retl.testing.fake_iterable_users import Failure, Users, bulk_answer, is_valid, name_of
from dagster_retl.testing.messages import Reply

_ID_BYTES = 512


class Events:
    """All events of a project, by id."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self.all: dict[str, dict[str, Any]] = {}
        self.fields: dict[str, Fields] = {}

    def track_many(self, call: Call) -> Reply:
        events = call.json().get("events", [])
        for event in events:
            self._require_good(event)
        disallowed = {event["eventName"] for event in events} & self._users.rules.disallowed_events
        taken = [event for event in events if event["eventName"] not in disallowed]
        outcomes = [self._take(event) for event in taken]
        failures = [each for each in outcomes if isinstance(each, Failure)]
        left_out = {name for each in outcomes if not isinstance(each, Failure) for name in each}
        body = bulk_answer(len(taken), failures, left_out, self._users.rules, disallowedEventNames=sorted(disallowed))
        return Reply.json({**body, "failCount": body["failCount"] + len(events) - len(taken)})

    def track_one(self, call: Call) -> Reply:
        event = call.json()
        self._require_good(event)
        became = self._take(event)
        if isinstance(became, Failure):
            raise refused("UnknownUserIdError", f"{became.kind} {became.named_by}: {became.value}")
        return answer("Success")

    def of_user(self, call: Call) -> Reply:
        events = [event for event in self.all.values() if event.get("email") == call.parts["email"]]
        return Reply.json({"events": events[: int(call.query.get("limit", 30))]})

    def _require_good(self, event: Mapping[str, Any]) -> None:
        """What refuses a whole request."""
        name_of(event)
        if not isinstance(event.get("eventName"), str):
            raise refused("BadParams", "eventName is required")
        if len(str(event.get("id") or "").encode()) > _ID_BYTES:
            raise refused("BadParams", f"id is longer than {_ID_BYTES} bytes")
        if not isinstance(event.get("createdAt") or 0, int):
            raise refused("BadParams", "createdAt must be a unix timestamp")
        types = self._fields(event).mismatches(event.get("dataFields") or {})
        if types:
            raise mismatch(types, "event")

    def _take(self, event: Mapping[str, Any]) -> Failure | set[str]:
        field, value = name_of(event)
        if not is_valid(field, value):
            return Failure("invalid", field, value)
        became = self._users.put({field: value}, new_fields=None)  # creates the user where the project can
        if isinstance(became, Failure):
            return Failure("forgotten" if became.kind == "forgotten" else "notFound", field, value)
        data, fields = event.get("dataFields") or {}, self._fields(event)
        says = event.get("createNewFields")
        allowed = self._users.rules.accepts_new_fields if says is None else says
        left_out = set() if allowed else fields.unknown(data)
        fields.learn(without(data, left_out))
        name = event.get("id") or f"made-{len(self.all)}"
        self.all[name] = {**event, "id": name, "dataFields": without(data, left_out)}
        return left_out

    def _fields(self, event: Mapping[str, Any]) -> Fields:
        return self.fields.setdefault(event["eventName"], Fields(most=8000))
