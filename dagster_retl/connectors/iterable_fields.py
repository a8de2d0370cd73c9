"""What there is in a project: its objects, and the fields that they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.iterable_objects import Kind, Target
from dagster_retl.connectors.iterable_reading import Check
from dagster_retl.connectors.iterable_requests import get
from dagster_retl.connectors.iterable_results import read_object
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import FieldInfo, ObjectInfo

_PAGE = 100
_READ_ONLY = ("createdAt", "devices", "itblInternal", "profileUpdatedAt")
"""Fields that Iterable manages: https://support.iterable.com/hc/articles/217744303."""


def find_objects(check: Check) -> Exchange[list[ObjectInfo]]:
    """Users, events, the lists and the catalogs of the project. Only static lists take members."""
    objects = [ObjectInfo("users", "Users"), ObjectInfo("events", "Custom events")]
    for each in (yield from _lists(check)):
        static = each.get("listType") == "Standard"
        objects.append(ObjectInfo(f"lists/{each['id']}", f"List: {each.get('name', '')}", static, static))
    names = yield from _catalogs(check)
    return [*objects, *(ObjectInfo(f"catalogs/{name}", f"Catalog: {name}") for name in names)]


def find_fields(target: Target, identify_by: str, check: Check) -> Exchange[list[FieldInfo]]:
    """The fields of an object; empty for events and for catalogs without fields, which take any.

    Raises `DestinationError`: `SCHEMA_DRIFT` for a list or a catalog that does not exist,
    `CONFIGURATION` for a list whose members follow from a query in Iterable.
    """
    if target.kind is Kind.EVENTS:
        return []
    if target.kind is Kind.CATALOGS:
        return (yield from _fields_of_catalog(target, check))
    if target.kind is Kind.LISTS:
        yield from _require_list(target, check)
    types = read_object(check((yield get("/api/users/getFields")))).get("fields")
    return list(_user_fields(types if isinstance(types, Mapping) else {}, identify_by))


def _user_fields(types: Mapping[str, Any], identify_by: str) -> Iterator[FieldInfo]:
    for name, kind in ({identify_by: "string", "email": "string", "userId": "string"} | dict(types)).items():
        key = name == identify_by
        writable = name.partition(".")[0] not in _READ_ONLY
        yield FieldInfo(name, name, str(kind), key, writable, writable, key)


def _fields_of_catalog(target: Target, check: Check) -> Exchange[list[FieldInfo]]:
    response = yield get(f"/api/catalogs/{target.name}/fieldMappings")
    try:
        body = read_object(check(response))
    except DestinationError as error:
        if error.code is ErrorCode.NOT_FOUND:
            raise _missing(f"catalog {target.name!r}") from error
        raise
    defined, undefined = body.get("definedMappings") or {}, body.get("undefinedFields") or []
    types = dict.fromkeys(undefined, "unknown") | dict(defined)
    if not types:
        return []
    fields = [FieldInfo(name, name, str(kind)) for name, kind in types.items() if name != "id"]
    return [FieldInfo("id", "id", "string", required=True, external_id=True), *fields]


def _require_list(target: Target, check: Check) -> Exchange[None]:
    lists = {str(each["id"]): each for each in (yield from _lists(check))}
    if target.name not in lists:
        raise _missing(f"list {target.name}")
    kind = lists[target.name].get("listType")
    if kind != "Standard":
        raise DestinationError(
            f"list {target.name} is of type {kind}: only static lists take members from outside",
            code=ErrorCode.CONFIGURATION,
            hint="Create a static list, and name its id.",
        )


def _missing(what: str) -> DestinationError:
    return DestinationError(
        f"the project has no {what}",
        code=ErrorCode.SCHEMA_DRIFT,
        hint="Is it in this project, and is its name or id spelt as Iterable has it?",
    )


def _lists(check: Check) -> Exchange[list[Mapping[str, Any]]]:
    body = read_object(check((yield get("/api/lists"))))
    return [each for each in body.get("lists") or [] if isinstance(each, Mapping) and "id" in each]


def _catalogs(check: Check) -> Exchange[list[str]]:
    names: list[str] = []
    page = 1
    while True:
        body = read_object(check((yield get("/api/catalogs", {"page": str(page), "pageSize": str(_PAGE)}))))
        found = [str(each["name"]) for each in body.get("catalogNames") or [] if isinstance(each, Mapping)]
        names += found
        if not found or not body.get("nextPageUrl"):
            return names
        page += 1
