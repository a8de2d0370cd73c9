"""The objects of a fake Salesforce org: their fields, and how `describe` tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

TEXTS = ("id", "reference", "string", "textarea", "email", "phone", "url", "picklist", "multipicklist", "combobox")
NUMBERS = ("int", "double", "currency", "percent")


@dataclass(frozen=True, slots=True)
class FakeField:
    """A field. kind: its type. length: of text, at most. picklist: its values, enforced where `restricted`.

    parent: the object that a reference is to, under the name `relationship`. given: it has a value of its own
    where none is written. external_id, id_lookup, unique, case_sensitive: as in `describe`.
    """

    name: str
    kind: str = "string"
    label: str = ""
    length: int = 255
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    given: bool = False
    external_id: bool = False
    id_lookup: bool = False
    unique: bool = False
    case_sensitive: bool = False
    picklist: tuple[str, ...] = ()
    restricted: bool = False
    parent: str | None = None
    relationship: str | None = None

    @property
    def required(self) -> bool:
        """Whether a new record needs it."""
        return self.createable and not self.nillable and not self.given

    @property
    def identifies(self) -> bool:
        """Whether an upsert may go by it."""
        return self.external_id or self.id_lookup

    @property
    def shown_label(self) -> str:
        return self.label or self.name.removesuffix("__c").replace("_", " ")

    def describe(self) -> dict[str, Any]:
        """What `describe` says of it."""
        return {
            "name": self.name,
            "label": self.shown_label,
            "type": self.kind,
            "length": self.length if self.kind in TEXTS else 0,
            "nillable": self.nillable,
            "createable": self.createable,
            "updateable": self.updateable,
            "defaultedOnCreate": self.given,
            "externalId": self.external_id,
            "idLookup": self.id_lookup or self.external_id or self.kind == "id",
            "unique": self.unique,
            "caseSensitive": self.case_sensitive,
            "restrictedPicklist": self.restricted,
            "picklistValues": [{"value": each, "label": each, "active": True} for each in self.picklist],
            "referenceTo": [self.parent] if self.parent else [],
            "relationshipName": self.relationship,
        }


@dataclass(frozen=True, slots=True)
class FakeObject:
    """An object. prefix: the first three characters of its records' ids."""

    name: str
    prefix: str
    fields: tuple[FakeField, ...]

    def field(self, name: str) -> FakeField | None:
        """The field of that name; case makes no difference."""
        return next((field for field in self.fields if field.name.lower() == name.lower()), None)

    def parent_field(self, relationship: str) -> FakeField | None:
        """The reference that a relationship stands for."""
        named = (field for field in self.fields if (field.relationship or "").lower() == relationship.lower())
        return next(named, None)

    def with_fields(self, *fields: FakeField) -> Self:
        """The same object with more fields, or with others of these names."""
        new = {field.name: field for field in fields}
        return replace(self, fields=(*(field for field in self.fields if field.name not in new), *fields))

    def without_fields(self, *names: str) -> Self:
        """The same object without some fields."""
        return replace(self, fields=tuple(field for field in self.fields if field.name not in names))

    def summary(self) -> dict[str, Any]:
        """What `describe` says of the object itself."""
        writable = any(field.createable for field in self.fields)
        abilities = dict.fromkeys(("createable", "updateable", "deletable"), writable)
        return {
            "name": self.name,
            "label": self.name.removesuffix("__c"),
            "keyPrefix": self.prefix,
            "custom": self.name.endswith("__c"),
            "queryable": True,
            **abilities,
        }

    def describe(self) -> dict[str, Any]:
        """What `describe` says of it and its fields."""
        return {**self.summary(), "fields": [field.describe() for field in self.fields]}


def system_fields() -> tuple[FakeField, ...]:
    """The fields that every object has; Salesforce alone writes them."""
    closed: Mapping[str, Any] = {"nillable": False, "createable": False, "updateable": False, "given": True}
    return (
        FakeField("Id", "id", "Record ID", length=18, **closed),
        FakeField("IsDeleted", "boolean", "Deleted", **closed),
        FakeField("CreatedDate", "datetime", "Created Date", **closed),
    )


def external_id(name: str = "External_Id__c", **more: Any) -> FakeField:
    """An external id, unique without regard to case."""
    return FakeField(name, **{"length": 80, "external_id": True, "unique": True, **more})


def default_schema() -> tuple[FakeObject, ...]:
    """Account and Contact, with fields of every kind; and the org itself."""
    account = FakeObject(
        "Account",
        "001",
        (
            *system_fields(),
            FakeField("Name", label="Account Name", nillable=False),
            FakeField("MasterRecordId", "reference", createable=False, updateable=False, parent="Account"),
            FakeField("AccountNumber", length=40),
            FakeField("Site", label="Account Site", length=80),
            FakeField("Industry", "picklist", picklist=("Banking", "Energy")),
            FakeField("Rating", "picklist", "Account Rating", picklist=("Hot", "Warm", "Cold"), restricted=True),
            FakeField("AnnualRevenue", "currency", "Annual Revenue"),
            FakeField("NumberOfEmployees", "int", "Employees"),
            FakeField("Description", "textarea", length=32_000),
            FakeField("Active__c", "boolean", nillable=False, given=True),
            FakeField("Founded__c", "date"),
            FakeField("Last_Order_At__c", "datetime"),
            FakeField("Score__c", "double"),
            FakeField("Support_Email__c", "email", length=80),
            external_id(),
            external_id("Number__c", kind="double"),
            external_id("Legacy_Id__c", unique=False),
            external_id("Code__c", case_sensitive=True),
        ),
    )
    contact = FakeObject(
        "Contact",
        "003",
        (
            *system_fields(),
            FakeField("LastName", label="Last Name", length=80, nillable=False),
            FakeField("FirstName", label="First Name", length=40),
            FakeField("Email", "email", length=80, id_lookup=True),
            FakeField("AccountId", "reference", "Account ID", parent="Account", relationship="Account"),
            FakeField("Interests__c", "multipicklist", picklist=("Chess", "Go"), length=4_000),
            external_id(),
        ),
    )
    return account, contact, organization()


def organization() -> FakeObject:
    """The org itself: it can be read, and has one record."""
    name = FakeField("Name", createable=False, updateable=False)
    return FakeObject("Organization", "00D", (*system_fields(), name))


def by_name(objects: Iterable[FakeObject]) -> dict[str, FakeObject]:
    """Objects by their names in lower case."""
    return {each.name.lower(): each for each in objects}
