"""From the query to the plan: staging, diff, guards. Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dagster_retl.changes.diff import DiffRules, PlanTotals, diff
from dagster_retl.changes.keys import key_of
from dagster_retl.changes.snapshot import load_snapshot, overlay_accepted
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.guards import contract_guard, override_note, plan_guards
from dagster_retl.engine.phase import OnPhase, Phase
from dagster_retl.engine.plan import Plan, sample, sample_failing
from dagster_retl.engine.spool import Spool
from dagster_retl.engine.stage import BLOCK_ROWS, Stage
from dagster_retl.engine.workspace import Workspace
from dagster_retl.errors import ConfigurationError, GuardTrippedError
from dagster_retl.mapping.compile import compile_mapping
from dagster_retl.model.rows import Counters, FieldType, KeyForm
from dagster_retl.model.runs import Guard, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.sources.base import Source
from dagster_retl.store.snapshots import Pointer


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a sync: where its snapshot lies, and what the store knows besides."""

    pointer: Pointer
    generation: Path | None
    suspects: pa.Table
    letters: pa.Table
    silenced: pa.Table
    accepted: pa.Table


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes the plan of one run of one sync."""

    sync: Sync
    connector: AnyConnector
    source: Source
    sql: str
    options: RunOptions
    space: Workspace
    on_phase: OnPhase

    @property
    def rules(self) -> DiffRules:
        return DiffRules(
            mode=self.sync.sync_mode,
            max_attempts=self.sync.max_attempts,
            complete=not self.options.partial,
            retry_parked=self.options.full_refresh or bool(self.options.replay),
            by_key=bool(self.options.keys),
            limit=self.options.limit,
            keyed=bool(self.sync.key_fields),
        )

    def plan(self, memory: Memory, discovery: Discovery, *, reason: str, notes: Sequence[str] = ()) -> Plan:
        """Read everything, decide everything. A tripped guard is in the plan, not raised; an overridden one, a note.

        notes: what people should know besides.
        """
        self.on_phase(Phase.EXTRACT, Counters())
        fields, rows, of_source = self._stage(memory.pointer)
        self.on_phase(Phase.DIFF, Counters())
        self._remember(memory)
        totals = diff(self.space.connection, self.rules)
        tripped = self._tripped(fields, totals, memory.pointer, discovery)
        overridden = [guard for guard in tripped if Guard(guard.guard) in self.options.overrides]
        held = [f"no removals: {totals.removals_held}"] if totals.removals_held else []
        return Plan(
            totals=totals,
            batches=0,
            samples=sample(self.space.connection, rows, fields, self.connector.spec.wire_form),
            failing=sample_failing(self.space.connection),
            guards=[guard for guard in tripped if guard not in overridden],
            warnings=[*notes, *of_source, *held, *map(override_note, overridden)],
            reason=reason,
            fields=fields,
            rows=rows,
        )

    def _stage(self, pointer: Pointer) -> tuple[tuple[FieldType, ...], Spool, Sequence[str]]:
        with (
            self.source.read(self.sql, block_rows=BLOCK_ROWS) as extract,
            compile_mapping(self.sync.field_mappings, extract.schema) as mapping,
        ):
            form = self.connector.key_form(self.sync.object_name)
            stage = Stage(
                mapping.fields, form, self.connector.spec.wire_form, pointer.fingerprint_version, self._asked(form)
            )
            rows = stage.fill(self.space, mapping, extract)
            return tuple(mapping.fields), rows, extract.notes

    def _asked(self, form: KeyForm) -> list[str]:
        names = self.sync.key_fields
        asked = []
        for values in self.options.keys:
            key = key_of(values, names, form)
            if key is None:
                raise ConfigurationError(
                    f"{dict(values)} is not a key of sync {self.sync.name!r}",
                    hint=f"Give a value for each key field: {', '.join(names) or 'this sync has none'}.",
                )
            asked.append(key)
        return asked

    def _remember(self, memory: Memory) -> None:
        connection = self.space.connection
        load_snapshot(connection, memory.generation, stale=memory.pointer.stale)
        tables = {"suspects": memory.suspects, "letters": memory.letters, "silenced": memory.silenced}
        for name, table in (tables | {"accepted": memory.accepted}).items():
            connection.register("incoming", table)
            connection.execute(
                f"CREATE OR REPLACE TABLE {name} AS SELECT * REPLACE (fingerprint::UUID AS fingerprint) FROM incoming"
            )
            connection.unregister("incoming")
        if memory.accepted.num_rows:
            overlay_accepted(connection)

    def _tripped(
        self, fields: tuple[FieldType, ...], totals: PlanTotals, pointer: Pointer, discovery: Discovery
    ) -> list[GuardTrippedError]:
        tripped = list(
            plan_guards(
                self.sync, totals, self.options, snapshot_rows=pointer.rows, last_source_rows=pointer.source_rows
            )
        )
        if totals.send or totals.removals_sent:
            contract = contract_guard(self.sync, fields, discovery.fields(self.sync.object_name))
            tripped = [contract, *tripped] if contract else tripped
        return tripped
