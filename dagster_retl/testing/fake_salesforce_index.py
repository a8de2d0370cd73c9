"""Records of a fake org by the value of a field, as indexed fields are found in a real one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from dagster_retl.testing.fake_salesforce_schema import FakeField, FakeObject
from dagster_retl.testing.fake_salesforce_values import comparable

Record = dict[str, Any]


class RecordIndex:
    """Finds records by fields; a field is indexed when it is first asked for.

    An entry may be out of date, since records change and go: what it leads to is looked at again.
    """

    def __init__(self, records: Mapping[str, Mapping[str, Record]]) -> None:
        self._records = records
        self._ids: dict[tuple[str, str], dict[Hashable, dict[str, None]]] = {}

    def find(self, kind: FakeObject, field: FakeField, value: Any) -> list[Record]:
        """The records of an object whose field has that value."""
        wanted = comparable(field, value)
        if wanted is None:
            return []
        of_kind = self._records[kind.name]
        records = [of_kind[each] for each in self._of(kind, field).get(wanted, ()) if each in of_kind]
        return [record for record in records if comparable(field, record.get(field.name)) == wanted]

    def note(self, kind: FakeObject, record_id: str, values: Mapping[str, Any]) -> None:
        """A record has these values now."""
        for name, value in values.items():
            field = kind.field(name)
            if field is not None and (kind.name, field.name) in self._ids:
                self._add(self._ids[kind.name, field.name], field, record_id, value)

    def clear(self) -> None:
        """Fields are not what they were."""
        self._ids.clear()

    def _of(self, kind: FakeObject, field: FakeField) -> dict[Hashable, dict[str, None]]:
        place = (kind.name, field.name)
        if place not in self._ids:
            self._ids[place] = {}
            for record_id, record in self._records[kind.name].items():
                self._add(self._ids[place], field, record_id, record.get(field.name))
        return self._ids[place]

    def _add(self, ids: dict[Hashable, dict[str, None]], field: FakeField, record_id: str, value: Any) -> None:
        known = comparable(field, value)
        if known is not None:
            ids.setdefault(known, {})[record_id] = None
