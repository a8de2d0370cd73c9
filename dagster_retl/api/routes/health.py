"""Whether the API lives and can work, and its numbers. The first two ask for no key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from dagster_retl.api.answers import Answer
from dagster_retl.api.auth import Reader
from dagster_retl.api.context import Shared, shared
from dagster_retl.api.problems import ApiError
from dagster_retl.api.route import Route
from dagster_retl.errors import RetlError

router = APIRouter(route_class=Route, include_in_schema=False)

Held = Annotated[Shared, Depends(shared)]


@router.get("/healthz")
def healthz() -> Answer:
    """The process lives."""
    return Answer({"status": "ok"})


@router.get("/readyz")
def readyz(held: Held) -> Answer:
    """The store can be read."""
    try:
        held.service.store.revision()
    except (RetlError, SQLAlchemyError):
        raise ApiError(503, "the store cannot be read") from None
    return Answer({"status": "ready"})


@router.get("/metrics")
def metrics(key: Reader, held: Held) -> Response:
    """Prometheus's text format."""
    return Response(held.metrics.text(), media_type=CONTENT_TYPE_LATEST)
