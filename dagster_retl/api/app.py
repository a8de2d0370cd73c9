"""The app: all endpoints under both base paths, with what is around them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagster_retl.api.answers import Answer
from dagster_retl.api.context import Shared
from dagster_retl.api.discovery import DiscoveryCache
from dagster_retl.api.docs_page import asset, docs_page
from dagster_retl.api.launching import Launcher
from dagster_retl.api.limits import RateLimiter
from dagster_retl.api.metrics import Metrics
from dagster_retl.api.openapi import openapi_of
from dagster_retl.api.problems import add_handlers
from dagster_retl.api.reloading import Reloader
from dagster_retl.api.routes import destinations, dlq, health, retired, runs, syncs
from dagster_retl.model.ids import new_id
from dagster_retl.model.project import Project
from dagster_retl.service import Service
from dagster_retl.webserver import Webserver

BASE = "/api/reverse-etl"
VERSIONED = f"/v1{BASE}"

RATE = 50.0
"""Requests a second of one key, unless said otherwise."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def create_app(
    project: Project,
    *,
    dagster_url: str = "http://127.0.0.1:3000",
    dagster_token: str | None = None,
    rate_limit: float = RATE,
) -> FastAPI:
    """The API of a project. rate_limit: requests a second of one key; twice as many may come at once."""
    app = FastAPI(
        title="dagster_retl",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.shared = _shared(project, dagster_url, dagster_token, rate_limit)
    for router in (retired.router, syncs.router, runs.router, destinations.router, dlq.router):
        app.include_router(router, prefix=BASE)
        app.include_router(router, prefix=VERSIONED, include_in_schema=False)
    app.include_router(health.router)
    for base in (BASE, VERSIONED):
        app.include_router(_pages(app, base), prefix=base, include_in_schema=False)
    add_handlers(app)
    app.add_middleware(_Frame, metrics=app.state.shared.metrics)
    return app


def _shared(project: Project, dagster_url: str, dagster_token: str | None, rate_limit: float) -> Shared:
    service = Service(project)
    webserver = Webserver(dagster_url, dagster_token)
    return Shared(
        service=service,
        webserver=webserver,
        launcher=Launcher(service, webserver),
        reloader=Reloader(webserver, project.project),
        discovery=DiscoveryCache(service),
        limiter=RateLimiter(rate_limit, max(1, round(2 * rate_limit))),
        metrics=Metrics(service),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    held: Shared = app.state.shared
    held.service.store.now()
    held.launcher.open()
    try:
        yield
    finally:
        held.launcher.close()
        held.discovery.close()
        held.webserver.close()
        held.service.close()


def _pages(app: FastAPI, base: str) -> APIRouter:
    """The OpenAPI document and its page, which need no key and nothing from elsewhere."""
    router = APIRouter()

    @router.get("/openapi.json")
    def openapi() -> Answer:
        return Answer(openapi_of(app))

    @router.get("/docs")
    def docs() -> HTMLResponse:
        return docs_page(base)

    @router.get("/docs/{name}")
    def docs_asset(name: str) -> Response:
        return asset(name)

    return router


class _Frame:
    """Around every request: its name, in and out, and how long it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Request(scope))
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            self._metrics.count(_method(scope), _pattern(scope), status, time.perf_counter() - began)


def _request_id(request: Request) -> str:
    """The client's own, where it is one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else new_id("req_")


def _pattern(scope: Scope) -> str:
    """The path of the route, so that there are as many as there are routes."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "unknown"))


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "OTHER"
