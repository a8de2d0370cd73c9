"""One row, explained: what the snapshot, the history and the store say of it, and what a run would do with it now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import duckdb

from dagster_retl.changes import fold
from dagster_retl.changes.history import RowEvent, answered_events, read_history
from dagster_retl.changes.keys import key_of
from dagster_retl.changes.outcomes import Status
from dagster_retl.changes.snapshot import SnapshotRow, find
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.commit import Books, load_answers, load_refusals
from dagster_retl.engine.epoch import key_form_of
from dagster_retl.engine.plan import FailingRow, Plan
from dagster_retl.engine.workspace import workspace
from dagster_retl.errors import ConfigurationError, NotFoundError, RetlError, StateMissingError
from dagster_retl.model.project import EngineSettings
from dagster_retl.model.runs import DeadLetter, Run
from dagster_retl.model.sync import Sync
from dagster_retl.store.clock import from_text
from dagster_retl.store.key_records import Decision, KeyRecord, OpenQuestion
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State
from dagster_retl.store.store import Store

_OUTCOMES = {
    Status.WRITTEN: "written",
    Status.UNCONFIRMED: "unconfirmed",
    Status.FAILED: "failed",
    Status.GONE: "failed",
    Status.MISSING: "missing",
    Status.NOT_SENT: "not_sent",
    Status.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that sent the row. at: when its batch left. outcome: `written`, `unconfirmed`, `failed`,
    `missing` (an update found no record), `not_sent` or `unknown`. content: the version, by its
    fingerprint. folded: false while the snapshot does not know of it. current: of what the sync writes to now.
    """

    at: datetime
    run_id: str
    dagster_run_id: str | None
    operation: str
    removal: bool
    outcome: str
    content: str
    error_code: str | None
    record_id: str | None
    folded: bool = True
    current: bool = True

    @property
    def accepted(self) -> bool:
        return self.outcome in ("written", "unconfirmed")


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the snapshot holds: the version that the destination last accepted.

    content: its fingerprint; None: the record is there, with content that nobody vouches for.
    deleted: the sync deletes, and did. since, run_id: of the run that delivered it, where the
    history goes back that far. partition: in which it was found last, by its identity. record_url: where people see
    the record in the destination's own interface.
    """

    content: str | None
    record_id: str | None
    deleted: bool = False
    stale: bool = False
    since: datetime | None = None
    run_id: str | None = None
    record_url: str | None = None
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """What the query gives, and what the next run would do.

    outcome: `create`, `update`, `delete`, `unchanged`, `skipped` (reason: `held`, `silenced`,
    `parked`, `mode`), `fails` (code and message say why), or `absent`: the query does not give the
    row, and nothing is to be done about it. error: it could not be found out. present: what the destination holds
    of a row that would be written, where it can be read.
    """

    outcome: str | None = None
    reason: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    failing: FailingRow | None = None
    guards: Sequence[RetlError] = ()
    warnings: Sequence[str] = ()
    error: RetlError | None = None
    present: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one row. kept_since: how far the history goes back. missing: what could not be read."""

    sync: Sync
    key: str
    record_keys: Mapping[str, Any]
    delivered: Delivered | None
    attempts: Sequence[Attempt]
    letters: Sequence[DeadLetter]
    suspects: Sequence[OpenQuestion]
    decisions: Sequence[Decision]
    kept_since: datetime | None
    missing: Sequence[str] = ()
    now: Now | None = None

    @property
    def partition(self) -> str | None:
        """The identity of the partition that the row was last seen in, as far as anything tells."""
        if self.letters and self.letters[-1].partition:
            return self.letters[-1].partition
        return self.delivered.partition if self.delivered else None

    def parked(self, letter: DeadLetter) -> bool:
        """Whether this letter's version is out of attempts."""
        return not letter.resolved and letter.rejections >= self.sync.max_attempts

    def silences(self, letter: DeadLetter) -> bool:
        """Whether a person decided to leave this letter's version alone, and nothing came after."""
        return letter.silenced and letter.id == self.letters[-1].id


def explain_row(
    store: Store,
    state: State,
    settings: EngineSettings,
    sync: Sync,
    connector: AnyConnector,
    record_keys: Mapping[str, Any],
) -> Explanation:
    """What is known of the row with these key fields, without asking the warehouse.

    Raises `ConfigurationError` when they are no key of the sync.
    """
    pointer = store.snapshots.pointer(sync.id)
    key = key_of(record_keys, sync.key_fields, key_form_of(sync, connector, pointer))
    if key is None:
        raise ConfigurationError(
            f"{dict(record_keys)} is not a key of sync {sync.name!r}",
            hint=f"Give a value for each key field: {', '.join(sync.key_fields)}.",
        )
    epoch = pointer.epoch if pointer else None
    with workspace(settings) as space:
        reading = _Reading(store, state, sync, key, epoch, space.connection)
        row = reading.snapshot(pointer)
        attempts = sorted(reading.attempts(), key=lambda attempt: attempt.at)
    record: KeyRecord = store.keys.of(sync.id, epoch, key)
    files = store.history.files(sync.id)
    return Explanation(
        sync=sync,
        key=key,
        record_keys=record_keys,
        delivered=_linked(_delivered(row, pointer, attempts), connector, sync),
        attempts=attempts,
        letters=record.letters,
        suspects=record.suspects,
        decisions=record.decisions,
        kept_since=files[0].created_at if files else None,
        missing=reading.missing,
    )


