"""Requests to an org's REST API, and what any answer says: an error in one of its dialects, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from dagster_retl.connectors.base import Exchange, Request
from dagster_retl.connectors.http_words import Wording, vendor_words
from dagster_retl.connectors.salesforce_errors import code_of_request
from dagster_retl.connectors.salesforce_usage import Usage
from dagster_retl.connectors.statuses import refused_redirect
from dagster_retl.errors import DestinationError, ErrorCode

_HINTS: Mapping[ErrorCode, str] = {
    ErrorCode.AUTH: "Was the app given the scope `api` (Manage user data via APIs), and is its user active?",
    ErrorCode.PERMISSION: "The app's user needs the permission API Enabled, and access to the object and its fields.",
    ErrorCode.SCHEMA_DRIFT: "Check the API names of the object and its fields, what the app's user may see of them, "
    "and `api_version`.",
}


class Api:
    """Makes requests and judges answers. version: such as `62.0`."""

    def __init__(self, version: str, wording: Wording, usage: Usage) -> None:
        self._root = f"/services/data/v{version}"
        self._wording = wording
        self._usage = usage

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        idempotent: bool = True,
        content_type: str = "application/json",
    ) -> Request:
        """A request below the version's root; `path` is quoted already."""
        headers = {"Content-Type": content_type} if body is not None else {}
        return Request(method, f"{self._root}/{path}", headers, params or {}, body, idempotent)

    def ask(self, request: Request) -> Exchange[httpx.Response]:
        """Send a request; what its answer says of limits is remembered. An error is an answer, too."""
        response = yield request
        self._usage.note(response)
        return response

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Exchange[Any]:
        """What a GET answers, as JSON with exact numbers. Raises `DestinationError`."""
        response = yield from self.ask(self.request("GET", path, params=params))
        return json_of(self.require(response))

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        """The vendor's code and message: `[{"errorCode", "message"}]`, or an OAuth error."""
        return vendor_words(response, self._wording)

    def clean(self, text: str) -> str:
        """The vendor's words, fit for a message."""
        return self._wording.clean(text)

    def require(self, response: httpx.Response) -> httpx.Response:
        """Return a 2xx response; raise the `DestinationError` that another one is."""
        if response.is_success:
            return response
        if response.is_redirect:
            raise refused_redirect(response)
        vendor_code, message = self.explain(response)
        code = code_of_request(response.status_code, vendor_code, message)
        raise DestinationError(
            message,
            code=code,
            vendor_code=vendor_code,
            ambiguous=response.status_code >= 500 or response.status_code == 408,
            hint=_HINTS.get(code),
        )


def json_of(response: httpx.Response) -> Any:
    """The body of a success; decimals keep their digits. Raises `DestinationError` (ambiguous) where it is no JSON."""
    try:
        return json.loads(response.content, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise unreadable("something that is not JSON") from error


def unreadable(what: str) -> DestinationError:
    """The error for an answer that leaves open what became of the rows."""
    return DestinationError(
        f"Salesforce answered with {what}: nobody can tell what became of the rows",
        code=ErrorCode.DESTINATION_UNAVAILABLE,
        ambiguous=True,
        hint="Is there a proxy, or a login page, in between?",
    )


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def dumps(value: Any) -> bytes:
    """A small document of our own as JSON."""
    return orjson.dumps(value)
