"""Which records the rows of a batch are: by the ids that earlier writes kept, or by a query on the key field."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.salesforce_api import Api
from dagster_retl.connectors.salesforce_fields import Catalogue, KeyField
from dagster_retl.connectors.salesforce_soql import Record, queries, records_of, value_at
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault, Row

ID = "Id"
_RECORD_ID = re.compile(r"[0-9A-Za-z]{15}([0-9A-Za-z]{3})?")


def only_key(key_fields: Sequence[str], purpose: str) -> str:
    """The one key field that a purpose needs. Raises `DestinationError` (`CONFIGURATION`) otherwise."""
    if len(key_fields) == 1 and "." not in key_fields[0]:
        return key_fields[0]
    raise DestinationError(
        f"{purpose} needs one key field of the object itself, not {', '.join(key_fields) or 'none'}",
        code=ErrorCode.CONFIGURATION,
        hint="Let the key be an external id of the object, or `Id`.",
    )


def is_id(field: str) -> bool:
    """Whether a key field is the record's own id."""
    return field.lower() == ID.lower()


class Lookup:
    """Finds records."""

    def __init__(self, api: Api, catalogue: Catalogue) -> None:
        self._api = api
        self._catalogue = catalogue

    def record_ids(self, batch: Batch, rows: Sequence[Row]) -> Exchange[tuple[Mapping[str, str], Mapping[str, Fault]]]:
        """Row key → record id for rows whose record was found, and → fault for the others."""
        key = only_key(batch.key_fields, "finding records")
        if is_id(key):
            return _own_ids(rows, key)
        found = yield from self._find(batch.object_name, key, rows, [ID])
        ids, faults = {}, {}
        for row in rows:
            records = found.get(row.key, [])
            if len(records) == 1:
                ids[row.key] = str(value_at(records[0], ID))
            else:
                faults[row.key] = _not_one(batch.object_name, key, row, records)
        return ids, faults

    def read(self, batch: Batch, fields: Sequence[str]) -> Exchange[Mapping[str, Mapping[str, Any]]]:
        """Row key → field → value for the rows that have a record; of several, the first."""
        key = only_key(batch.key_fields, "reading")
        found = yield from self._find(batch.object_name, key, batch.rows, fields)
        return {row: {field: value_at(records[0], field) for field in fields} for row, records in found.items()}

    def _find(
        self, object_name: str, key: str, rows: Sequence[Row], fields: Sequence[str]
    ) -> Exchange[Mapping[str, list[Record]]]:
        """Row key → records. Rows whose key cannot be one of the field's have none."""
        field = (
            KeyField(ID, case_sensitive=True)
            if is_id(key)
            else (yield from self._catalogue.key_field(object_name, key))
        )
        literals = _literals(field, rows)
        wanted = list({name.lower(): name for name in (*fields, field.name)}.values())
        by_value: defaultdict[str, list[Record]] = defaultdict(list)
        for soql in queries(object_name, wanted, field.name, list(dict.fromkeys(literals.values()))):
            for record in (yield from records_of(self._api, soql)):
                by_value[_normal(field, value_at(record, field.name))].append(record)
        values = {row.key: _normal(field, row.key_values[key]) for row in rows if row.key in literals}
        return {row: by_value[value] for row, value in values.items() if value in by_value}


def _literals(field: KeyField, rows: Sequence[Row]) -> dict[str, str]:
    """Row key → what stands for it in a query."""
    literals = {}
    for row in rows:
        (value,) = row.key_values.values()
        if field.name == ID and not _RECORD_ID.fullmatch(str(value)):
            continue
        try:
            literals[row.key] = field.literal(value)
        except ValueError:  # such a value is in no record
            continue
    return literals


def _normal(field: KeyField, value: Any) -> str:
    """Ids have a long form and a short one, which tells them apart."""
    return str(value)[:15] if field.name == ID else field.normal(value)


def _own_ids(rows: Sequence[Row], key: str) -> tuple[Mapping[str, str], Mapping[str, Fault]]:
    ids = {row.key: str(row.key_values[key]) for row in rows}
    malformed = {row: value for row, value in ids.items() if not _RECORD_ID.fullmatch(value)}
    faults = {
        row: Fault(ErrorCode.TYPE_COERCION, f"{value!r} is no id of a record") for row, value in malformed.items()
    }
    return {row: value for row, value in ids.items() if row not in malformed}, faults


def _not_one(object_name: str, key: str, row: Row, records: Sequence[Record]) -> Fault:
    if not records:
        return Fault(ErrorCode.NOT_FOUND, f"no {object_name} has this {key}")
    ids = ", ".join(str(value_at(record, ID)) for record in records[:5])
    return Fault(ErrorCode.CONFLICT, f"{len(records)} records of {object_name} have this {key}: {ids}")
