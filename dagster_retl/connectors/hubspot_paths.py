"""Where things are in HubSpot's API, and what its standard objects are called.

`v3` stands before a service (`crm/v3/objects/contacts`), a date behind it (`crm/objects/2026-03/contacts`):
https://developers.hubspot.com/docs/guides/api/versioning. The schemas of custom objects and associations have paths
of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

ACCOUNT = "account-info/v3/details"
TOKEN = "oauth/v1/token"  # noqa: S105  # an address
RECORD_ID = "hs_object_id"
"""The property that is a record's id. It is no unique property: records are addressed by it without `idProperty`."""


@dataclass(frozen=True, slots=True)
class StandardObject:
    """An object that every account has, and its id: https://developers.hubspot.com/docs/guides/crm/understanding-the-crm."""

    plural: str
    singular: str
    type_id: str

    @property
    def label(self) -> str:
        return self.plural.replace("_", " ").capitalize()


STANDARD_OBJECTS = (
    StandardObject("contacts", "contact", "0-1"),
    StandardObject("companies", "company", "0-2"),
    StandardObject("deals", "deal", "0-3"),
    StandardObject("tickets", "ticket", "0-5"),
    StandardObject("products", "product", "0-7"),
    StandardObject("line_items", "line_item", "0-8"),
    StandardObject("quotes", "quote", "0-14"),
    StandardObject("tasks", "task", "0-27"),
    StandardObject("notes", "note", "0-46"),
    StandardObject("calls", "call", "0-48"),
    StandardObject("emails", "email", "0-49"),
    StandardObject("meetings", "meeting", "0-47"),
    StandardObject("leads", "lead", "0-136"),
)
CONTACTS = STANDARD_OBJECTS[0]


def standard_object(name: str) -> StandardObject | None:
    """The standard object of that name: plural, singular (in any case) or id."""
    return _BY_NAME.get(name.strip().lower())


_BY_NAME = {name: each for each in STANDARD_OBJECTS for name in (each.plural, each.singular, each.type_id)}


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of one version of the API."""

    version: str

    def objects(self, object_name: str, *then: str) -> str:
        return self._path("objects", object_name, *then)

    def properties(self, object_name: str, *then: str) -> str:
        return self._path("properties", object_name, *then)

    def schemas(self, *then: str) -> str:
        if self.version.startswith("v"):
            return self._path("schemas", *then)
        return "/".join(["crm-object-schemas", self.version, "schemas", *map(_quoted, then)])

    def associations(self, from_object: str, to_object: str, *then: str) -> str:
        if self.version.startswith("v"):
            return "/".join(["crm/v4/associations", *map(_quoted, (from_object, to_object, *then))])
        return self._path("associations", from_object, to_object, *then)

    def _path(self, service: str, *then: str) -> str:
        head = ("crm", self.version, service) if self.version.startswith("v") else ("crm", service, self.version)
        return "/".join([*head, *map(_quoted, then)])


def _quoted(part: str) -> str:
    return quote(part, safe="")
