"""What HubSpot says of its objects and their properties."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.hubspot_config import ASSOCIATION, Association
from dagster_retl.connectors.hubspot_lookup import is_email_of_contact
from dagster_retl.connectors.hubspot_paths import STANDARD_OBJECTS, Paths, standard_object
from dagster_retl.connectors.hubspot_wire import Require, body_of, get, results_of
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import FieldInfo, ObjectInfo

_NO_FIELDS = ("object_coordinates",)
"""Types of HubSpot's own bookkeeping."""


def discover_objects(paths: Paths, require: Require) -> Exchange[list[ObjectInfo]]:
    """Standard objects, and custom ones where the app may read their schemas."""
    response = yield get(paths.schemas())
    try:
        schemas, _ = results_of(require(response))
    except DestinationError as error:
        if error.code is not ErrorCode.PERMISSION:  # accounts without custom objects have no such scope
            raise
        schemas = []
    return objects_of(schemas)


def discover_fields(paths: Paths, require: Require, object_name: str) -> Exchange[list[FieldInfo]]:
    """The properties of an object; what a new record needs is known of custom objects only."""
    response = yield get(paths.properties(object_name), {"archived": "false"})
    properties, _ = results_of(require(response))
    required: Collection[str] = ()
    if standard_object(object_name) is None:
        schema = yield get(paths.schemas(object_name))
        required = body_of(require(schema)).get("requiredProperties") or ()
    return fields_of(object_name, properties, required)


def objects_of(schemas: Sequence[Mapping[str, Any]]) -> list[ObjectInfo]:
    """The standard objects, and the custom ones of these schemas."""
    standard = [ObjectInfo(each.plural, each.label) for each in STANDARD_OBJECTS]
    return [*standard, *(_custom_object(schema) for schema in schemas if not schema.get("archived"))]


def _custom_object(schema: Mapping[str, Any]) -> ObjectInfo:
    """By its full name: the short one is no longer understood where an account has such an object of another app."""
    labels = schema.get("labels") or {}
    name = str(schema.get("fullyQualifiedName") or schema.get("objectTypeId"))
    return ObjectInfo(name, str(labels.get("plural") or labels.get("singular") or schema.get("name") or name))


def fields_of(object_name: str, properties: Sequence[Mapping[str, Any]], required: Collection[str]) -> list[FieldInfo]:
    """The properties of an object. required: the names of those that a new record needs."""
    return [
        _field(object_name, each, required)
        for each in properties
        if not each.get("archived") and each.get("type") not in _NO_FIELDS
    ]


def _field(object_name: str, each: Mapping[str, Any], required: Collection[str]) -> FieldInfo:
    name = str(each["name"])
    read_only = bool((each.get("modificationMetadata") or {}).get("readOnlyValue"))
    writable = not read_only and not each.get("calculated")
    return FieldInfo(
        name=name,
        label=str(each.get("label") or name),
        data_type=str(each.get("type") or "unknown"),
        required=name in required,
        createable=writable,
        updateable=writable,
        external_id=bool(each.get("hasUniqueValue")) or is_email_of_contact(object_name, name),
    )


def association_fields(settings: Mapping[str, Association]) -> Iterator[FieldInfo]:
    """The fields that link to parents."""
    for name, setting in settings.items():
        yield FieldInfo(ASSOCIATION + name, f"{setting.object} by {setting.by}", "association")
