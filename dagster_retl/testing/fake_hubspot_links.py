"""The associations of a fake HubSpot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster_retl.testing.fake_hubspot_records import Input, Records
from dagster_retl.testing.fake_hubspot_rules import HubSpotProblemError, HubSpotRules, ObjectType
from dagster_retl.testing.messages import Reply


class Links:
    """Who is linked to whom: (object, record id, object, record id, type id)."""

    def __init__(self, rules: HubSpotRules, records: Records) -> None:
        self.rules = rules
        self._records = records
        self.all: set[tuple[str, str, str, str, int]] = set()

    def labels(self, one: ObjectType, other: ObjectType) -> Reply:
        """The types that lead from one object to another."""
        types = self.rules.association_types.get((one.type_id, other.type_id), ())
        entries = [{"category": "HUBSPOT_DEFINED", "typeId": type_id, "label": label} for type_id, label in types]
        return Reply.json({"results": entries})

    def batch(self, one: ObjectType, other: ObjectType, verb: str, body: Mapping[str, Any]) -> Reply:
        """Create or archive links."""
        inputs: Sequence[Input] = body.get("inputs") or []
        match verb:
            case "create":
                return self._create(one, other, inputs)
            case "archive":
                for each in inputs:
                    gone = {(one.type_id, str(each["from"]["id"]), other.type_id, str(to["id"])) for to in each["to"]}
                    self.all = {link for link in self.all if link[:4] not in gone}
                return Reply(204)
            case _:
                raise HubSpotProblemError(404, "resource not found", None)

    def link_new(self, kind: ObjectType, record_id: str, each: Input) -> None:
        """Link a new record as its input says."""
        for link in each.get("associations") or []:
            for spec in link["types"]:
                other = self._target_of(kind, spec["associationTypeId"])
                self.all.add((kind.type_id, record_id, other, str(link["to"]["id"]), spec["associationTypeId"]))

    def require_parents(self, kind: ObjectType, inputs: Sequence[Input]) -> None:
        """Raise where a new record is to be linked to one that does not exist."""
        for link in (link for each in inputs for link in each.get("associations") or []):
            for spec in link["types"]:
                other = self._target_of(kind, spec["associationTypeId"])
                record = self._records.by_type[other].get(str(link["to"]["id"]))
                if record is None or record.archived:
                    raise HubSpotProblemError(400, f"No {other} with ID {link['to']['id']} exists to associate with")

    def _create(self, one: ObjectType, other: ObjectType, inputs: Sequence[Input]) -> Reply:
        known = [type_id for type_id, _ in self.rules.association_types.get((one.type_id, other.type_id), ())]
        wanted = {spec["associationTypeId"] for each in inputs for spec in each["types"]}
        if not wanted <= set(known):
            raise HubSpotProblemError(
                400, f"One or more association types are not valid: {sorted(wanted - set(known))}"
            )
        results, errors = [], []
        for each in inputs:
            from_id, to_id = str(each["from"]["id"]), str(each["to"]["id"])
            missing = [(one, "fromObjectId", from_id), (other, "toObjectId", to_id)]
            missing = [(kind, name, id_) for kind, name, id_ in missing if self._records.get(kind, id_) is None]
            if missing:
                errors.append(_missing(*missing[0]))
                continue
            ids = [spec["associationTypeId"] for spec in each["types"]]
            self.all |= {(one.type_id, from_id, other.type_id, to_id, type_id) for type_id in ids}
            results.append(_pair(one, from_id, other, to_id))
        body = {"status": "COMPLETE", "startedAt": _NOW, "completedAt": _NOW, "results": results}
        return (
            Reply.json({**body, "errors": errors, "numErrors": len(errors)}, 207) if errors else Reply.json(body, 201)
        )

    def _target_of(self, kind: ObjectType, type_id: int) -> str:
        for (one, other), types in self.rules.association_types.items():
            if one == kind.type_id and type_id in [known for known, _ in types]:
                return other
        raise HubSpotProblemError(400, f"association type {type_id} is not valid for {kind.label}")


_NOW = "2026-02-01T10:00:00.000Z"


def _missing(kind: ObjectType, name: str, record_id: str) -> dict[str, Any]:
    message = f"{kind.label} with ID {record_id} does not exist"
    return HubSpotProblemError(404, message, "OBJECT_NOT_FOUND", context={name: [record_id]}).entry(None)


def _pair(one: ObjectType, from_id: str, other: ObjectType, to_id: str) -> dict[str, Any]:
    return {
        "fromObjectTypeId": one.type_id,
        "fromObjectId": from_id,
        "toObjectTypeId": other.type_id,
        "toObjectId": to_id,
        "labels": [],
    }
