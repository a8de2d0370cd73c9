"""From a row to what a request holds for it: users, members of lists, events, items of catalogs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from dagster_retl.connectors.http_url import text_of
from dagster_retl.connectors.iterable_config import IterableConfig
from dagster_retl.connectors.iterable_objects import ITEM_ID
from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import Fault, Operation, Row

EVENT_ID_BYTES = 512
ITEM_BYTES = 30_000
"""Bytes of one item of a catalog: https://api.iterable.com/api/docs#catalogs_bulkUpdateCatalogItems."""
_OF_EVENTS = ("email", "userId", "eventName", "id", "createdAt", "campaignId", "templateId")
"""Fields of an event that stand beside its `dataFields`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as it is sent. `fields` is the part of `body` that was mapped freely."""

    key: str
    body: Mapping[str, Any]
    fields: Mapping[str, Any]

    def named(self, field: str) -> set[str]:
        """The users that this row speaks of by `email` or `userId`, as `comparable` has them."""
        values = (self.body.get(field), self.fields.get(field))
        return {comparable(field, value) for value in values if isinstance(value, str | int)}


def comparable(field: str, value: Any) -> str:
    """A user's name as Iterable compares it: e-mail addresses without case."""
    return text_of(value).lower() if field == "email" else text_of(value)


def read_document(document: bytes) -> dict[str, Any]:
    """A row's fields, in which numbers keep their digits: those that no 64 bits hold stay as they are written."""
    fields: dict[str, Any] = json.loads(document, parse_float=orjson.Fragment, parse_int=_whole)
    return fields


def _whole(text: str) -> int | orjson.Fragment:
    number = int(text)
    return number if -(2**63) <= number < 2**64 else orjson.Fragment(text)


def user_name(row: Row, config: IterableConfig) -> str:
    """The `email` or `userId` of a row whose key it is."""
    return text_of(row.key_values[config.identify_by])


def user_entry(row: Row, document: bytes, config: IterableConfig) -> Entry:
    """A user, or a member of a list. Mapped e-mail addresses and ids that are not the key change the user's."""
    fields = read_document(document)
    fields.pop(config.identify_by, None)
    body = {
        config.identify_by: user_name(row, config),
        "dataFields": fields,
        "mergeNestedObjects": config.merge_nested_objects,
    }
    if config.identify_by == "userId":
        body["preferUserId"] = config.prefer_user_id
    return Entry(row.key, body, fields)


def member_entry(row: Row, config: IterableConfig) -> Entry:
    """A user who leaves a list."""
    return Entry(row.key, {config.identify_by: user_name(row, config)}, {})


def event_entry(row: Row, document: bytes, operation: Operation, config: IterableConfig) -> Entry | Fault:
    """An event. One that is inserted without an id gets the row's own, so that sending it twice is sending it once."""
    fields = read_document(document)
    mapped = {name: fields.pop(name) for name in _OF_EVENTS if name in fields}
    body = {name: value for name, value in mapped.items() if value is not None}
    if config.identify_by in body:
        body.pop("userId" if config.identify_by == "email" else "email", None)
    if operation is Operation.INSERT:
        body.setdefault("id", row.idempotency_key)
    missing = [name for name in ("eventName", "id") if name not in body]
    if missing or not {"email", "userId"} & body.keys():
        return Fault(
            ErrorCode.MISSING_REQUIRED_FIELD, f"an event needs {missing[0] if missing else config.identify_by}"
        )
    try:
        body |= _event_values(body)
    except ValueError as error:
        return Fault(ErrorCode.TYPE_COERCION, str(error))
    if len(body["id"].encode()) > EVENT_ID_BYTES:
        return Fault(ErrorCode.DESTINATION_VALIDATION, f"the event's id has more than {EVENT_ID_BYTES} bytes")
    return Entry(row.key, {**body, "dataFields": fields, "createNewFields": config.create_new_fields}, fields)


def _event_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event that have a type of their own. Raises `ValueError` saying which does not fit."""
    texts = {name: text_of(body[name]) for name in ("email", "userId", "id") if name in body}
    return texts | ({"createdAt": epoch_seconds(body["createdAt"])} if "createdAt" in body else {})


def epoch_seconds(value: Any) -> int:
    """A moment as seconds since 1970, from these or from text. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.fromisoformat(str(value).replace(" +", "+")) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError("field 'createdAt': the value is neither a timestamp nor seconds since 1970")
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


def item_entry(row: Row, document: bytes) -> Entry | Fault:
    """An item of a catalog. What is wrong with it is said here: the answer comes before Iterable looks at it."""
    fields = read_document(document)
    fields.pop("id", None)
    name = text_of(row.key_values["id"])
    if not ITEM_ID.fullmatch(name):
        message = f"the id {name!r} must be 1 to 255 letters, digits and dashes"
        return Fault(ErrorCode.DESTINATION_VALIDATION, message)
    size = len(orjson.dumps(fields))
    if size > ITEM_BYTES:
        return Fault(ErrorCode.PAYLOAD_TOO_LARGE, f"the item has {size:,} bytes; a catalog takes {ITEM_BYTES:,}")
    return Entry(row.key, {name: fields}, fields)
