"""What the destination holds now for the examples of a plan, where it can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from dagster_retl.connectors.base import AnyConnector, Connector
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.plan import Plan, PlannedRow
from dagster_retl.errors import DestinationError
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.model.sync import Sync


@dataclass(frozen=True, slots=True)
class _Asked:
    """A row of which only its identity matters; satisfies `model.rows.Row`."""

    key: str
    key_values: Mapping[str, Any]
    record_id: str | None
    idempotency_key: str = ""

    @property
    def values(self) -> Mapping[str, Any]:
        return self.key_values

    @property
    def json(self) -> orjson.Fragment:
        return orjson.Fragment(orjson.dumps(dict(self.key_values)))


def with_present(plan: Plan, connector: AnyConnector, sync: Sync, discovery: Discovery) -> Plan:
    """The plan, with what is there now beside what will be; a warning where it cannot be read."""
    if not plan.samples or not isinstance(connector, Connector) or not connector.can_read(sync.object_name):
        return plan
    fields = list(dict.fromkeys(name for row in plan.samples for name in (*row.record_keys, *row.values)))
    try:
        samples = [
            found
            for start in range(0, len(plan.samples), connector.batch_rows)
            for found in _read(plan.samples[start : start + connector.batch_rows], sync, discovery, fields)
        ]
    except DestinationError as error:
        warning = f"what the destination holds now could not be read: {error.message}"
        return replace(plan, warnings=[*plan.warnings, warning])
    return replace(plan, samples=samples)


def _read(rows: Sequence[PlannedRow], sync: Sync, discovery: Discovery, fields: Sequence[str]) -> list[PlannedRow]:
    asked = [_Asked(row.key, row.record_keys, row.record_id) for row in rows]
    found = discovery.read(Batch(sync.object_name, Operation.UPSERT, asked, sync.key_fields), fields)
    return [replace(row, present=found.get(row.key, {})) for row in rows]
