"""Finding records by the value of a property.

A property with unique values (contacts' `email` among them) is read directly; any other one is searched for, and may
have several records for a value. Search is slower (5 requests a second) and lags behind what was just written:
https://developers.hubspot.com/docs/api-reference/search/guide
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.hubspot_paths import CONTACTS, RECORD_ID, Paths, standard_object
from dagster_retl.connectors.hubspot_wire import Require, body_of, get, post, results_of, unreadable
from dagster_retl.errors import DestinationError, ErrorCode

EMAIL = "email"
_MORE_EMAILS = "hs_additional_emails"
"""A contact is found by each of its addresses; these are the others, joined by semicolons."""
_PAGE = 200

Found = Mapping[str, Any]
"""A record as HubSpot returns it: `id`, `properties`."""


def is_email_of_contact(object_name: str, name: str) -> bool:
    """Whether this is the property that is good enough to find and to upsert contacts, without being unique."""
    return name == EMAIL and standard_object(object_name) is CONTACTS


class RecordFinder:
    """Finds records, and remembers which properties are unique. Safe for threads."""

    def __init__(self, paths: Paths, require: Require) -> None:
        self._paths = paths
        self._require = require
        self._unique: dict[tuple[str, str], bool] = {}

    def is_unique(self, object_name: str, name: str) -> Exchange[bool]:
        """Whether no two records can have the same value of a property. Raises `SCHEMA_DRIFT` where there is none."""
        known = self._unique.get((object_name, name))
        if known is None:
            response = yield get(self._paths.properties(object_name, name))
            try:
                known = bool(body_of(self._require(response)).get("hasUniqueValue"))
            except DestinationError as error:
                if error.code is ErrorCode.NOT_FOUND:
                    raise _no_property(object_name, name, error) from error
                raise
            self._unique[object_name, name] = known
        return known

    def ids(self, object_name: str, name: str, values: Iterable[str]) -> Exchange[Mapping[str, Sequence[str]]]:
        """The ids of the records that have each value; a value that no record has is left out."""
        wanted = list(dict.fromkeys(values))
        records = yield from self.records(object_name, name, wanted)
        return {value: [str(each["id"]) for each in found] for value, found in index(records, name, wanted).items()}

    def records(
        self, object_name: str, name: str, values: Sequence[str], properties: Sequence[str] = ()
    ) -> Exchange[Sequence[Found]]:
        """The records that have one of these values (at most 100), with some of their properties."""
        if not values:
            return []
        by_email = is_email_of_contact(object_name, name)
        asked = [name, *([_MORE_EMAILS] if by_email else []), *properties]
        if name == RECORD_ID or by_email or (yield from self.is_unique(object_name, name)):
            return (yield from self._read(object_name, name, values, asked))
        return (yield from self._search(object_name, name, values, asked))

    def _read(
        self, object_name: str, name: str, values: Sequence[str], properties: Sequence[str]
    ) -> Exchange[Sequence[Found]]:
        how = {} if name == RECORD_ID else {"idProperty": name}
        inputs = [{"id": value} for value in values]
        body = {**how, "properties": properties, "inputs": inputs}
        response = yield post(self._paths.objects(object_name, "batch", "read"), body)
        results, errors = results_of(self._require(response))
        other = next((each for each in errors if each.get("category") != "OBJECT_NOT_FOUND"), None)
        if other is not None:
            raise DestinationError(
                f"HubSpot could not look up {object_name} by {name}: {other.get('message')}",
                code=ErrorCode.BATCH_REJECTED,
                vendor_code=other.get("category"),
            )
        return results

    def _search(
        self, object_name: str, name: str, values: Sequence[str], properties: Sequence[str]
    ) -> Exchange[Sequence[Found]]:
        texts = list(dict.fromkeys(value.strip().lower() for value in values))  # IN wants lower case
        body: dict[str, Any] = {
            "filterGroups": [{"filters": [{"propertyName": name, "operator": "IN", "values": texts}]}],
            "properties": properties,
            "limit": _PAGE,
        }
        found: list[Found] = []
        while True:
            response = self._require((yield post(self._paths.objects(object_name, "search"), body)))
            results, _ = results_of(response)
            found += results
            after = _next_page(response.content)
            if after is None:
                return found
            if not results:
                raise unreadable(response)
            body["after"] = after


def _next_page(content: bytes) -> str | None:
    paging = orjson.loads(content).get("paging") or {}
    after = (paging.get("next") or {}).get("after")
    return None if after is None else str(after)


def index(records: Iterable[Found], name: str, values: Sequence[str]) -> Mapping[str, Sequence[Found]]:
    """The records of each value: those that have exactly it, or else those that differ in case and blanks alone."""
    exact: dict[str, dict[str, Found]] = {}
    folded: dict[str, dict[str, Found]] = {}
    for record in records:
        for value in _values(record, name):
            exact.setdefault(value, {})[str(record["id"])] = record
            folded.setdefault(_fold(value), {})[str(record["id"])] = record
    pairs = ((value, exact.get(value) or folded.get(_fold(value))) for value in values)
    return {value: list(found.values()) for value, found in pairs if found}


def _fold(text: str) -> str:
    return text.strip().lower()


def _values(record: Found, name: str) -> Iterator[str]:
    if name == RECORD_ID:
        yield str(record["id"])
        return
    properties = record.get("properties") or {}
    if properties.get(name) is not None:
        yield str(properties[name])
    if name == EMAIL:
        yield from filter(None, str(properties.get(_MORE_EMAILS) or "").split(";"))


def _no_property(object_name: str, name: str, error: DestinationError) -> DestinationError:
    return DestinationError(
        f"HubSpot's {object_name} have no property {name!r}: {error.message}",
        code=ErrorCode.SCHEMA_DRIFT,
        vendor_code=error.vendor_code,
        hint="Correct the key of the sync, or `associations`; the name is the internal one, in lower case.",
    )
