"""Finding records by a field: queries that fit into an address, and what they answer, page by page.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_query.htm
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus

from dagster_retl.connectors.base import Exchange, Request
from dagster_retl.connectors.salesforce_api import Api, json_of, unreadable
from dagster_retl.errors import DestinationError, ErrorCode

MOST_ADDRESS = 8_000
"""Bytes of a query in an address: half of the 16 KB that Salesforce takes for address and headers together."""

_NAME = re.compile(r"\w+(\.\w+)*")

Record = Mapping[str, Any]


def queries(object_name: str, fields: Sequence[str], by: str, literals: Sequence[str]) -> Iterator[str]:
    """SOQL for the records whose field `by` is one of some literals, in as many queries as their length asks for.

    Raises `DestinationError` (`CONFIGURATION`) for a name that is none.
    """
    for name in (object_name, *fields, by):
        if not _NAME.fullmatch(name):
            raise DestinationError(f"{name!r} is no API name of Salesforce", code=ErrorCode.CONFIGURATION)
    head = f"SELECT {', '.join(fields)} FROM {object_name} WHERE {by} IN ("
    for part in _parts(literals, MOST_ADDRESS - len(quote_plus(head))):
        yield f"{head}{', '.join(part)})"


def _parts(literals: Sequence[str], room: int) -> Iterator[list[str]]:
    part: list[str] = []
    used = 0
    for literal in literals:
        size = len(quote_plus(literal)) + 4
        if part and used + size > room:
            yield part
            part, used = [], 0
        part.append(literal)
        used += size
    if part:
        yield part


def records_of(api: Api, soql: str) -> Exchange[list[Record]]:
    """All records that a query finds. Raises `DestinationError`."""
    answer = yield from api.get("query", {"q": soql})
    records = _page(answer)
    while answer.get("done") is False:
        answer = yield from _next_page(api, str(answer.get("nextRecordsUrl")))
        records += _page(answer)
    return records


def _next_page(api: Api, path: str) -> Exchange[Any]:
    """The page at a path that the last one named; it stays within the org."""
    if not path.startswith("/services/data/"):
        raise unreadable("a page of a query whose next one has no path")
    response = yield from api.ask(Request("GET", path))
    return json_of(api.require(response))


def _page(answer: Any) -> list[Record]:
    records = answer.get("records") if isinstance(answer, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise unreadable("JSON that is no page of a query")
    return records


def value_at(record: Any, path: str) -> Any:
    """What a record has in a field, or in a field of its parent; names are compared without case."""
    for name in path.lower().split("."):
        if not isinstance(record, Mapping):
            return None
        record = next((value for field, value in record.items() if field.lower() == name), None)
    return record
