"""Catalogs of a fake Iterable. What it accepts it answers with 202, before anybody could look at the items."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from dagster_retl.testing.fake_api import Call
from dagster_retl.testing.fake_iterable_fields import leaves, merged, type_of
from dagster_retl.testing.fake_iterable_rules import answer, refused
from dagster_retl.testing.messages import Reply

_NAME = re.compile(r"[A-Za-z0-9-]{1,255}")
_MOST_ITEMS = 1000
_MOST_BYTES = 30_000


@dataclass
class Catalog:
    """Items by id; `types` of the fields for which somebody defined one."""

    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    @property
    def undefined(self) -> list[str]:
        """Fields that items have and nobody gave a type."""
        return sorted({name for item in self.items.values() for name, _ in leaves(item)} - self.types.keys())


class Catalogs:
    """All catalogs of a project, by name."""

    def __init__(self) -> None:
        self.all: dict[str, Catalog] = {}

    def names(self, call: Call) -> Reply:
        page, size = int(call.query.get("page", 1)), int(call.query.get("pageSize", 10))
        known = sorted(self.all)
        body: dict[str, Any] = {
            "catalogNames": [{"name": name} for name in known[(page - 1) * size : page * size]],
            "totalCatalogsCount": len(known),
        }
        if page * size < len(known):
            body["nextPageUrl"] = f"/api/catalogs?page={page + 1}&pageSize={size}"
        return Reply.json(body)

    def create(self, call: Call) -> Reply:
        name = call.parts["catalog"]
        if not _NAME.fullmatch(name) or name in self.all:
            raise refused("BadParams", f"There can be no new catalog {name}")
        self.all[name] = Catalog()
        return answer("Success", status=201)

    def field_mappings(self, call: Call) -> Reply:
        catalog = self._catalog(call)
        return Reply.json({"definedMappings": catalog.types, "undefinedFields": catalog.undefined})

    def get_item(self, call: Call) -> Reply:
        items, name = self._catalog(call).items, call.parts["item"]
        if name not in items:
            raise refused("NotFound", f"No item {name}", 404)
        size = len(orjson.dumps(items[name], default=str))
        body = {"catalogName": call.parts["catalog"], "itemId": name, "size": size, "value": items[name]}
        return Reply.json({**body, "lastModified": "2026-01-01T00:00:00Z"})

    def put_items(self, call: Call) -> Reply:
        catalog, body = self._catalog(call), call.json()
        documents, nested = body.get("documents"), body.get("replaceUploadedFieldsOnly")
        if not isinstance(documents, dict) or not isinstance(nested, bool) or len(documents) > _MOST_ITEMS:
            raise refused("BadParams", f"Send up to {_MOST_ITEMS} documents and replaceUploadedFieldsOnly")
        for name, value in documents.items():
            _require_item(name, value)
        for name, value in documents.items():
            if self._fits(catalog, value):  # the others are lost without a word
                catalog.items[name] = merged(catalog.items.get(name, {}) if nested else {}, value, nested=False)
        return answer("Success", f"Received {len(documents)} items", 202)

    def delete_items(self, call: Call) -> Reply:
        catalog, names = self._catalog(call), call.json().get("itemIds")
        if not isinstance(names, list):
            raise refused("BadParams", "Send itemIds")
        for name in names:
            catalog.items.pop(name, None)
        return answer("Success", f"Received {len(names)} ids", 202)

    def _catalog(self, call: Call) -> Catalog:
        catalog = self.all.get(call.parts["catalog"])
        if catalog is None:
            raise refused("NotFound", f"No catalog {call.parts['catalog']}", 404)
        return catalog

    def _fits(self, catalog: Catalog, value: Mapping[str, Any]) -> bool:
        return all(catalog.types.get(name) in (None, type_of(each)) for name, each in leaves(value))


def _require_item(name: str, value: Any) -> None:
    if not _NAME.fullmatch(name):
        raise refused("BadParams", f"Invalid item id: {name}")
    if not isinstance(value, dict) or _dotted(value):
        raise refused("BadParams", f"Item {name}: field names must not contain periods")
    if len(orjson.dumps(value, default=str)) > _MOST_BYTES:
        raise refused("BadParams", f"Item {name} is larger than 30kb")


def _dotted(value: Any) -> bool:
    return isinstance(value, dict) and any("." in name or _dotted(inner) for name, inner in value.items())
