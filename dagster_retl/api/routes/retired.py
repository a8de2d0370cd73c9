"""Syncs that are gone, of which something is kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from dagster_retl.api import examples, schemas
from dagster_retl.api.answers import Answer, Document, resource
from dagster_retl.api.auth import Reader
from dagster_retl.api.context import Shared, shared
from dagster_retl.api.openapi import documented
from dagster_retl.api.route import Route
from dagster_retl.api.visible import reachable_syncs
from dagster_retl.documents import rfc3339
from dagster_retl.service import RetiredView

router = APIRouter(route_class=Route, tags=["syncs"])


@router.get("/retired-syncs", **documented(schemas.RetiredList, examples.RETIRED, "List syncs that are gone"))
def list_retired(key: Reader, held: Annotated[Shared, Depends(shared)]) -> Answer:
    """Those that left the project's file or were deleted here, until `retl syncs purge` removes what is left."""
    service = held.service
    among = reachable_syncs(key, service)
    return Answer(
        {"data": [_resource(each) for each in service.retired() if among is None or each.retired.sync_id in among]}
    )


def _resource(view: RetiredView) -> Document:
    attributes = {
        "name": view.retired.name,
        "deleted_at": rfc3339(view.retired.deleted_at),
        "open_dead_letters": view.open_dead_letters,
    }
    return resource("reverse_etl_retired_sync", view.retired.sync_id, attributes)
