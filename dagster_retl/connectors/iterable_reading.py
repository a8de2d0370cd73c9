"""What Iterable holds now: users one by one, their membership of lists by their profile, items of catalogs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.http_url import text_of
from dagster_retl.connectors.http_words import dig
from dagster_retl.connectors.iterable_config import IterableConfig
from dagster_retl.connectors.iterable_entries import user_name
from dagster_retl.connectors.iterable_objects import ITEM_ID, Kind, Target
from dagster_retl.connectors.iterable_requests import get, get_user
from dagster_retl.connectors.iterable_results import read_object
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Row

Check = Callable[[httpx.Response], httpx.Response]
"""Returns an answer of 2xx, and raises what another one stands for."""
Record = Mapping[str, Any]
_NO_NAMES = ("InvalidEmailAddressError", "InvalidUserIdError")
"""Nobody can have a name for which Iterable answers so."""


def find_user(row: Row, config: IterableConfig, check: Check) -> Exchange[Record | None]:
    """A user's fields, `email` and `userId` among them; None where there is no such user."""
    response = yield get_user(config.identify_by, user_name(row, config))
    body = _found(response, check)
    user = body.get("user") if body else None  # an unknown user is an empty object
    if not isinstance(user, Mapping):
        return None
    fields = user.get("dataFields")
    own = {name: user[name] for name in ("email", "userId") if name in user}
    return {**(fields if isinstance(fields, Mapping) else {}), **own}


def find_item(row: Row, target: Target, check: Check) -> Exchange[Record | None]:
    """An item's fields and its `id`; None where there is no such item."""
    name = text_of(row.key_values["id"])
    if not ITEM_ID.fullmatch(name):
        return None
    body = _found((yield get(f"/api/catalogs/{target.name}/items/{name}")), check)
    value = body.get("value") if body else None
    return {**value, "id": name} if isinstance(value, Mapping) else None


def _found(response: httpx.Response, check: Check) -> Record | None:
    try:
        return read_object(check(response))
    except DestinationError as error:
        if error.code is ErrorCode.NOT_FOUND:
            return None
        raise


def read_record(row: Row, target: Target, config: IterableConfig, check: Check) -> Exchange[Record | None]:
    """What the row's record is now; a member of a list is a user whose profile names the list.

    Raises `DestinationError` (`CONFIGURATION`) for events, of which Iterable does not tell single ones.
    """
    if target.kind is Kind.EVENTS:
        raise DestinationError("Iterable does not tell single events", code=ErrorCode.CONFIGURATION)
    if target.kind is Kind.CATALOGS:
        return (yield from find_item(row, target, check))
    try:
        user = yield from find_user(row, config, check)
    except DestinationError as error:
        if error.vendor_code in _NO_NAMES:
            return None
        raise
    if user is None or target.kind is Kind.USERS:
        return user
    return user if target.name in map(str, user.get("emailListIds") or ()) else None


def chosen(record: Record, fields: Sequence[str]) -> Record:
    """The fields that were asked for, nested ones by their dotted names; null where the record has none."""
    return {name: record.get(name, dig(record, name)) for name in fields}
