"""Acme: people of an account.

API: https://docs.acme.example/v2, with a token. A request holds 50 people; 10 requests a second for the account, and
`Retry-After` says when there are more. How answers match rows: an answer to many people (207) has an entry for each of
them, which names it by its place in the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx
import orjson
from pydantic import SecretStr

from dagster_retl.connectors.base import Connector, ConnectorConfig, ConnectorSpec, Exchange, Request
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Account, Batch, Fault, FieldInfo, KeyForm, ObjectInfo, Operation, RowResult

CODES: Mapping[str, ErrorCode] = {
    "invalid": ErrorCode.DESTINATION_VALIDATION,
    "required": ErrorCode.MISSING_REQUIRED_FIELD,
    "unknown_person": ErrorCode.NOT_FOUND,
    "duplicate_email": ErrorCode.CONFLICT,
    "locked": ErrorCode.DESTINATION_LOCKED,
}


class AcmeConfig(ConnectorConfig):
    """An account at Acme."""

    base_url: str | None = "https://api.acme.example"
    """Address of the API."""
    token: SecretStr
    """A token with the scope `people:write`, from Settings > Developers."""


class AcmeAuth(httpx.Auth):
    """The token, in each request."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


class AcmeConnector(Connector):
    """An account at Acme."""

    connector_api: ClassVar[int] = 1
    spec: ClassVar[ConnectorSpec] = ConnectorSpec(
        name="acme",
        title="Acme",
        modes=frozenset({"upsert", "update", "delete", "mirror"}),
        batch_rows=50,
        rate_limit=10.0,
        discoverable=True,
        key_form=KeyForm(trim=True),
        matching="By place: each person of a request has an entry in the answer.",
        vendor_codes=CODES,
        documentation="https://docs.acme.example/v2",
    )
    Config: ClassVar[type[ConnectorConfig]] = AcmeConfig
    config: AcmeConfig

    def auth(self) -> httpx.Auth:
        return AcmeAuth(self.config.token)

    def check(self) -> Exchange[Account]:
        response = yield Request("GET", "/v2/me")
        account = _json(self.require_success(response))["account"]
        return Account(account["id"], account["name"])

    def objects(self) -> Exchange[list[ObjectInfo]]:
        yield from ()  # there is one, and nobody has to be asked
        return [ObjectInfo("people", "People")]

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        response = yield Request("GET", f"/v2/schema/{object_name}")
        found = _json(self.require_success(response))["fields"]
        return [
            FieldInfo(each["name"], each["name"], each["type"], each["required"], external_id=each["name"] == "id")
            for each in found
        ]

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        if not batch.rows:
            return []
        response = yield self._request(batch)
        entries = _json(self.require_success(response)).get("results")
        if not isinstance(entries, list):
            raise _unreadable("no results")
        by_place = {entry["index"]: entry for entry in entries}
        # A person without an entry gets no result: the engine takes that for an unknown outcome.
        return [_result(row.key, by_place[place]) for place, row in enumerate(batch.rows) if place in by_place]

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        try:
            error = orjson.loads(response.content)["error"]
            code, message = str(error["code"]), str(error["message"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None, f"HTTP {response.status_code} {response.reason_phrase}"
        return code, message.replace(self.config.token.get_secret_value(), "***")

    def _request(self, batch: Batch) -> Request:
        if batch.operation is Operation.DELETE:
            path, body = "/v2/people/delete", {"ids": [row.key_values["id"] for row in batch.rows]}
        else:
            path, body = f"/v2/people/{batch.operation.value}", {"people": [row.json for row in batch.rows]}
        return Request("POST", path, {"Content-Type": "application/json"}, content=orjson.dumps(body))


def _json(response: httpx.Response) -> dict[str, Any]:
    """An answer that is no JSON object says nothing: somebody else may have answered, and the rows may be written."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise _unreadable("something that is not JSON") from error
    if not isinstance(body, dict):
        raise _unreadable("JSON that is no object")
    return body


def _unreadable(what: str) -> DestinationError:
    return DestinationError(f"Acme answered with {what}", code=ErrorCode.DESTINATION_UNAVAILABLE, ambiguous=True)


def _result(key: str, entry: Mapping[str, Any]) -> RowResult:
    error = entry.get("error")
    if error is None:
        return RowResult(key, record_id=entry.get("id"))
    code = CODES.get(error["code"], ErrorCode.DESTINATION_VALIDATION)
    return RowResult(key, Fault(code, error["message"], error["code"]))
