"""The search of a fake HubSpot: by equality, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster_retl.testing.fake_hubspot_records import Record, Records
from dagster_retl.testing.fake_hubspot_rules import HubSpotProblemError, ObjectType
from dagster_retl.testing.messages import Reply

_MOST_ON_A_PAGE = 200


def search(records: Records, kind: ObjectType, body: Mapping[str, Any]) -> Reply:
    """Records that fit all filters of a group. Raises `HubSpotProblemError` for what it does not understand."""
    limit, after = int(body.get("limit") or 10), int(body.get("after") or 0)
    if limit > _MOST_ON_A_PAGE:
        raise HubSpotProblemError(400, f"The maximum page size is {_MOST_ON_A_PAGE}")
    groups = [group["filters"] for group in body.get("filterGroups") or [{"filters": []}]]
    for each in (each for group in groups for each in group):
        if each["propertyName"] not in kind.properties:
            raise HubSpotProblemError(400, f"There was a problem with the request: no property {each['propertyName']}")
    found = [record for record in records.live(kind) if any(_fits(record, group) for group in groups)]
    page = [records.document(record, body.get("properties") or []) for record in found[after : after + limit]]
    answer: dict[str, Any] = {"total": len(found), "results": page}
    if after + limit < len(found):
        answer["paging"] = {"next": {"after": str(after + limit)}}
    return Reply.json(answer)


def _fits(record: Record, filters: Sequence[Mapping[str, Any]]) -> bool:
    return all(_holds(record, each) for each in filters)


def _holds(record: Record, each: Mapping[str, Any]) -> bool:
    """Text is compared in lower case, that of the record alone where there are several values."""
    value = (record.id if each["propertyName"] == "hs_object_id" else record.properties.get(each["propertyName"])) or ""
    match each["operator"]:
        case "EQ":
            return value.lower() == str(each["value"]).lower()
        case "IN":
            return value.lower() in each["values"]
        case other:
            raise HubSpotProblemError(400, f"operator {other} is not supported here")
