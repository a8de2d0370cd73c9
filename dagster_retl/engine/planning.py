"""From the query to the plan: staging, diff, guards. Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dagster_retl.changes.diff import DiffRules, PlanTotals, diff, unhashed
from dagster_retl.changes.keys import key_of
from dagster_retl.changes.partitions import find_moved, in_partition
from dagster_retl.changes.row_hash import terms_of
from dagster_retl.changes.shortcut import count_rows
from dagster_retl.changes.snapshot import hashed_under, load_snapshot, narrow, overlay_accepted
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.fingerprints import fill_fingerprints
from dagster_retl.engine.guards import contract_guard, override_note, plan_guards
from dagster_retl.engine.phase import OnPhase, Phase
from dagster_retl.engine.plan import Plan, sample, sample_failing
from dagster_retl.engine.reading import Reading, choose_reading
from dagster_retl.engine.spool import Spool
from dagster_retl.engine.stage import BLOCK_ROWS, Stage
from dagster_retl.engine.watermark import CursorColumn, check_cursors, cursor_column
from dagster_retl.engine.workspace import Workspace
from dagster_retl.errors import ConfigurationError, GuardTrippedError
from dagster_retl.mapping.compile import compile_mapping
from dagster_retl.model.rows import Counters, FieldType, KeyForm
from dagster_retl.model.runs import Guard, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.sources.base import Source
from dagster_retl.store.dead_letters import KEYLESS
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
    rearmed: pa.Table

    @property
    def lookups(self) -> pa.Table:
        """`key` and `record_keys` of all that has to be read, whatever its cursor says."""
        own = self.letters.filter(pc.invert(pc.starts_with(self.letters.column("key"), KEYLESS)))
        return pa.concat_tables([each.select(["key", "record_keys"]) for each in (own, self.suspects, self.rearmed)])


@dataclass(frozen=True, slots=True)
class _Staged:
    """A query's result, once it was read. notes: of the source. cursor: the watermark's column.

    hash_terms: of the rows' hashes. by_hash: these are the snapshot's terms too, so that fingerprints wait.
    """

    fields: tuple[FieldType, ...]
    rows: Spool
    hash_terms: str | None
    by_hash: bool
    notes: Sequence[str]
    cursor: CursorColumn | None


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
            retry_parked=self.options.full_refresh or self.options.baseline or bool(self.options.replay),
            by_key=bool(self.options.keys),
            limit=self.options.limit,
            keyed=bool(self.sync.key_fields),
            compare=self.sync.change_detection != "none",
            baseline=self.options.baseline,
            partition=self.options.partition,
            refresh=self.options.full_refresh and self.options.partition is not None,
        )

    def plan(self, memory: Memory, discovery: Discovery, *, reason: str, notes: Sequence[str] = ()) -> Plan:
        """Read everything, decide everything. A tripped guard is in the plan, not raised; an overridden one, a note.

        notes: what people should know besides.
        """
        self.on_phase(Phase.EXTRACT, Counters())
        reading = self._reading(memory)
        staged = self._stage(memory, reading)
        fields, rows = staged.fields, staged.rows
        self.on_phase(Phase.DIFF, Counters())
        self._remember(memory, reading, staged.hash_terms)
        rules = replace(self.rules, windowed=reading.since is not None)
        fill = partial(self._fill_fingerprints, staged, memory.pointer) if staged.by_hash else None
        totals = diff(self.space.connection, rules, fill=fill)
        rehash = self._rehash(memory, staged)
        moved = find_moved(self.space.connection, self.options.partition)
        tripped = self._tripped(fields, totals, memory.pointer, discovery)
        overridden = [guard for guard in tripped if Guard(guard.guard) in self.options.overrides]
        held = [f"no removals: {totals.removals_held}"] if totals.removals_held else []
        return Plan(
            totals=totals,
            batches=0,
            rules=rules,
            reading=replace(reading, cursor=staged.cursor),
            samples=sample(self.space.connection, rows, fields, self.connector.spec.wire_form),
            failing=sample_failing(self.space.connection),
            guards=[guard for guard in tripped if guard not in overridden],
            warnings=[*reading.warnings, *notes, *staged.notes, *held, *map(override_note, overridden)],
            reason=f"{reason}: {reading.about}" if reading.about else reason,
            fields=fields,
            rows=rows,
            hash_terms=staged.hash_terms,
            rehash=rehash,
            moved=moved,
        )

    def _reading(self, memory: Memory) -> Reading:
        form = self.connector.key_form(self.sync.object_name)
        watermark, lookups = memory.pointer.watermark, memory.lookups
        return choose_reading(self.sync, self.source, self.sql, form, watermark, lookups, self.options)

    def _stage(self, memory: Memory, reading: Reading) -> _Staged:
        pointer = memory.pointer
        form = self.connector.key_form(self.sync.object_name)
        with (
            self.source.read(reading.sql, block_rows=BLOCK_ROWS) as extract,
            compile_mapping(self.sync.field_mappings, extract.schema) as mapping,
        ):
            cursor = cursor_column(self.sync, extract.schema)
            terms = terms_of(mapping.fields) if self.rules.by_fingerprint else None
            computed = pointer.stale or self.rules.baseline or self.rules.refresh
            by_hash = not computed and hashed_under(memory.generation, terms)
            stage = Stage(
                mapping.fields,
                form,
                self.connector.spec.wire_form,
                pointer.fingerprint_version,
                self._asked(form),
                cursor.number if cursor else None,
                hashed=terms is not None,
                fingerprinted=not by_hash,
                partition=self.options.parted_by,
            )
            rows = stage.fill(self.space, mapping, extract)
        if cursor:
            check_cursors(self.space.connection, cursor)
        return _Staged(tuple(mapping.fields), rows, terms, by_hash, extract.notes, cursor)

    def _fill_fingerprints(self, staged: _Staged, pointer: Pointer, numbers: str) -> None:
        """Compute what was not computed while the rows were read: for few rows, as a rule."""
        fill_fingerprints(self.space, staged.rows, staged.fields, pointer.fingerprint_version, numbers)

    def _rehash(self, memory: Memory, staged: _Staged) -> bool:
        """Whether the next generation should take the hashes that this run knows: the table `hashed`.

        Without it, rows whose entry has none (a partial run wrote the generation, under new terms) would be
        fingerprinted by every run.
        """
        if staged.hash_terms is None or memory.generation is None or self.options.partial:
            return False
        rows = "candidates" if staged.by_hash else "staged"
        known = f"SELECT key, fingerprint, row_hash FROM {rows} WHERE key IS NOT NULL AND error IS NULL"
        self.space.connection.execute(f"CREATE OR REPLACE VIEW hashed AS {known}")
        return not staged.by_hash or unhashed(self.space.connection) > 0

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

    def _remember(self, memory: Memory, reading: Reading, terms: str | None) -> None:
        connection = self.space.connection
        connection.register("incoming", pa.table({"key": pa.array(reading.looked_up, pa.string())}))
        connection.execute("CREATE OR REPLACE TABLE looked_up AS SELECT * FROM incoming")
        connection.unregister("incoming")
        load_snapshot(connection, memory.generation, stale=memory.pointer.stale, terms=terms)
        tables = {"suspects": memory.suspects, "letters": memory.letters, "silenced": memory.silenced}
        for name, table in (tables | {"accepted": memory.accepted}).items():
            connection.register("incoming", table)
            connection.execute(
                f"CREATE OR REPLACE TABLE {name} AS SELECT * REPLACE (fingerprint::UUID AS fingerprint) FROM incoming"
            )
            connection.unregister("incoming")
        if memory.accepted.num_rows:
            overlay_accepted(connection)
        if self.options.parted_by is not None:
            narrow(connection, self.options.parted_by)

    def _tripped(
        self, fields: tuple[FieldType, ...], totals: PlanTotals, pointer: Pointer, discovery: Discovery
    ) -> list[GuardTrippedError]:
        delivered, last = pointer.rows, pointer.source_rows
        if self.options.partition is not None:  # of its last read is known what was delivered
            query = f"SELECT count(*) FROM snapshot WHERE {in_partition(self.options.partition)}"
            delivered = last = count_rows(self.space.connection, query)
        tripped = list(plan_guards(self.sync, totals, self.options, snapshot_rows=delivered, last_source_rows=last))
        if (totals.send or totals.removals_sent) and not self.options.baseline:
            contract = contract_guard(self.sync, fields, discovery.fields(self.sync.object_name))
            tripped = [contract, *tripped] if contract else tripped
        return tripped
