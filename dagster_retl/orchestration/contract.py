"""What a destination's object looked like when rows were last accepted, and what has changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dagster_retl.engine.guards import contract_guard
from dagster_retl.model.rows import FieldInfo, FieldType
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.checks import last_run
from dagster_retl.service import Service

Types = Mapping[str, str]
"""Field → type, as the destination calls it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What is wrong with a contract. misfit: why rows cannot be written now. changes: what is another type now."""

    misfit: str | None
    changes: Sequence[str]
    fields: int


def drift(service: Service, sync: Sync) -> Drift:
    """Compare the destination's fields with the mapping, and with what they were.

    A changed type is told until a run has delivered rows to it and none failed. Raises
    `DestinationError`, `ConfigurationError`.
    """
    known = service.fields(sync.destination_id, sync.object_name)
    mapped = [FieldType(mapping.destination, pa.null(), mapping.key) for mapping in sync.field_mappings]
    guard = contract_guard(sync, mapped, known)
    changes = _Memory(service, sync).changes(_types(sync, known))
    return Drift(None if guard is None else guard.message, changes, len(known))


def _types(sync: Sync, known: Sequence[FieldInfo]) -> Types:
    """The types of the mapped fields; a dotted field is its first part."""
    names = {mapping.destination.lower() for mapping in sync.field_mappings}
    wanted = names | {name.partition(".")[0] for name in names}
    return {info.name: info.data_type for info in known if info.name.lower() in wanted}


class _Memory:
    """The types of a sync's fields, as the store remembers them."""

    def __init__(self, service: Service, sync: Sync) -> None:
        self._service, self._sync = service, sync
        self._notices = service.store.notices
        self._key = f"contract/{sync.id}/{sync.destination_id}/{sync.object_name}"

    def changes(self, types: Types) -> list[str]:
        remembered = self._notices.get(self._key)
        if remembered is None:
            self._remember("known", types)
            return []
        before: Types = json.loads(remembered.detail)
        changes = list(_differences(before, types))
        if changes and remembered.state == "known":
            self._remember("changed", before)  # from now on, a run that delivers well accepts the new types
        elif not changes or self._delivered_since(remembered.notified_at.isoformat()):
            self._remember("known", {**before, **types})
            return []
        return changes

    def _remember(self, state: str, types: Types) -> None:
        self._notices.put(self._key, state, json.dumps(dict(types)))

    def _delivered_since(self, time: str) -> bool:
        run = last_run(self._service, self._sync)
        if run is None or run.started_at is None or run.started_at.isoformat() < time:
            return False
        return run.counters.written > 0 and run.counters.failed == 0


def _differences(before: Types, now: Types) -> Iterator[str]:
    for name, kind in now.items():
        if before.get(name, kind) != kind:
            yield f"{name} was {before[name]} and is {kind}"