def what_a_run_would_do(plan: Plan) -> Now:
    """The plan of a run for this one key, as what it says of the row."""
    return replace(_fate(plan), guards=tuple(plan.guards), warnings=tuple(plan.warnings))


def _fate(plan: Plan) -> Now:
    totals = plan.totals
    if plan.failing:
        return Now("fails", failing=plan.failing[0])
    if totals.skipped:
        return Now("skipped", next(iter(totals.skipped)))
    if plan.samples:
        row = plan.samples[0]
        return Now(row.change, values=row.values, present=row.present)
    if totals.removed:
        return Now("skipped", "parked")
    return Now("unchanged" if totals.unchanged else "absent")


class _Reading:
    """Reads what files say of a key, and remembers which files could not be read."""

    def __init__(
        self, store: Store, state: State, sync: Sync, key: str, epoch: str | None, connection: duckdb.DuckDBPyConnection
    ) -> None:
        self._store = store
        self._state = state
        self._sync = sync
        self._key = key
        self._epoch = epoch
        self._connection = connection
        self._runs: dict[str, Run | None] = {}
        self.missing: list[str] = []

    def snapshot(self, pointer: Pointer | None) -> SnapshotRow | None:
        if pointer is None or pointer.generation is None:
            return None
        try:
            path = self._state.local_path(pointer.generation, pointer.checksum or "")
        except StateMissingError as error:
            self.missing.append(f"the snapshot: {error.message}")
            return None
        return find(self._connection, path, self._key)

    def attempts(self) -> Iterator[Attempt]:
        """Every time the row was sent: from the history, and from ledgers that are not folded yet."""
        for file in self._store.history.files(self._sync.id):
            try:
                path = self._state.local_path(file.name, file.checksum)
            except StateMissingError as error:
                self.missing.append(f"the history of run {file.run_id}: {error.message}")
                continue
            for event in read_history(self._connection, path, self._key):
                yield self._attempt(event, file.run_id, file.epoch, folded=True)
        for run_id in self._store.ledger.unfolded(self._sync.id):
            yield from self._unfolded(run_id)

    def _unfolded(self, run_id: str) -> Iterator[Attempt]:
        plan = self._store.runs.plan_of(run_id)
        if plan is None:
            return
        books = Books.of(plan)
        try:
            load_answers(self._connection, self._store, self._state, run_id, books)
        except StateMissingError as error:
            self.missing.append(f"what run {run_id} sent: {error.message}")
            return
        fold.answer(self._connection)
        load_refusals(self._connection, self._store, self._sync.id, books.epoch, run_id)
        for event in answered_events(self._connection, self._key):
            yield self._attempt(event, run_id, books.epoch, folded=False)

    def _attempt(self, event: RowEvent, run_id: str, epoch: str, *, folded: bool) -> Attempt:
        run = self._run(run_id)
        return Attempt(
            at=from_text(event.started_at),
            run_id=run_id,
            dagster_run_id=run.dagster_run_id if run else None,
            operation=event.operation,
            removal=event.removal,
            outcome=_OUTCOMES[event.status],
            content=event.content,
            error_code=event.error_code,
            record_id=event.record_id,
            folded=folded,
            current=epoch == self._epoch,
        )

    def _run(self, run_id: str) -> Run | None:
        """None: the run's record was not kept that long."""
        if run_id not in self._runs:
            try:
                self._runs[run_id] = self._store.runs.get(run_id)
            except NotFoundError:
                self._runs[run_id] = None
        return self._runs[run_id]


def _delivered(row: SnapshotRow | None, pointer: Pointer | None, attempts: Sequence[Attempt]) -> Delivered | None:
    if row is None or pointer is None:
        return None
    accepted = [attempt for attempt in attempts if attempt.folded and attempt.current and attempt.accepted]
    last = accepted[-1] if accepted and accepted[-1].content == row.content else None
    return Delivered(
        content=row.content,
        record_id=row.record_id,
        deleted=row.deleted,
        stale=pointer.stale,
        since=last.at if last else None,
        run_id=last.run_id if last else None,
        partition=row.partition,
    )


def _linked(delivered: Delivered | None, connector: AnyConnector, sync: Sync) -> Delivered | None:
    if delivered is None or delivered.record_id is None:
        return delivered
    return replace(delivered, record_url=connector.record_url(sync.object_name, delivered.record_id))
