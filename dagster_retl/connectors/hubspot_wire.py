"""Requests to HubSpot and the bodies that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import orjson

from dagster_retl.connectors.base import Request
from dagster_retl.errors import DestinationError, ErrorCode

Require = Callable[[httpx.Response], httpx.Response]
"""Returns a successful response; raises the `DestinationError` that any other one is."""

_HEADERS = {"Accept": "application/json", "Content-Type": "application/json"}


def get(url: str, params: Mapping[str, str] | None = None) -> Request:
    """A request that reads."""
    return Request("GET", url, {"Accept": "application/json"}, params or {})


def post(url: str, body: Mapping[str, Any], *, idempotent: bool = True) -> Request:
    """A request with a body of JSON; idempotent: whether it may be sent twice."""
    return Request("POST", url, _HEADERS, content=orjson.dumps(body), idempotent=idempotent)


def body_of(response: httpx.Response) -> Mapping[str, Any]:
    """The JSON object of a successful response. Raises an ambiguous `DestinationError` where it is none."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, Mapping):
        raise unreadable(response)
    return body


def results_of(response: httpx.Response) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """`results` and `errors` of the answer to a batch or a search. Raises as `body_of`, where there are no results."""
    body = body_of(response)
    return _objects(body.get("results"), response), _objects(body.get("errors") or [], response)


def _objects(value: Any, response: httpx.Response) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise unreadable(response)
    return value


def unreadable(response: httpx.Response) -> DestinationError:
    """A success that does not say what became of what was sent."""
    kind = response.headers.get("Content-Type", "no content type").partition(";")[0][:60]
    return DestinationError(
        f"HubSpot answered {response.status_code} with something that is no answer ({kind}): "
        "nobody can tell what became of the rows",
        code=ErrorCode.DESTINATION_UNAVAILABLE,
        ambiguous=True,
        hint="Check `base_url`, and that no proxy answers in HubSpot's place.",
    )
