"""Destinations, their objects and fields."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from dagster_retl.api import examples, schemas
from dagster_retl.api.answers import Answer, Document, resource
from dagster_retl.api.auth import Reader, require_destination
from dagster_retl.api.context import Shared, shared
from dagster_retl.api.discovery import Known
from dagster_retl.api.documents import field_resource, object_resource
from dagster_retl.api.openapi import documented
from dagster_retl.api.problems import ApiError
from dagster_retl.api.route import Route
from dagster_retl.connectors.registry import connector_class
from dagster_retl.documents import rfc3339
from dagster_retl.model.project import Destination
from dagster_retl.store.api_keys import ApiKey

router = APIRouter(route_class=Route, tags=["destinations"])

Held = Annotated[Shared, Depends(shared)]


@router.get("/destinations", **documented(schemas.DestinationList, examples.DESTINATIONS, "List destinations"))
def list_destinations(key: Reader, held: Held, connector: str | None = None) -> Answer:
    """The destinations of the project, and whether they answer."""
    found = [
        destination
        for destination in held.service.project.destinations.values()
        if key.reaches(destination.id) and connector in (None, destination.connector)
    ]
    statuses = held.discovery.statuses([destination.id for destination in found])
    return Answer({"data": [_destination(destination, statuses[destination.id]) for destination in found]})


def _destination(destination: Destination, status: str) -> Document:
    attributes = {
        "name": destination.name,
        "connector": destination.connector,
        "status": status,
        "objects_discoverable": connector_class(destination.connector).spec.discoverable,
    }
    return resource("reverse_etl_destination", destination.id, attributes)


@router.get("/objects", **documented(schemas.ObjectList, examples.OBJECTS, "List destination objects"))
def list_objects(key: Reader, held: Held, destination_id: str, search: str | None = None) -> Answer:
    """Objects that can be written to; `search` filters label and API name, whatever their case."""
    _require(key, held, destination_id)
    known = held.discovery.objects(destination_id)
    wanted = (search or "").lower()
    shown = [info for info in known.value if wanted in info.api_name.lower() or wanted in info.label.lower()]
    return Answer({"data": [object_resource(info) for info in shown], "meta": _meta(known)})


@router.get("/fields", **documented(schemas.FieldList, examples.FIELDS, "List object fields"))
def list_fields(key: Reader, held: Held, destination_id: str, object_name: str) -> Answer:
    """The fields of an object, their types, and how they may be written."""
    _require(key, held, destination_id)
    _require_object(held, destination_id, object_name)
    known = held.discovery.fields(destination_id, object_name)
    return Answer({"data": [field_resource(info) for info in known.value], "meta": _meta(known)})


def _require(key: ApiKey, held: Shared, destination_id: str) -> None:
    require_destination(key, destination_id, f"destination {destination_id!r}")
    held.service.project.destination(destination_id)


def _require_object(held: Shared, destination_id: str, object_name: str) -> None:
    """Where the destination lists its objects, others are not there; without a list nobody can tell."""
    names = {info.api_name.lower() for info in held.discovery.objects(destination_id).value}
    if names and object_name.lower() not in names:
        raise ApiError(404, f"destination {destination_id!r} has no object {object_name!r}")


def _meta(known: Known[Any]) -> Document:
    return {"stale": known.stale, "discovered_at": rfc3339(known.at)}
