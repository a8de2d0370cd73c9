"""What the API says when it cannot do what it is asked: one envelope for everything.

{"error": {"code": …, "message": …, "details": [{"field": …, "code": …, "message": …}], "request_id": …}}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from dagster_retl.api.answers import Answer
from dagster_retl.errors import (
    ConfigurationError,
    ConflictError,
    DestinationError,
    ErrorCode,
    LeaseHeldError,
    NotFoundError,
    RetlError,
    SourceError,
    StoreError,
    VersionMismatchError,
)
from dagster_retl.model.problems import dotted
from dagster_retl.syncs.definition import InvalidSyncError
from dagster_retl.webserver import WebserverError

_LOG = logging.getLogger(__name__)

CODES: Mapping[int, str] = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "VALIDATION",
    429: "RATE_LIMITED",
    500: "INTERNAL",
    502: "UPSTREAM",
    503: "UNAVAILABLE",
}
"""The code of each status."""


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing that is wrong: `field` is its place (dotted), `id` what is in the way, if anything."""

    field: str
    code: str
    message: str
    id: str | None = None

    def document(self) -> dict[str, str]:
        """As the envelope has it."""
        said = {"field": self.field, "code": self.code, "message": self.message}
        return said if self.id is None else {**said, "id": self.id}


@dataclass(eq=False)
class ApiError(Exception):
    """The answer to a request that fails."""

    status: int
    message: str
    details: Sequence[Detail] = ()
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def answer(self, request: Request) -> Response:
        """The envelope."""
        error = {
            "code": self.code or CODES.get(self.status, "ERROR"),
            "message": self.message,
            "details": [detail.document() for detail in self.details],
            "request_id": request_id_of(request),
        }
        headers = {**self.headers, "X-Request-Id": request_id_of(request)}
        return Answer({"error": error}, self.status, headers)


def request_id_of(request: Request) -> str:
    """The request's own name, as in the header X-Request-Id."""
    return str(getattr(request.state, "request_id", ""))


def invalid(field_name: str, code: str, message: str) -> ApiError:
    """A request that says something that cannot be."""
    return ApiError(422, f"{field_name}: {message}", [Detail(field_name, code, message)])


def problem_of(error: RetlError) -> ApiError:
    """What an error of the package is to a client of the API."""
    if isinstance(error, InvalidSyncError):
        details = [Detail(dotted(each.loc) or "sync", each.kind, each.message) for each in error.mistakes]
        return ApiError(422, error.message, details)
    if isinstance(error, VersionMismatchError):
        return ApiError(412, str(error))
    if isinstance(error, ConflictError):
        details = [Detail("", "conflict", error.message, error.subject)] if error.subject else []
        return ApiError(409, _one_line(error), details)
    if isinstance(error, LeaseHeldError):
        return ApiError(409, _one_line(error), [Detail("", "conflict", error.message, error.run_id)])
    return ApiError(_status_of(error), _one_line(error), code=_code_of(error))


_STATUSES: Sequence[tuple[type[RetlError], int]] = (
    (NotFoundError, 404),
    (DestinationError, 502),
    (WebserverError, 503),
    (StoreError, 503),
    (SourceError, 422),
    (ConfigurationError, 422),
)


def _status_of(error: RetlError) -> int:
    if error.code is ErrorCode.SOURCE_UNAVAILABLE:
        return 502
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def _code_of(error: RetlError) -> str:
    """Where the warehouse or the destination is to blame, its error's code says more than the status."""
    return error.code.value if isinstance(error, (DestinationError, SourceError)) else ""


def _one_line(error: RetlError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message


def add_handlers(app: FastAPI) -> None:
    """Have the app answer every failure with the envelope."""
    app.add_exception_handler(ApiError, _on_problem)
    app.add_exception_handler(RetlError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_crash)


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - what it was registered for
    return error.answer(request)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RetlError)  # noqa: S101 - what it was registered for
    problem = problem_of(error)
    if problem.status == 500:
        _LOG.error("request %s failed: %s", request_id_of(request), error)
    return problem.answer(request)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it was registered for
    details = [Detail(dotted(each["loc"][1:]), each["type"], _message(each)) for each in error.errors()]
    return ApiError(422, "; ".join(f"{each.field}: {each.message}" for each in details), details).answer(request)


def _message(details: Mapping[str, Any]) -> str:
    return str(details["msg"]).removeprefix("Value error, ")


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it was registered for
    messages = {404: f"there is no {request.url.path}", 405: f"{request.method} is not possible here"}
    message = messages.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return ApiError(error.status_code, message, headers=headers).answer(request)


def _methods(request: Request) -> list[str]:
    """What is possible at the path, of all its routes; Starlette tells those of the first alone."""
    found = set()
    for method in ("GET", "POST", "PUT", "DELETE"):
        scope = {**request.scope, "method": method}
        found |= {method for route in request.app.routes if route.matches(scope)[0] is Match.FULL}
    return sorted(found)


def _on_crash(request: Request, error: Exception) -> Response:
    """Nothing of the error is told: what lies behind it may hold secrets. The server logs it."""
    return ApiError(500, "something went wrong in the server; its log says what").answer(request)
