"""What an answer says of each row of a bulk request: Iterable names those that failed by user, not by position.

One user may stand behind several rows, and a row may speak of two users; then, and where it counts more failures
than it names, the counts do not fit. Nobody can tell then which rows failed, so that the request is halved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import orjson

from dagster_retl.connectors.iterable_entries import Entry, comparable
from dagster_retl.connectors.iterable_words import FAILURES, NAMES
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Fault, RowResult


def unreadable(what: str) -> DestinationError:
    """The error for an answer of 2xx that says nothing of the rows."""
    return DestinationError(
        f"Iterable answered with {what}: nobody can tell what became of the rows",
        code=ErrorCode.DESTINATION_UNAVAILABLE,
        ambiguous=True,
    )


def read_object(response: httpx.Response) -> Mapping[str, Any]:
    """The body of an answer of 2xx. Raises an ambiguous `DestinationError` where it is no JSON object."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise unreadable("something that is not JSON") from error
    if not isinstance(body, Mapping):
        raise unreadable("JSON that is no object")
    return body


def read_bulk(entries: Sequence[Entry], response: httpx.Response) -> list[RowResult]:
    """One result for each entry, in order.

    Raises `DestinationError`, ambiguous: `BATCH_REJECTED` where the counts do not fit the rows that are
    named, `DESTINATION_UNAVAILABLE` for an answer that cannot be read.
    """
    body = read_object(response)
    succeeded, failed = _count(body, "successCount"), _count(body, "failCount")
    faults = dict(_faults(entries, body))
    fitting = len(faults) == failed and succeeded + failed >= len(entries)
    if not fitting and len(entries) > 1:
        raise DestinationError(
            f"Iterable counts {succeeded} rows as written and {failed} as failed, of {len(entries)}, "
            f"and names {len(faults)} that failed",
            code=ErrorCode.BATCH_REJECTED,
            ambiguous=True,
        )
    if not fitting and not faults:
        faults[0] = _unnamed(failed)
    left_out = _texts(body, "filteredOutFields")
    return [
        RowResult(entry.key, faults.get(place), warning=None if place in faults else _warning(entry, left_out))
        for place, entry in enumerate(entries)
    ]


def _count(body: Mapping[str, Any], name: str) -> int:
    count = body.get(name)
    if not isinstance(count, int) or isinstance(count, bool):
        raise unreadable(f"an object without {name}")
    return count


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    values = body.get(name)
    return [str(value) for value in values] if isinstance(values, list) else []


def _unnamed(failed: int) -> Fault:
    if failed:
        return Fault(ErrorCode.DESTINATION_VALIDATION, "Iterable counts this row as failed and does not say why")
    return Fault(ErrorCode.UNKNOWN, "Iterable counts this row neither as written nor as failed")


def _faults(entries: Sequence[Entry], body: Mapping[str, Any]) -> Iterator[tuple[int, Fault]]:
    """Places of rows that failed, and why. A user is named in one list for what is wrong, and again in an old one."""
    seen: set[int] = set()
    places = {field: _places(entries, field) for field, _ in NAMES.values()}
    for field, value, fault in _named_failures(body):
        for place in places[field][comparable(field, value)]:
            if place not in seen:
                seen.add(place)
                yield place, fault
    disallowed = set(_texts(body, "disallowedEventNames"))
    for place, entry in enumerate(entries):
        if place not in seen and entry.body.get("eventName") in disallowed:
            message = f"the project does not take events named {entry.body['eventName']!r}"
            yield place, Fault(ErrorCode.DESTINATION_VALIDATION, message, "disallowedEventNames")


def _named_failures(body: Mapping[str, Any]) -> Iterator[tuple[str, str, Fault]]:
    """Field, value and fault of each user that an answer names; those of the old lists last."""
    details = body.get("failedUpdates")
    for source in (details if isinstance(details, Mapping) else {}, body):
        for kind, (code, message) in FAILURES.items():
            for end, (field, what) in NAMES.items():
                fault = Fault(code, message.format(what=what), f"{kind}{end}")
                yield from ((field, value, fault) for value in _texts(source, f"{kind}{end}"))


def _places(entries: Sequence[Entry], field: str) -> Mapping[str, list[int]]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, entry in enumerate(entries):
        for value in entry.named(field):
            places[value].append(place)
    return places


def _warning(entry: Entry, left_out: Sequence[str]) -> str | None:
    fields = [name for name in left_out if _has(entry.fields, name)]
    if not fields:
        return None
    return f"Iterable left out {', '.join(fields)}: the project has no such field, and creates none"


def _has(fields: Any, path: str) -> bool:
    """Whether a row has a field; that of an object inside it by a dotted name."""
    if not isinstance(fields, Mapping):
        return False
    first, dot, rest = path.partition(".")
    return path in fields or (bool(dot) and _has(fields.get(first), rest))
