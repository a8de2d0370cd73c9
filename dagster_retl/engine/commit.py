"""From a run's ledger to its end: the next snapshot generation, suspects, counters, one transaction.

An ordinary run, a failing one and the recovery of a killed one take the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import Connection

from dagster_retl.changes import fold
from dagster_retl.changes.fold import UnansweredRow
from dagster_retl.changes.history import anything_sent, write_history
from dagster_retl.changes.outcomes import outcome_table
from dagster_retl.changes.snapshot import all_stale, hash_terms_of, literal, load_snapshot, write_generation
from dagster_retl.engine.ending import Ending
from dagster_retl.engine.workspace import Workspace
from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.rows import Counters, Operation
from dagster_retl.store.clock import to_text
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.files import Stored
from dagster_retl.store.leases import Lease
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State, generation_name, history_name
from dagster_retl.store.store import Store
from dagster_retl.store.suspects import Suspect

_OUTCOME_BATCHES = 500


@dataclass(frozen=True, slots=True)
class Books:
    """What a run's plan promised: needed to balance it, whoever closes it.

    by_watermark: rows that a watermark passes, and that nothing else would bring back, are kept by key.
    hash_terms: of the manifest's row hashes; None: it has none. partition: that it is of, by its identity.
    """

    epoch: str
    mode: str
    manifest: str | None
    checksum: str | None
    settle: float
    holds_unknown: bool
    counters: Counters
    by_watermark: bool = False
    hash_terms: str | None = None
    partition: str | None = None

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Books:
        return cls(**{**plan, "counters": Counters(**plan["counters"])})

    def to_plan(self) -> dict[str, Any]:
        """As the store keeps it."""
        return asdict(self)

    def nothing_sent(self) -> Counters:
        """The counters of a run of which no answer is known yet."""
        planned = self.counters
        return replace(planned, skipped=planned.skipped + planned.due, delete_skipped=planned.removed)

    def nothing_known(self) -> Counters:
        """The counters of a run whose answers cannot be read: what it was to send may have been sent."""
        planned = self.counters
        return replace(planned, unknown=planned.due, delete_unknown=planned.removals_due)


@dataclass(frozen=True, slots=True)
class Folded:
    """A run's ledger, folded: what the committing transaction writes. warnings: what could not be kept.

    again: (key, record_keys) of rows that the next run reads by key. reread: ids of such keys that were read.
    """

    pointer: Pointer
    counters: Counters
    suspects: Sequence[Suspect]
    cleared: Sequence[int]
    held: Sequence[Failure]
    acceptances: Sequence[int]
    history: Stored | None = None
    warnings: Sequence[str] = ()
    again: Sequence[tuple[str, str]] = ()
    reread: Sequence[int] = ()


def close_counters(books: Books, rows: fold.Tally, removals: fold.Tally) -> Counters:
    """The plan's totals and the ledger's answers, added up."""
    planned = books.counters
    return replace(
        planned,
        written=rows.written,
        unconfirmed=rows.unconfirmed,
        failed=planned.failed + rows.failed,
        skipped=planned.skipped + rows.missing + rows.not_sent,
        unknown=rows.unknown,
        deleted=removals.written,
        delete_failed=removals.failed,
        delete_skipped=planned.delete_skipped + removals.missing + removals.not_sent,
        delete_unknown=removals.unknown,
    )


def load_answers(connection: duckdb.DuckDBPyConnection, store: Store, state: State, run_id: str, books: Books) -> None:
    """A run's manifest and ledger as the tables that `changes.fold` works on.

    Raises `StateMissingError` when the manifest cannot be read.
    """
    connection.execute(f"CREATE OR REPLACE TABLE no_manifest ({fold.MANIFEST_COLUMNS})")
    rows = "SELECT * FROM no_manifest"
    if books.manifest is not None:  # one of an older version may lack a column
        file = literal(str(state.local_path(books.manifest, books.checksum or "")))
        rows = f"{rows} UNION ALL BY NAME SELECT * FROM read_parquet({file})"
    connection.execute(f"CREATE OR REPLACE VIEW manifest AS {rows}")
    _load_ledger(connection, store, run_id)


def load_refusals(connection: duckdb.DuckDBPyConnection, store: Store, sync_id: str, epoch: str, run_id: str) -> None:
    """Why rows of a run failed, as the table that `changes.history` works on."""
    _create(connection, "refusals", store.dead_letters.refusals(sync_id, epoch, run_id))


def _load_ledger(connection: duckdb.DuckDBPyConnection, store: Store, run_id: str) -> None:
    _create(connection, "outcomes", outcome_table([]))
    started: list[tuple[int, str]] = []
    answered: list[tuple[int, str, bytes]] = []
    for batch in store.ledger.batches(run_id):
        started.append((batch.number, batch.started_at))
        if batch.outcomes is not None:
            answered.append((batch.number, batch.started_at, batch.outcomes))
        if len(answered) >= _OUTCOME_BATCHES:
            _append(connection, "outcomes", outcome_table(answered))
            answered = []
    _append(connection, "outcomes", outcome_table(answered))
    numbers, times = [number for number, _ in started], [at for _, at in started]
    columns = {"batch": pa.array(numbers, pa.int32()), "started_at": pa.array(times, pa.string())}
    _create(connection, "started", pa.table(columns))


class Closer:
    """Folds and closes the runs of one sync, under one lease."""

    def __init__(self, store: Store, state: State, lease: Lease, space: Workspace, *, keeps_history: bool) -> None:
        self._store = store
        self._state = state
        self._lease = lease
        self._space = space
        self._keeps_history = keeps_history

    def fold(
        self,
        run_id: str,
        books: Books,
        pointer: Pointer,
        *,
        accept_all: bool = False,
        rehash: bool = False,
        moved: bool = False,
    ) -> Folded:
        """Build the next generation (if anything changed) from a run's manifest and ledger.

        accept_all: the manifest was not sent, and counts as accepted now. rehash: the run knows the row hashes of
        all rows, and those of the snapshot are of other terms. moved: it knows which keys came to lie in its partition.
        """
        connection = self._space.connection
        self._load(run_id, books, pointer)
        now = self._store.now()
        if accept_all:
            fold.accept_all(connection, to_text(now))
        fold.answer(connection)
        query = fold.next_snapshot(rehash=rehash, partition=books.partition, moved=moved)
        connection.execute(f"CREATE OR REPLACE VIEW snapshot_next AS {query}")
        # Exactly those that are folded: somebody may decide about another row in this very moment.
        accepted = [row[0] for row in connection.execute("SELECT id FROM accepted").fetchall()]
        changed = fold.changed_rows(connection) or accepted or pointer.stale or rehash or moved
        until = to_text(now + timedelta(seconds=books.settle))
        held = self._held(until, books.partition) if books.holds_unknown else []
        folded = Folded(
            pointer=self._next_generation(pointer, query, books.hash_terms) if changed else pointer,
            counters=close_counters(books, fold.tally(connection, removal=False), fold.tally(connection, removal=True)),
            suspects=[] if books.holds_unknown else self._suspects(until, books.partition),
            cleared=fold.cleared_suspects(connection, to_text(now)),
            held=held,
            acceptances=accepted,
            again=fold.not_found(connection) if books.by_watermark else (),
        )
        keeps_history = self._keeps_history and not accept_all and anything_sent(connection)
        return self._with_history(folded, run_id) if keeps_history else folded

    def forget_fingerprints(self, pointer: Pointer, partition: str) -> Pointer:
        """The pointer of a generation in which no fingerprint of this partition counts, which is written for it."""
        generation = self._state.local_path(pointer.generation, pointer.checksum or "") if pointer.generation else None
        if generation is None:
            return pointer
        terms = hash_terms_of(generation)
        load_snapshot(self._space.connection, generation, stale=pointer.stale, terms=terms)
        return replace(self._next_generation(pointer, all_stale(partition), terms), stale=pointer.stale)

    def commit(self, conn: Connection, run_id: str, folded: Folded, ending: Ending) -> None:
        """Everything that ends a run, in the caller's fenced transaction. Frees no lease."""
        if ending.source_rows is not None:
            folded = replace(folded, pointer=replace(folded.pointer, source_rows=ending.source_rows))
        ending = replace(ending, warnings=(*ending.warnings, *folded.warnings))
        self.save(conn, run_id, folded)
        self.close(conn, run_id, ending, folded.counters)

    def save(self, conn: Connection, run_id: str, folded: Folded) -> None:
        """What a fold found out, without closing the run."""
        store, sync_id, epoch = self._store, folded.pointer.sync_id, folded.pointer.epoch
        store.snapshots.save(conn, folded.pointer)
        store.suspects.remove(conn, folded.cleared)
        store.suspects.add(conn, sync_id, epoch, folded.suspects)
        if folded.held:
            store.dead_letters.fail(conn, sync_id, epoch, run_id, folded.held)
        store.acceptances.remove(conn, folded.acceptances)
        if folded.history is not None:
            store.history.add(conn, sync_id, epoch, run_id, folded.history)
        store.rearmed.remove(conn, folded.reread)
        store.rearmed.add(conn, sync_id, epoch, folded.again)
        store.ledger.forget(conn, run_id)

    def close(self, conn: Connection, run_id: str, ending: Ending, counters: Counters) -> None:
        """Close a run that has nothing to fold."""
        self._store.dead_letters.clear_replaying(conn, run_id)
        self._store.runs.finish(
            conn,
            run_id,
            ending.status,
            counters,
            error_code=ending.error_code,
            error_message=ending.error_message,
            guard=ending.guard,
            warnings=ending.warnings,
        )

    def _load(self, run_id: str, books: Books, pointer: Pointer) -> None:
        connection = self._space.connection
        generation = self._state.local_path(pointer.generation, pointer.checksum or "") if pointer.generation else None
        load_snapshot(connection, generation, stale=pointer.stale, terms=books.hash_terms)
        load_answers(connection, self._store, self._state, run_id, books)
        connection.execute(fold.FORGOTTEN)
        _create(connection, "accepted", self._store.acceptances.table(pointer.sync_id, pointer.epoch))
        _create(connection, "suspects", self._store.suspects.table(pointer.sync_id, pointer.epoch))

    def _next_generation(self, pointer: Pointer, query: str, terms: str | None) -> Pointer:
        name = generation_name(self._store.uuid, pointer.sync_id, self._lease.token)
        write = partial(write_generation, self._space.connection, query, terms=terms)
        stored = self._state.write(name, write)
        return replace(pointer, generation=stored.name, rows=stored.rows or 0, checksum=stored.checksum, stale=False)

    def _with_history(self, folded: Folded, run_id: str) -> Folded:
        """The history is for people: a run goes on without it, and says so."""
        connection, pointer = self._space.connection, folded.pointer
        load_refusals(connection, self._store, pointer.sync_id, pointer.epoch, run_id)
        name = history_name(self._store.uuid, pointer.sync_id, self._lease.token)
        try:
            stored = self._state.write(name, lambda path: write_history(connection, path))
        except RetlError as error:
            return replace(folded, warnings=[f"what became of single rows was not written down: {error.message}"])
        return replace(folded, history=stored)

    def _suspects(self, until: str, partition: str | None) -> list[Suspect]:
        return [
            Suspect(row.key, row.record_keys, row.content, until, partition)
            for block in fold.unanswered(self._space.connection)
            for row in block
        ]

    def _held(self, until: str, partition: str | None) -> list[Failure]:
        return [
            _unknown(row, until, partition) for block in fold.never_answered(self._space.connection) for row in block
        ]


def _unknown(row: UnansweredRow, until: str, partition: str | None) -> Failure:
    return Failure(
        key=row.key,
        record_keys=row.record_keys,
        code=ErrorCode.UNKNOWN_OUTCOME,
        vendor_code=None,
        message="the run ended while this row was on its way; whether it arrived is unknown",
        operation=Operation(row.operation),
        fingerprint=row.content,
        rejection=False,
        held=True,
        held_until=until,
        partition=partition,
    )


def _create(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("incoming", table)
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM incoming")
    connection.unregister("incoming")


def _append(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("incoming", table)
    connection.execute(f"INSERT INTO {name} SELECT * FROM incoming")
    connection.unregister("incoming")
