"""Who asks, and what they may do: bearer keys with scopes and, perhaps, destinations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dagster_retl.api.context import Shared, shared
from dagster_retl.api.problems import ApiError, Detail
from dagster_retl.errors import NotFoundError
from dagster_retl.store.api_keys import ApiKey, Scope

BEARER = HTTPBearer(
    scheme_name="key",
    description="A key of `retl keys create`. Scopes: read, write, run.",
    auto_error=False,
)


def actor_of(key: ApiKey) -> str:
    """How the audit names the key."""
    return f"api:{key.name} ({key.id})"


def caller_of(request: Request) -> ApiKey:
    """The key of a request, looked up once. Raises `ApiError`: 401, or 429 when it asks too often."""
    known: ApiKey | None = getattr(request.state, "caller", None)
    if known is None:
        request.state.caller = known = _admit(request, shared(request))
    return known


def _admit(request: Request, held: Shared) -> ApiKey:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    key = held.service.store.api_keys.authenticate(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        message = "send `Authorization: Bearer KEY` with a key that `retl keys create` made and nobody revoked"
        raise ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})
    waits = held.limiter.take(key.id)
    if waits:
        seconds = math.ceil(waits)
        raise ApiError(429, f"too many requests: try again in {seconds} s", headers={"Retry-After": str(seconds)})
    return key


def _may(scope: Scope) -> Callable[..., ApiKey]:
    def check(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]) -> ApiKey:
        key = caller_of(request)
        if scope not in key.scopes:
            message = f"this key lacks the scope `{scope.value}`"
            raise ApiError(403, message, [Detail("authorization", "scope", message)])
        return key

    return check


Reader = Annotated[ApiKey, Depends(_may(Scope.READ))]
Writer = Annotated[ApiKey, Depends(_may(Scope.WRITE))]
Runner = Annotated[ApiKey, Depends(_may(Scope.RUN))]


def require_destination(key: ApiKey, destination_id: str | None, what: str) -> None:
    """Raises `NotFoundError`, as of a thing that is not there, when the key may not reach its destination."""
    if not key.reaches(destination_id):
        raise NotFoundError(f"there is no {what}")
