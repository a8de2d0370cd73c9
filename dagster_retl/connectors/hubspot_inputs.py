"""Rows as the inputs of a batch: properties, and what addresses the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagster_retl.connectors.http_url import text_of
from dagster_retl.connectors.hubspot_paths import RECORD_ID
from dagster_retl.connectors.hubspot_values import split_associations, texts_of
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation, Row

VERBS: Mapping[Operation, str] = {
    Operation.UPSERT: "upsert",
    Operation.INSERT: "create",
    Operation.UPDATE: "update",
}


@dataclass(frozen=True, slots=True)
class Link:
    """A parent that a record is to be linked to. spec: the association type, as HubSpot writes it."""

    association: str
    to_object: str
    to_id: str
    spec: Mapping[str, Any]

    def as_input(self) -> Mapping[str, Any]:
        """As the input of a new record has it."""
        return {"to": {"id": self.to_id}, "types": [self.spec]}


@dataclass(frozen=True, slots=True)
class Draft:
    """A row on its way. id: addresses its record, None for a new one; by: the property that this is a value of.

    parents: the value of each association; links: the parents, once they were found.
    """

    row: Row
    properties: Mapping[str, str]
    parents: Mapping[str, str]
    id: str | None = None
    by: str | None = None
    links: Sequence[Link] = ()

    def as_input(self, trace_id: str, operation: Operation) -> Mapping[str, Any]:
        """The input of a batch. New records take their links along."""
        address = {name: value for name, value in (("id", self.id), ("idProperty", self.by)) if value is not None}
        links = [link.as_input() for link in self.links] if operation is Operation.INSERT else []
        extra = {"associations": links} if links else {}
        return {**address, **extra, "objectWriteTraceId": trace_id, "properties": self.properties}


def key_property(batch: Batch) -> str | None:
    """The property that identifies records; None for rows without a key.

    Raises `CONFIGURATION` for what HubSpot cannot do.
    """
    names = batch.key_fields
    if batch.operation is Operation.INSERT:
        return names[0] if len(names) == 1 else None
    if len(names) != 1:
        raise DestinationError(
            f"HubSpot identifies a record by one property, the sync has the key fields {', '.join(names) or 'none'}",
            code=ErrorCode.CONFIGURATION,
            hint="Give the sync one key field: a property with unique values, or `hs_object_id`.",
        )
    if batch.operation is Operation.UPSERT and names[0] == RECORD_ID:
        raise DestinationError(
            "`hs_object_id` is given by HubSpot: no record can be created with it, so it is no key for mode `upsert`",
            code=ErrorCode.CONFIGURATION,
            hint="Use mode `update`, or a property with unique values as key.",
        )
    return names[0]


def key_text(row: Row, name: str) -> str:
    """A row's value of a key field, as text."""
    return text_of(row.key_values[name])


def drafts_of(batch: Batch, key: str | None) -> list[Draft]:
    """The rows of a batch; the key has the same text wherever it is sent."""
    drafts = [_draft(row, document) for row, document in zip(batch.rows, batch.documents, strict=True)]
    return [_with_key(draft, key) for draft in drafts] if key else drafts


def _draft(row: Row, document: bytes) -> Draft:
    properties, parents = split_associations(texts_of(document))
    return Draft(row, properties, parents)


def _with_key(draft: Draft, key: str) -> Draft:
    others = {name: text for name, text in draft.properties.items() if name != key}
    if key == RECORD_ID:
        return replace(draft, properties=others)
    return replace(draft, properties={key: key_text(draft.row, key), **others})
