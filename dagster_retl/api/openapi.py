"""The OpenAPI document: what FastAPI sees, and what it cannot see of bodies, problems and headers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from dagster_retl.api import examples
from dagster_retl.api.attributes import ProblemEnvelope
from dagster_retl.api.problems import CODES
from dagster_retl.model.json_schema import sync_schemas

_REF = "#/components/schemas/"

_DESCRIPTION = """\
Reverse ETL: a query on the warehouse, its rows mapped onto the fields of a destination object, and only what changed
written there.

Authenticate with `Authorization: Bearer KEY`; `retl keys create` makes keys. Names in requests may be written in
camelCase or snake_case; answers use snake_case. Times are UTC. A POST with an `Idempotency-Key` is done once, and
answered again for 24 hours. Lists are read with `limit` and `cursor`. Every failure has the same envelope.
"""

_REQUEST_ID = {"X-Request-Id": {"description": "The request's own name, in logs too.", "schema": {"type": "string"}}}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A request that comes again with the same key is answered as before, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": 'The `ETag` of the version that this changes, such as `"3"`; another version answers 412.',
    "schema": {"type": "string", "pattern": r'^("[0-9]{1,9}"|\*)$'},
}

_MEANINGS: Mapping[int, str] = {
    400: "Not JSON, or a cursor of another list",
    401: "No key, or one that was revoked",
    403: "The key lacks a scope, or a destination",
    404: "There is no such thing",
    409: "It does not go with how things stand; `details[].id` is what is in the way",
    412: "The sync has another version by now",
    413: "The body is too large",
    415: "The body is not `application/json`",
    422: "Something that is said cannot be; `details` names each place",
    429: "Too many requests; `Retry-After` says when",
    500: "A mistake of the server",
    502: "The destination or the warehouse does not answer",
    503: "Dagster or the store does not answer",
}


def documented(
    answer: type[BaseModel], example: Mapping[str, Any], summary: str, *, body: str | None = None, status: int = 200
) -> dict[str, Any]:
    """What the document says of an endpoint. body: the name of the schema of its request's body."""
    content = {"application/json": {"example": example}}
    said: dict[str, Any] = {"summary": summary}
    if body is not None:
        media = {"schema": {"$ref": _REF + body}, "example": examples.BODIES[body]}
        said["requestBody"] = {"required": body != "PlanBody", "content": {"application/json": media}}
    return {
        "response_model": answer,
        "responses": {status: {"content": content, "description": "All is well"}},
        "openapi_extra": said,
    }


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The document of an app, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _document(app)
    return app.openapi_schema


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="dagster_retl", version=version("dagster-retl"), description=_DESCRIPTION, routes=app.routes
    )
    document["servers"] = [{"url": "/"}, {"url": "/v1", "description": "The same, with a version in front"}]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= _problem_schemas() | sync_schemas() | _body_schemas()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method)
    return document


def _problem_schemas() -> dict[str, Any]:
    schema = ProblemEnvelope.model_json_schema(ref_template=_REF + "{model}")
    inner: dict[str, Any] = schema.pop("$defs")
    return {**inner, "ProblemEnvelope": schema}


@cache
def _body_models() -> dict[str, type[BaseModel]]:
    from dagster_retl.api.routes.dlq import ResolveBody  # noqa: PLC0415 - the routes describe themselves with this
    from dagster_retl.api.routes.runs import RunBody  # noqa: PLC0415
    from dagster_retl.api.routes.syncs import PlanBody, Toggle  # noqa: PLC0415

    return {model.__name__: model for model in (PlanBody, ResolveBody, RunBody, Toggle)}


def _body_schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for name, model in _body_models().items():
        schemas[name] = model.model_json_schema(ref_template=_REF + "{model}")
        schemas |= schemas[name].pop("$defs", {})
    schemas["RunBody"]["oneOf"] = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in ("sync_id", "sync_ids")
    ]
    return schemas


def _complete(operation: dict[str, Any], path: str, method: str) -> None:
    """Add what every endpoint answers when it cannot do what it is asked, and the headers that it reads."""
    parameters = operation.setdefault("parameters", [])
    if method == "post":
        parameters.append(_IDEMPOTENCY_KEY)
    if method in ("put", "delete"):
        parameters.append(_IF_MATCH)
    responses = operation["responses"]
    for response in responses.values():
        response.setdefault("headers", {}).update(_REQUEST_ID)
    for status in _statuses(path, method, has_body="requestBody" in operation):
        responses[str(status)] = _problem(status)


def _statuses(path: str, method: str, *, has_body: bool) -> list[int]:
    found = [400, 401, 403, 404, 422, 429, 500, 502, 503]
    found += [413, 415] if has_body else []
    found += [409] if method != "get" or path.endswith("versions") else []
    found += [412] if method in ("put", "delete") else []
    return sorted(found)


def _problem(status: int) -> dict[str, Any]:
    error = {
        "code": CODES[status],
        "message": _MEANINGS[status],
        "details": [],
        "request_id": "req_01j9k8v9v0w1x2y3z4a5b6c7d8",
    }
    headers = dict(_REQUEST_ID)
    if status == 429:
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "string"}}
    media = {"schema": {"$ref": _REF + "ProblemEnvelope"}, "example": {"error": error}}
    return {"description": _MEANINGS[status], "headers": headers, "content": {"application/json": media}}
