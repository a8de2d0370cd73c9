"""What a fake HubSpot account has and insists on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dagster_retl.testing.messages import Reply

LONGEST_TEXT = 65_536


@dataclass(frozen=True, slots=True)
class Property:
    """A property of an object. options: the values that an enumeration allows; several may be joined by semicolons."""

    name: str
    label: str = ""
    type: str = "string"
    field_type: str = "text"
    options: tuple[str, ...] = ()
    unique: bool = False
    read_only: bool = False
    calculated: bool = False
    hidden: bool = False

    def document(self) -> dict[str, Any]:
        """As the properties API has it."""
        options = [
            {"label": value.title(), "value": value, "displayOrder": number, "hidden": False}
            for number, value in enumerate(self.options)
        ]
        return {
            "name": self.name,
            "label": self.label or self.name.replace("_", " ").capitalize(),
            "type": self.type,
            "fieldType": self.field_type,
            "description": "",
            "groupName": "information",
            "options": options,
            "displayOrder": -1,
            "calculated": self.calculated,
            "externalOptions": False,
            "archived": False,
            "hasUniqueValue": self.unique,
            "hidden": self.hidden,
            "modificationMetadata": {
                "archivable": True,
                "readOnlyDefinition": self.read_only,
                "readOnlyValue": self.read_only or self.calculated,
            },
            "formField": True,
        }


_SYSTEM = (
    Property("hs_object_id", "Record ID", "number", "number", read_only=True),
    Property("createdate", "Create Date", "datetime", "date", read_only=True),
    Property("hs_lastmodifieddate", "Last Modified Date", "datetime", "date", read_only=True),
)


@dataclass(frozen=True, slots=True)
class ObjectType:
    """An object. names: what it is called in paths; required: properties that a new record needs."""

    type_id: str
    names: tuple[str, ...]
    own: tuple[Property, ...]
    required: tuple[str, ...] = ()

    @property
    def properties(self) -> Mapping[str, Property]:
        return {each.name: each for each in (*self.own, *_SYSTEM)}

    @property
    def label(self) -> str:
        """As error messages call it."""
        return self.names[1].upper()

    @property
    def custom(self) -> bool:
        return self.type_id.startswith("2-")

    def finds_by(self, name: str) -> bool:
        """Whether records can be read and upserted by a property."""
        known = self.properties.get(name)
        return (known is not None and known.unique) or (self.type_id == "0-1" and name == "email")

    def unique_names(self) -> Sequence[str]:
        """The properties of which no two records may have the same value."""
        return [name for name in self.properties if self.finds_by(name)]


CONTACTS = ObjectType(
    "0-1",
    ("contacts", "contact"),
    (
        Property("email", "Email"),
        Property("hs_additional_emails", "Additional email addresses", "enumeration", "checkbox", hidden=True),
        Property("firstname", "First Name"),
        Property("lastname", "Last Name"),
        Property("customer_id", "Customer ID", unique=True),
        Property("score", "Score", "number", "number"),
        Property("is_member", "Member", "bool", "booleancheckbox", options=("true", "false")),
        Property("birthday", "Birthday", "date", "date"),
        Property("last_seen", "Last seen", "datetime", "date"),
        Property("interests", "Interests", "enumeration", "checkbox", options=("art", "travel", "swimming")),
        Property("notes", "Notes", field_type="textarea"),
        Property("hubspotscore", "HubSpot Score", "number", "calculation_score", calculated=True),
        Property("hs_coordinates", "Coordinates", "object_coordinates", "text", read_only=True),
    ),
)
COMPANIES = ObjectType(
    "0-2",
    ("companies", "company"),
    (
        Property("name", "Name"),
        Property("domain", "Company Domain Name"),
        Property("account_number", "Account number", unique=True),
        Property("city", "City"),
    ),
)
DEALS = ObjectType(
    "0-3",
    ("deals", "deal"),
    (
        Property("dealname", "Deal Name"),
        Property("amount", "Amount", "number", "number"),
        Property("dealstage", "Deal Stage", "enumeration", "select", options=("open", "won", "lost")),
        Property("deal_number", "Deal number", unique=True),
    ),
)
CARS = ObjectType(
    "2-3604285",
    ("p4711_cars", "p4711_car"),
    (
        Property("vin", "VIN", unique=True),
        Property("model", "Model"),
        Property("seats", "Seats", "number", "number"),
    ),
    required=("vin", "model"),
)

UNLABELLED, PRIMARY = 279, 1


@dataclass(frozen=True, slots=True)
class HubSpotRules:
    """What the account insists on.

    Who comes in. token: of a private app. app: client id, client secret and refresh token of a public one;
    token_requests: how many requests its access tokens are good for. without_scopes: services (`contacts`, `schemas`)
    for which the app has no scope.

    How often. limit: so many requests in so many seconds, after which it answers 429 by this policy; daily: so many
    in all. shows_limits: whether answers have the headers (those of searches never do).

    What is taken. refusals: a bad value or a conflict refuses the `whole` request, or only its `row` (207).
    names_results: whether results repeat the `objectWriteTraceId`. seed: of the order in which results come.
    """

    token: str | None = "pat-eu1-1f7c"  # noqa: S105  # of a fake
    app: tuple[str, str, str] | None = None
    token_requests: int | None = None
    without_scopes: frozenset[str] = frozenset()
    limit: tuple[int, float, str] | None = None
    daily: int | None = None
    shows_limits: bool = True
    refusals: Literal["whole", "row"] = "whole"
    names_results: bool = False
    seed: int = 0
    portal: int = 4711
    site: str = "app-eu1.hubspot.com"
    objects: tuple[ObjectType, ...] = (CONTACTS, COMPANIES, DEALS, CARS)
    association_types: Mapping[tuple[str, str], tuple[tuple[int, str | None], ...]] = field(
        default_factory=lambda: {
            ("0-1", "0-2"): ((PRIMARY, "Primary"), (UNLABELLED, None)),
            ("0-3", "0-2"): ((5, "Primary"), (341, None)),
            ("0-3", "0-1"): ((3, None),),
            ("2-3604285", "0-1"): ((17, None),),
        }
    )

    def object_type(self, name: str) -> ObjectType | None:
        """The object that a path names: by plural, singular in any case, or id."""
        lower = name.lower()
        return next((each for each in self.objects if lower in (each.type_id, *each.names)), None)


class HubSpotProblemError(Exception):
    """Why a request, or an input of it, was refused."""

    def __init__(
        self,
        status: int,
        message: str,
        category: str | None = "VALIDATION_ERROR",
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.category = category
        self.context = dict(context or {})
        self.errors = list(errors)

    def reply(self) -> Reply:
        """As the answer to the whole request."""
        body: dict[str, Any] = {"status": "error", "message": self.message, "correlationId": "c0ffee00-4711"}
        extra = {"context": self.context, "errors": self.errors, "category": self.category}
        return Reply.json(body | {name: value for name, value in extra.items() if value}, self.status)

    def entry(self, trace_id: str | None) -> dict[str, Any]:
        """As one of the `errors` of an answer."""
        traces = {"objectWriteTraceId": [trace_id]} if trace_id is not None else {}
        entry = {"status": "error", "category": self.category, "message": self.message}
        return {**entry, "context": {**self.context, **traces}}
