"""The records of a fake HubSpot, and its batch endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from dagster_retl.testing.fake_hubspot_rules import HubSpotProblemError, HubSpotRules, ObjectType
from dagster_retl.testing.fake_hubspot_values import addresses_of, checked, require_known
from dagster_retl.testing.messages import Reply

_MOST_INPUTS = 100
_FIRST_ID = 171_591_000_198
_NOW = "2026-02-01T10:00:00.000Z"
_BATCH = {"status": "COMPLETE", "startedAt": _NOW, "completedAt": _NOW}

Input = Mapping[str, Any]
LinkNew = Callable[[ObjectType, str, Input], None]
"""Link a new record as its input says."""


@dataclass(slots=True)
class Record:
    """A record. `properties` has what was ever set."""

    id: str
    properties: dict[str, str]
    archived: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of a batch: answers to inputs, and errors."""

    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


class Records:
    """All records of an account. Not safe for threads: the service holds its lock."""

    def __init__(self, rules: HubSpotRules) -> None:
        self.rules = rules
        self.by_type: dict[str, dict[str, Record]] = {each.type_id: {} for each in rules.objects}
        self._last_id = _FIRST_ID
        self._order = Random(rules.seed)  # noqa: S311 - an order, not a secret

    def live(self, kind: ObjectType) -> Iterable[Record]:
        return (record for record in self.by_type[kind.type_id].values() if not record.archived)

    def get(self, kind: ObjectType, record_id: str) -> Record | None:
        record = self.by_type[kind.type_id].get(record_id)
        return None if record is None or record.archived else record

    def find(self, kind: ObjectType, id_property: str | None, value: str) -> Record | None:
        """The record of an id, or with a value of a unique property; contacts by each of their addresses."""
        if id_property is None:
            return self.get(kind, value)
        if id_property == "email":
            wanted = value.strip().lower()
            return next((each for each in self.live(kind) if wanted in addresses_of(each.properties)), None)
        return next((each for each in self.live(kind) if each.properties.get(id_property) == value), None)

    def batch(self, kind: ObjectType, verb: str, body: Mapping[str, Any], link: LinkNew) -> Reply:
        """Answer a batch. Raises `HubSpotProblemError` where all of it is refused."""
        inputs = _inputs(body)
        match verb:
            case "read":
                return self._read(kind, body, inputs)
            case "archive":
                _require_distinct(inputs)
                for each in inputs:
                    self.archive(kind, str(each["id"]))
                return Reply(204)
            case "create" | "update" | "upsert":
                return self._write(kind, verb, inputs, link)
            case _:
                raise HubSpotProblemError(404, "resource not found", None)

    def archive(self, kind: ObjectType, record_id: str) -> None:
        record = self.get(kind, record_id)
        if record is not None:
            record.archived = True

    def _read(self, kind: ObjectType, body: Mapping[str, Any], inputs: Sequence[Input]) -> Reply:
        by = body.get("idProperty")
        if by is not None and not kind.finds_by(by):
            raise HubSpotProblemError(400, f"Unable to perform read by non-unique {kind.type_id} property {by}")
        outcome = Outcome()
        names = body.get("properties") or []
        found = {str(each["id"]): self.find(kind, by, str(each["id"])) for each in inputs}
        for record in {record.id: record for record in found.values() if record}.values():
            outcome.results.append(self.document(record, names))
        missing = [value for value, record in found.items() if record is None]
        if missing:
            outcome.errors.append(_not_found(kind, missing))
        return self._answer(outcome, 200)

    def _write(self, kind: ObjectType, verb: str, inputs: Sequence[Input], link: LinkNew) -> Reply:
        if verb != "create":
            _require_distinct(inputs)
        traces = [each["objectWriteTraceId"] for each in inputs if each.get("objectWriteTraceId") is not None]
        if len(set(traces)) < len(traces):
            raise HubSpotProblemError(400, "objectWriteTraceId must be unique for each input")
        self._require_addresses(kind, verb, inputs)
        for each in inputs:
            require_known(kind, each.get("properties") or {})
        outcome = Outcome()
        missing = [str(each["id"]) for each in inputs if verb == "update" and self._target(kind, each) is None]
        if missing:
            outcome.errors.append(_not_found(kind, missing))
        taken: set[tuple[str, str]] = set()
        accepted = [
            (each, kept)
            for each in inputs
            if str(each.get("id")) not in missing
            and (kept := self._accept(kind, verb, each, taken, outcome)) is not None
        ]
        for each, kept in accepted:
            outcome.results.append(self._apply(kind, verb, each, kept, link))
        return self._answer(outcome, 201 if verb == "create" else 200)

    def _require_addresses(self, kind: ObjectType, verb: str, inputs: Sequence[Input]) -> None:
        for each in inputs:
            by = each.get("idProperty")
            known = kind.properties.get(by or "")
            good = kind.finds_by(by or "") if verb == "upsert" else by is None or (known is not None and known.unique)
            if verb != "create" and not good:
                where = f"property {by} in portal ID {self.rules.portal}"
                raise HubSpotProblemError(400, f"Unable to perform update/upsert by non-unique {kind.type_id} {where}")

    def _target(self, kind: ObjectType, each: Input) -> Record | None:
        return self.find(kind, each.get("idProperty"), str(each["id"])) if "id" in each else None

    def _accept(
        self, kind: ObjectType, verb: str, each: Input, taken: set[tuple[str, str]], outcome: Outcome
    ) -> dict[str, str] | None:
        """The properties to keep; None, and an error in the outcome, for an input that is refused alone."""
        trace = each.get("objectWriteTraceId")
        try:
            kept = self._checked(kind, verb, each)
            self._require_free(kind, verb, each, kept, taken)
        except HubSpotProblemError as problem:
            # Without a trace id nobody could tell which input is meant.
            created = verb == "create" and problem.category == "CONFLICT"
            if trace is None or (self.rules.refusals == "whole" and not created):
                raise
            outcome.errors.append(problem.entry(str(trace)))
            return None
        return kept

    def _checked(self, kind: ObjectType, verb: str, each: Input) -> dict[str, str]:
        given = each.get("properties") or {}
        if verb == "upsert":
            given = {each["idProperty"]: str(each["id"]), **given}
        kept = checked(kind, given)
        if verb != "update" and self._target(kind, each) is None:
            missing = [name for name in kind.required if not kept.get(name)]
            if missing:
                message = f"Error creating {kind.label}. Some required properties were not set."
                raise HubSpotProblemError(400, message, context={"properties": missing})
        return kept

    def _require_free(
        self, kind: ObjectType, verb: str, each: Input, kept: Mapping[str, str], taken: set[tuple[str, str]]
    ) -> None:
        """No other record may have the value of a unique property, one of this batch included."""
        own = self._target(kind, each) if verb != "create" else None
        values = [(name, kept[name]) for name in kind.unique_names() if kept.get(name)]
        for name, value in values:
            other = self.find(kind, name, value)
            if (other is not None and other is not own) or (name, value) in taken:
                existing = f". Existing ID: {other.id}" if other else ""
                context = {"existingId": [other.id]} if other else {}
                message = f"{kind.label.capitalize()} already exists{existing}"
                raise HubSpotProblemError(409, message, "CONFLICT", context=context)
        taken.update(values)

    def _apply(self, kind: ObjectType, verb: str, each: Input, kept: dict[str, str], link: LinkNew) -> dict[str, Any]:
        record = None if verb == "create" else self._target(kind, each)
        is_new = record is None
        if record is None:
            record = self.add(kind, {})
            link(kind, record.id, each)
        record.properties.update(kept)
        extra: dict[str, Any] = {"new": is_new} if verb == "upsert" else {}
        if self.rules.names_results and each.get("objectWriteTraceId") is not None:
            extra["objectWriteTraceId"] = str(each["objectWriteTraceId"])
        return {**self.document(record, list(kept)), **extra}

    def add(self, kind: ObjectType, properties: Mapping[str, str]) -> Record:
        """Make a record, without asking whether it may be."""
        self._last_id += 1
        record = Record(str(self._last_id), dict(properties))
        self.by_type[kind.type_id][record.id] = record
        return record

    def document(self, record: Record, names: Sequence[str]) -> dict[str, Any]:
        """A record with some of its properties; those that are empty are null."""
        own: dict[str, str | None] = {name: record.properties.get(name) or None for name in names}
        system = {"hs_object_id": record.id, "createdate": _NOW, "hs_lastmodifieddate": _NOW}
        dates = {"createdAt": _NOW, "updatedAt": _NOW, "archived": record.archived}
        return {"id": record.id, "properties": {**own, **system}, **dates}

    def _answer(self, outcome: Outcome, status: int) -> Reply:
        """In another order than the inputs came."""
        self._order.shuffle(outcome.results)
        self._order.shuffle(outcome.errors)
        body: dict[str, Any] = {**_BATCH, "results": outcome.results}
        if outcome.errors:
            return Reply.json({**body, "errors": outcome.errors, "numErrors": len(outcome.errors)}, 207)
        return Reply.json(body, status)


def _inputs(body: Mapping[str, Any]) -> Sequence[Input]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(each, dict) for each in inputs):
        raise HubSpotProblemError(400, "Invalid input JSON: Some required fields were not set: [inputs]")
    if len(inputs) > _MOST_INPUTS:
        raise HubSpotProblemError(400, f"The maximum number of inputs supported in a batch request is {_MOST_INPUTS}.")
    return inputs


def _require_distinct(inputs: Sequence[Input]) -> None:
    ids = [str(each.get("id")) for each in inputs]
    twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
    if twice:
        message = f"Duplicate IDs found in batch input: [{', '.join(twice)}]. IDs must be unique"
        raise HubSpotProblemError(400, message, context={"ids": twice})


def _not_found(kind: ObjectType, ids: Sequence[str]) -> dict[str, Any]:
    message = f"Could not get some {kind.label} objects, they may be deleted or not exist. Check that ids are valid."
    return HubSpotProblemError(404, message, "OBJECT_NOT_FOUND", context={"ids": ids}).entry(None)
