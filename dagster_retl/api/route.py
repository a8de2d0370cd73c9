"""What every endpoint does before its own work: tidy the query, and answer a repeated POST as the first time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from dagster_retl.api.auth import caller_of
from dagster_retl.api.bodies import is_text, read_bytes, tidy_query
from dagster_retl.api.context import shared
from dagster_retl.api.problems import ApiError, Detail
from dagster_retl.store.idempotency import Earlier

Handler = Callable[[Request], Awaitable[Response]]

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("etag", "location")


class Route(APIRoute):
    """An endpoint of the API."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()
        known = frozenset(parameter.alias for parameter in self.dependant.query_params)

        async def tidy(request: Request) -> Response:
            request.scope["query_string"] = tidy_query(request.scope["query_string"], known)
            if not all(map(is_text, request.path_params.values())):
                raise ApiError(404, "there is nothing of that name")
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or key is None:
                return await handle(request)
            return await _once(request, key, handle)

        return tidy


async def _once(request: Request, key: str, handle: Handler) -> Response:
    """Do it, or give the answer again that it had."""
    if not _KEY.fullmatch(key):
        raise ApiError(400, "Idempotency-Key must be 1 to 255 visible ASCII characters")
    caller = (await run_in_threadpool(caller_of, request)).id
    keys = shared(request).service.store.idempotency
    earlier = await run_in_threadpool(keys.begin, caller, key, await _digest(request))
    if earlier is not None:
        return _again(earlier, await _digest(request))
    try:
        response = await handle(request)
    except BaseException:
        await run_in_threadpool(keys.release, caller, key)
        raise
    await run_in_threadpool(keys.answer, caller, key, response.status_code, _packed(response))
    return response


async def _digest(request: Request) -> str:
    said = f"{request.method} {request.url.path}\n".encode() + await read_bytes(request)
    return hashlib.sha256(said).hexdigest()


def _packed(response: Response) -> str:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return json.dumps({"headers": headers, "body": bytes(response.body).decode()})


def _again(earlier: Earlier, digest: str) -> Response:
    if earlier.request != digest:
        message = "this Idempotency-Key came before with another request"
        raise ApiError(422, message, [Detail("idempotency-key", "reused", message)])
    if earlier.status is None or earlier.answer is None:
        raise ApiError(409, "a request with this Idempotency-Key is still being answered")
    packed = json.loads(earlier.answer)
    headers = {**packed["headers"], "Idempotent-Replayed": "true"}
    return Response(packed["body"], earlier.status, headers, "application/json")
