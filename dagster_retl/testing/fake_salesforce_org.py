"""The records of a fake Salesforce org, and the rules by which they are written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dagster_retl.testing.fake_salesforce_index import RecordIndex
from dagster_retl.testing.fake_salesforce_schema import FakeField, FakeObject, by_name, default_schema
from dagster_retl.testing.fake_salesforce_values import (
    RequestRefusedError,
    RowRefusedError,
    accept,
    missing,
    shown,
)

Record = dict[str, Any]
Refuse = Callable[[str, Mapping[str, Any]], RowRefusedError | None]

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SUFFIXES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@dataclass(frozen=True, slots=True)
class Change:
    """One change that the org made. operation: `insert`, `update` or `delete`."""

    object_name: str
    record_id: str
    operation: str
    values: Mapping[str, Any]


class FakeOrg:
    """Objects and their records. Not safe for threads: the server holds its lock.

    records: object → record id → field → value, as it was written. refuse: why a row is not taken,
    on top of the rules; called with the object's name and the values that it would have.
    """

    def __init__(self, schema: Iterable[FakeObject] | None = None, *, org_name: str = "Acme") -> None:
        self.schema = by_name(default_schema() if schema is None else schema)
        self.records: dict[str, dict[str, Record]] = {each.name: {} for each in self.schema.values()}
        self.deleted: set[str] = set()
        self.changes: list[Change] = []
        self.refuse: Refuse = lambda object_name, values: None
        self._index = RecordIndex(self.records)
        self._numbers = itertools.count(1)
        self.org_id = long_id("00D000000000001")
        if "organization" in self.schema:
            self.records["Organization"][self.org_id] = {"Id": self.org_id, "Name": org_name}

    def alter(self, changed: FakeObject) -> None:
        """Somebody changes an object, or makes one."""
        self.schema[changed.name.lower()] = changed
        self.records.setdefault(changed.name, {})
        self._index.clear()

    def object(self, name: str) -> FakeObject:
        """The object of that name. Raises `RequestRefusedError`."""
        found = self.schema.get(name.lower())
        if found is None:
            raise RequestRefusedError(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    def find(self, kind: FakeObject, field: FakeField, value: Any) -> list[Record]:
        """The records whose field has that value."""
        return self._index.find(kind, field, value)

    def get(self, kind: FakeObject, record_id: str) -> Record | None:
        """The record with that id, in its long or its short form."""
        return self.records[kind.name].get(long_id(record_id[:15]))

    def require_types(self, kind: FakeObject, fields: Mapping[str, Any]) -> None:
        """Raise `MisfitError` for a value that is not of its field's type."""
        for name, value in fields.items():
            field = kind.field(name)
            if field is not None:
                with suppress(RowRefusedError):
                    accept(field, value)

    def insert(self, kind: FakeObject, fields: Mapping[str, Any]) -> str:
        """Make a record; its id. Raises `RowRefusedError`, and `MisfitError`."""
        values = self._values(kind, fields, creating=True)
        needed = [field for field in kind.fields if field.required and values.get(field.name) is None]
        if needed:
            raise missing(needed)
        self._require_unique(kind, values, None)
        record_id = long_id(f"{kind.prefix}{_number(next(self._numbers))}")
        now = datetime.now(UTC).isoformat()
        self.records[kind.name][record_id] = {"Id": record_id, "CreatedDate": now, "IsDeleted": False, **values}
        self._index.note(kind, record_id, values)
        self.changes.append(Change(kind.name, record_id, "insert", values))
        return record_id

    def update(self, kind: FakeObject, record_id: str, fields: Mapping[str, Any]) -> str:
        """Change a record; its id. Raises `RowRefusedError`, and `MisfitError`."""
        record = self._require_record(kind, record_id)
        values = self._values(kind, fields, creating=False)
        self._require_unique(kind, values, record["Id"])
        record.update(values)
        self._index.note(kind, record["Id"], values)
        self.changes.append(Change(kind.name, record["Id"], "update", values))
        return str(record["Id"])

    def upsert(self, kind: FakeObject, key: FakeField, fields: Mapping[str, Any]) -> tuple[str, bool]:
        """Change the record with that external id, or make it; its id, and whether it is new."""
        given = {name.lower(): name for name in fields}
        value = fields.get(given.get(key.name.lower(), ""))
        if value in (None, ""):
            raise RowRefusedError("MISSING_ARGUMENT", f"{key.name} not specified", ())
        if "id" in given:
            raise RowRefusedError("INVALID_FIELD", "cannot specify Id in an upsert by another field", ("Id",))
        found = self.find(kind, key, value)
        if len(found) > 1:
            ids = ", ".join(str(record["Id"]) for record in found)
            message = f"{key.shown_label}: more than one record found for external id field: [{ids}]"
            raise RowRefusedError("DUPLICATE_EXTERNAL_ID", message, (key.name,))
        if not found:
            return self.insert(kind, fields), True
        others = {name: each for name, each in fields.items() if name.lower() != key.name.lower()}
        return self.update(kind, found[0]["Id"], others), False

    def delete(self, record_id: str) -> str:
        """Delete a record of any object; its id. Raises `RowRefusedError`."""
        kind = next((each for each in self.schema.values() if each.prefix == record_id[:3]), None)
        if kind is None:
            raise RowRefusedError("MALFORMED_ID", f"malformed id {record_id}")
        record = self._require_record(kind, record_id)
        refusal = self.refuse(kind.name, record)
        if refusal:
            raise refusal
        del self.records[kind.name][record["Id"]]
        self.deleted.add(record["Id"])
        self.changes.append(Change(kind.name, record["Id"], "delete", {}))
        return str(record["Id"])

    def show(self, kind: FakeObject, record: Mapping[str, Any]) -> Record:
        """A record as it is read: with all fields of its object."""
        return {field.name: shown(field, record.get(field.name)) for field in kind.fields}

    def _require_record(self, kind: FakeObject, record_id: str) -> Record:
        record = self.get(kind, record_id)
        if record is not None:
            return record
        if long_id(record_id[:15]) in self.deleted:
            raise RowRefusedError("ENTITY_IS_DELETED", "entity is deleted")
        raise RowRefusedError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")

    def _values(self, kind: FakeObject, fields: Mapping[str, Any], *, creating: bool) -> Record:
        values: Record = {}
        for name, value in fields.items():
            if name == "attributes":
                continue
            field, value = self._resolve(kind, name, value)  # noqa: PLW2901
            if not (field.createable if creating else field.updateable):
                raise _not_writable(field)
            values[field.name] = accept(field, value)
            if field.kind == "reference" and value:
                self._require_parent(field, value)
        refusal = self.refuse(kind.name, values)
        if refusal:
            raise refusal
        return values

    def _resolve(self, kind: FakeObject, name: str, value: Any) -> tuple[FakeField, Any]:
        """The field that a name stands for, and the value it gets: for a parent, the id of its record."""
        parent = kind.parent_field(name) if isinstance(value, Mapping) else None
        if parent is not None:
            return parent, self._parent_id(parent, value)
        field = kind.field(name)
        if field is None:
            raise RowRefusedError("INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}")
        return field, value

    def _parent_id(self, reference: FakeField, parent: Mapping[str, Any]) -> str | None:
        kind = self.object(str(reference.parent))
        ((name, value),) = ((name, value) for name, value in parent.items() if name != "attributes")
        field = kind.field(name)
        if field is None or not field.identifies:
            message = f"Field name provided, {name} is not an External ID or indexed field for {kind.name}"
            raise RowRefusedError("INVALID_FIELD", message)
        if value is None:
            return None
        found = self.find(kind, field, value)
        if len(found) != 1:
            message = f"Foreign key external ID: {value} not found for field {field.name} in entity {kind.name}"
            raise RowRefusedError("INVALID_FIELD", message)
        return str(found[0]["Id"])

    def _require_parent(self, field: FakeField, record_id: str) -> None:
        if self.get(self.object(str(field.parent)), record_id) is None:
            raise RowRefusedError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", (field.name,))

    def _require_unique(self, kind: FakeObject, values: Mapping[str, Any], record_id: str | None) -> None:
        for field in kind.fields:
            if field.unique and field.name in values:
                for other in self.find(kind, field, values[field.name]):
                    if other["Id"] != record_id:
                        message = f"duplicate value found: {field.name} duplicates value on record with id: "
                        raise RowRefusedError("DUPLICATE_VALUE", message + str(other["Id"])[:15], (field.name,))


def _not_writable(field: FakeField) -> RowRefusedError:
    message = (
        f"Unable to create/update fields: {field.name}. Please check the security settings of this field and verify "
        "that it is read/write for your profile or permission set."
    )
    return RowRefusedError("INVALID_FIELD_FOR_INSERT_UPDATE", message, (field.name,))


def _number(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, len(_DIGITS))
        digits = _DIGITS[rest] + digits
    return digits.rjust(12, "0")


def long_id(short: str) -> str:
    """The id of 18 characters: the last three say which of the others are upper-case.

    https://help.salesforce.com/s/articleView?id=000383751
    """
    bits = [sum(1 << place for place, c in enumerate(short[at : at + 5]) if c.isupper()) for at in (0, 5, 10)]
    return short + "".join(_SUFFIXES[each] for each in bits)
