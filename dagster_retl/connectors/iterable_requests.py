"""The requests of the `iterable` connector: https://api.iterable.com/api/docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.iterable_config import IterableConfig, IterableRates
from dagster_retl.connectors.iterable_entries import Entry
from dagster_retl.connectors.iterable_objects import Kind, Target
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Operation

_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_ACCEPT = {"Accept": "application/json"}


def get(path: str, params: Mapping[str, str] | None = None) -> Request:
    """A request that changes nothing."""
    return Request("GET", path, _ACCEPT, params or {})


def send(method: str, path: str, body: Mapping[str, Any]) -> Request:
    """A request with a JSON body. All of them may be sent twice: users and items are put, events have ids."""
    return Request(method, path, _JSON, content=orjson.dumps(body))


def bulk(target: Target, operation: Operation, entries: Sequence[Entry], config: IterableConfig) -> Request:
    """One request for many rows."""
    return _BULK[target.kind](target, operation, [entry.body for entry in entries], config)


def _users(
    target: Target, operation: Operation, bodies: Sequence[Mapping[str, Any]], config: IterableConfig
) -> Request:
    return send("POST", "/api/users/bulkUpdate", {"users": bodies, "createNewFields": config.create_new_fields})


def _events(
    target: Target, operation: Operation, bodies: Sequence[Mapping[str, Any]], config: IterableConfig
) -> Request:
    return send("POST", "/api/events/trackBulk", {"events": bodies})


def _members(
    target: Target, operation: Operation, bodies: Sequence[Mapping[str, Any]], config: IterableConfig
) -> Request:
    body: dict[str, Any] = {"listId": int(target.name), "subscribers": bodies}
    if operation is Operation.DELETE:  # the other way to leave is close to an unsubscription from everything
        return send("POST", "/api/lists/unsubscribe", {**body, "channelUnsubscribe": False})
    return send("POST", "/api/lists/subscribe", {**body, "updateExistingUsersOnly": config.update_existing_users_only})


def _items(
    target: Target, operation: Operation, bodies: Sequence[Mapping[str, Any]], config: IterableConfig
) -> Request:
    path = f"/api/catalogs/{target.name}/items"
    documents = {name: fields for body in bodies for name, fields in body.items()}
    if operation is Operation.DELETE:
        return send("DELETE", path, {"itemIds": list(documents)})
    return send(
        "POST", path, {"documents": documents, "replaceUploadedFieldsOnly": config.replace_uploaded_fields_only}
    )


_BULK = {Kind.USERS: _users, Kind.EVENTS: _events, Kind.LISTS: _members, Kind.CATALOGS: _items}


def update_user(entry: Entry, config: IterableConfig) -> Request:
    """One user."""
    return send("POST", "/api/users/update", {**entry.body, "createNewFields": config.create_new_fields})


def get_user(field: str, name: str) -> Request:
    """A user's profile, by `email` or `userId`."""
    return get("/api/users/getByEmail" if field == "email" else "/api/users/byUserId", {field: name})


def delete_user(field: str, name: str) -> Request:
    """Raises `DestinationError` (`MISSING_KEY`) for a name that would address something else than a user."""
    if name in ("", ".", ".."):
        raise DestinationError(f"{field} is {name!r}, which addresses no user", code=ErrorCode.MISSING_KEY)
    folder = "/api/users" if field == "email" else "/api/users/byUserId"
    return Request("DELETE", f"{folder}/{quote(name, safe='')}", _ACCEPT)


def rate_of(method: str, path: str, rates: IterableRates) -> float | None:
    """Requests a second that the endpoint takes; None where it is not one that rows go to."""
    if method == "DELETE" and path.startswith("/api/users/"):
        return rates.deletes
    ends = {
        "/api/users/bulkUpdate": rates.users,
        "/api/users/update": rates.user,
        "/api/users/getByEmail": rates.deletes,
        "/api/users/byUserId": rates.deletes,
        "/api/events/trackBulk": rates.events,
        "/api/lists/subscribe": rates.lists,
        "/api/lists/unsubscribe": rates.lists,
    }
    return rates.catalogs if path.startswith("/api/catalogs/") else ends.get(path)
