"""A stateful HubSpot account for tests: it keeps records, and enforces the rules of the CRM API.

POST /crm/v3/objects/{object}/batch/{create|update|upsert|read|archive}, …/search      also under a date, as
POST /crm/v3/objects/{object}; GET | PATCH | DELETE …/{id}                             /crm/objects/2026-03/…
GET /crm/v3/properties/{object}[/{name}]; GET /crm/v3/schemas[/{object}], /crm-object-schemas/v3/schemas[/{object}]
GET /crm/v4/associations/{from}/{to}/labels; POST …/batch/{create|archive}
GET /account-info/v3/details; POST /oauth/v1/token
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from dagster_retl.testing.fake_hubspot_access import HubSpotAccess
from dagster_retl.testing.fake_hubspot_links import Links
from dagster_retl.testing.fake_hubspot_records import Records
from dagster_retl.testing.fake_hubspot_rules import HubSpotProblemError, HubSpotRules, ObjectType
from dagster_retl.testing.fake_hubspot_search import search
from dagster_retl.testing.server import LoopbackServer, Received, Reply

_DATED = re.compile(r"^/crm/(objects|properties|associations)/\d{4}-\d{2}/|^/crm-object-schemas/[^/]+/(schemas)")


class FakeHubSpot(LoopbackServer):
    """See the module. `records` has the records of each object by its type id, `links` the associations."""

    def __init__(self, rules: HubSpotRules | None = None, *, latency: float = 0.0, port: int = 0) -> None:
        super().__init__(latency=latency, port=port)
        self.rules = rules or HubSpotRules()
        self.records = Records(self.rules)
        self.links = Links(self.rules, self.records)
        self.access = HubSpotAccess(self.rules)
        self._state = threading.RLock()

    def add(self, object_name: str, **properties: str) -> str:
        """Make a record by hand; its id."""
        with self._state:
            return self.records.add(self._kind(object_name), properties).id

    def stored(self, object_name: str) -> dict[str, dict[str, str]]:
        """The live records of an object: id → properties that are not empty."""
        with self._state:
            live = self.records.live(self._kind(object_name))
            return {each.id: {name: text for name, text in each.properties.items() if text} for each in live}

    def handle(self, request: Received) -> Reply:
        with self._state:
            if request.path == "/oauth/v1/token":
                return self.access.hand_out_token(request)
            parts = [unquote(part) for part in _plain_path(request.path).split("/")[1:]]
            service = _service_of(parts)
            reply = self.access.objection(request, service) or self._answer(request, parts)
            return replace(reply, headers={**reply.headers, **self.access.limits(service)})

    def _answer(self, request: Received, parts: Sequence[str]) -> Reply:
        try:
            body = orjson.loads(request.body) if request.body else {}
        except orjson.JSONDecodeError:
            return HubSpotProblemError(400, "Invalid input JSON").reply()
        try:
            return self._route(request, parts, body)
        except HubSpotProblemError as problem:
            return problem.reply()

    def _route(self, request: Received, parts: Sequence[str], body: Mapping[str, Any]) -> Reply:
        match [request.method, *parts]:
            case ["GET", "account-info", "v3", "details"]:
                return Reply.json({"portalId": self.rules.portal, "uiDomain": self.rules.site, "timeZone": "UTC"})
            case ["GET", "crm", "v3", "schemas", *rest]:
                return self._schemas(rest)
            case ["GET", "crm", "v3", "properties", name, *rest]:
                return _properties(self._kind(name), rest)
            case [_, "crm", "v3", "objects", name, *rest]:
                return self._objects(request, self._kind(name), rest, body)
            case ["GET", "crm", "v4", "associations", one, other, "labels"]:
                return self.links.labels(self._kind(one), self._kind(other))
            case ["POST", "crm", "v4", "associations", one, other, "batch", verb]:
                return self.links.batch(self._kind(one), self._kind(other), verb, body)
        raise HubSpotProblemError(404, "resource not found", None)

    def _objects(self, request: Received, kind: ObjectType, rest: Sequence[str], body: Mapping[str, Any]) -> Reply:
        match [request.method, *rest]:
            case ["POST", "batch", verb]:
                if verb == "create":
                    self.links.require_parents(kind, body.get("inputs") or [])
                return self.records.batch(kind, verb, body, self.links.link_new)
            case ["POST", "search"]:
                return search(self.records, kind, body)
            case ["POST"]:
                return self._one(kind, "create", body, 201)
            case ["PATCH", record_id]:
                self._require(kind, request, record_id)
                return self._one(kind, "update", {**body, "id": record_id, **_id_property(request)}, 200)
            case ["GET", record_id]:
                names = _query(request).get("properties", "").split(",")
                return Reply.json(self.records.document(self._require(kind, request, record_id), names))
            case ["DELETE", record_id]:
                self.records.archive(kind, record_id)
                return Reply(204)
        raise HubSpotProblemError(404, "resource not found", None)

    def _one(self, kind: ObjectType, verb: str, body: Mapping[str, Any], status: int) -> Reply:
        answer = self.records.batch(kind, verb, {"inputs": [body]}, self.links.link_new)
        (result,) = orjson.loads(answer.body)["results"]
        return Reply.json(result, status)

    def _require(self, kind: ObjectType, request: Received, record_id: str) -> Any:
        record = self.records.find(kind, _id_property(request).get("idProperty"), record_id)
        if record is None:
            raise HubSpotProblemError(404, "resource not found", "OBJECT_NOT_FOUND")
        return record

    def _kind(self, name: str) -> ObjectType:
        kind = self.rules.object_type(name)
        if kind is None:
            raise HubSpotProblemError(400, f"Unable to infer object type from: {name}", None)
        return kind

    def _schemas(self, rest: Sequence[str]) -> Reply:
        if rest:
            return Reply.json(_schema(self._kind(rest[0]), self.rules.portal))
        custom = [_schema(each, self.rules.portal) for each in self.rules.objects if each.custom]
        return Reply.json({"results": custom})


def _plain_path(path: str) -> str:
    """A dated path as the one of the third version."""
    found = _DATED.match(path)
    if found is None:
        return path
    service, rest = found[1] or found[2], path[found.end() :].strip("/")
    version = "v4" if service == "associations" else "v3"
    return "/".join(filter(None, [f"/crm/{version}/{service}", rest]))


def _service_of(parts: Sequence[str]) -> str:
    """What scopes and limits go by: the object, `schemas`, or `search`."""
    if parts[-1] == "search":
        return "search"
    return parts[3] if parts[:1] == ["crm"] and parts[2] in ("objects", "properties") else parts[min(2, len(parts) - 1)]


def _query(request: Received) -> dict[str, str]:
    return {name: ",".join(values) for name, values in parse_qs(request.query).items()}


def _id_property(request: Received) -> dict[str, str]:
    return {name: value for name, value in _query(request).items() if name == "idProperty"}


def _properties(kind: ObjectType, rest: Sequence[str]) -> Reply:
    if not rest:
        return Reply.json({"results": [each.document() for each in kind.properties.values()]})
    known = kind.properties.get(rest[0])
    if known is None:
        raise HubSpotProblemError(404, f"Property {rest[0]} does not exist", "OBJECT_NOT_FOUND")
    return Reply.json(known.document())


def _schema(kind: ObjectType, portal: int) -> dict[str, Any]:
    return {
        "id": kind.type_id.partition("-")[2],
        "objectTypeId": kind.type_id,
        "fullyQualifiedName": kind.names[0],
        "name": kind.names[0].partition("_")[2],
        "labels": {
            "singular": kind.names[1].partition("_")[2].title(),
            "plural": kind.names[0].partition("_")[2].title(),
        },
        "requiredProperties": list(kind.required),
        "searchableProperties": [],
        "primaryDisplayProperty": kind.own[0].name,
        "secondaryDisplayProperties": [],
        "properties": [each.document() for each in kind.properties.values()],
        "associations": [],
        "archived": False,
        "portalId": portal,
    }
