"""One run of one sync, from the lease to the commit (PROTOCOL 1).

    lease → recover → account and epoch → extract, map, diff → guards → plan is durable
          → deliver → fold → commit, release

Whatever goes wrong after the lease, the run is folded and closed before the error is raised; a
process that dies leaves that to the next run, which does the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from dagster_retl.changes.diff import DiffRules, failures, forgotten_query, keyless_failures, settled_letters
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine import baseline
from dagster_retl.engine.budget import SharedBudget, account_name
from dagster_retl.engine.cleaning import clean
from dagster_retl.engine.commit import Books, Closer, Folded
from dagster_retl.engine.delivery import Delivery, Target
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.ending import Ending, ending_of
from dagster_retl.engine.feed import Intents, batches
from dagster_retl.engine.keeper import LeaseKeeper
from dagster_retl.engine.payload import Limits, Payload
from dagster_retl.engine.phase import OnPhase, Phase
from dagster_retl.engine.plan import Plan, failure_message
from dagster_retl.engine.planning import Memory, Planner
from dagster_retl.engine.recall import Chosen, choose_pointer, recall, recall_latest
from dagster_retl.engine.recorder import GATHERING, Recorder
from dagster_retl.engine.recovery import Recovery
from dagster_retl.engine.sealing import Sealer
from dagster_retl.engine.suspicion import suspects_of
from dagster_retl.engine.workspace import Workspace, workspace
from dagster_retl.errors import CancelledError, ErrorCode, LeaseLostError, RetlError
from dagster_retl.model.project import EngineSettings, Retention
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Account, Counters, Operation
from dagster_retl.model.runs import AccountChange, Guard, Run, RunOptions, RunStatus
from dagster_retl.model.sync import Sync, SyncMode
from dagster_retl.sources.base import Source
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.leases import Lease
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State, manifest_name
from dagster_retl.store.store import Store

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyncRun:
    """Everything that one run needs. `stop`: set it to end the run at a batch boundary.

    sealer: encrypts the documents of refused rows, which are kept then.
    """

    run_id: str
    sync: Sync
    connector: AnyConnector
    source: Source
    sql: str
    store: Store
    state: State
    settings: EngineSettings
    options: RunOptions = field(default_factory=RunOptions)
    retention: Retention = field(default_factory=Retention)
    redact: Redactor = field(default_factory=lambda: Redactor(()))
    sealer: Sealer | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    on_progress: Callable[[Counters], None] = lambda counters: None
    on_phase: OnPhase = lambda phase, counters: None

    def execute(self) -> Report:
        """Run to the end. Raises what ended the run, after it was closed in the store."""
        lease = self.store.leases.acquire(self.sync.id, self.run_id)
        keeper = LeaseKeeper(self.store, lease)
        try:
            with workspace(self.settings) as space:
                return _Execution(self, lease, keeper, space).execute()
        except BaseException as error:
            _close_unplanned(self, lease, error)
            raise
        finally:
            keeper.close()


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did: its record, and the plan it followed."""

    run: Run
    plan: Plan


def preview(run: SyncRun) -> Plan:
    """The plan of a run that writes nothing, holds no lease and leaves no trace."""
    store, sync = run.store, run.sync
    with workspace(run.settings) as space, Discovery(run.connector, run.stop) as discovery:
        account = discovery.account()
        planner = Planner(sync, run.connector, run.source, run.sql, run.options, space, run.on_phase)
        chosen, memory = recall_latest(
            store, run.state, sync.id, lambda known: choose_pointer(sync, run.connector, account, known, run.options)
        )
        plan = planner.plan(memory, discovery, reason=chosen.reason, notes=chosen.notes)
    if not store.ledger.unfolded(sync.id):
        return plan
    note = "a run was interrupted or is under way: rows that it delivered may be named here once more"
    return replace(plan, warnings=[*plan.warnings, note])


class _Execution:
    """The phases of one run, under its lease."""

    def __init__(self, run: SyncRun, lease: Lease, keeper: LeaseKeeper, space: Workspace) -> None:
        self._run = run
        self._lease = lease
        self._keeper = keeper
        self._space = space
        self._closer = Closer(run.store, run.state, lease, space, keeps_history=bool(run.retention.row_history))
        self._planner = Planner(run.sync, run.connector, run.source, run.sql, run.options, space, run.on_phase)

    def execute(self) -> Report:
        self._start()
        reset = self._run.options.account_change is AccountChange.RESET
        self._run.on_phase(Phase.RECOVER, Counters())
        Recovery(self._run.store, self._lease, self._closer, self._run.sync, reset=reset).recover()
        self._run.on_phase(Phase.DISCOVER, Counters())
        with Discovery(self._run.connector, self._run.stop) as discovery:
            account = discovery.account()
            known = self._run.store.snapshots.pointer(self._run.sync.id)
            chosen = choose_pointer(self._run.sync, self._run.connector, account, known, self._run.options)
            pointer = chosen.pointer
            self._move(chosen)
            self._mark_stale(pointer, known)
            memory = recall(self._run.store, self._run.state, pointer)
            plan = self._planner.plan(memory, discovery, reason=chosen.reason, notes=chosen.notes)
        if plan.guards:
            raise plan.guards[0]
        books, plan = self._make_durable(plan, pointer)
        if self._run.options.baseline:
            folded = self._take(books, pointer)
        else:
            folded = self._deliver(plan, books, pointer, account)
        self._finish(*self._ended_well(folded, plan, memory))
        return Report(self._run.store.runs.get(self._run.run_id), plan)

    def _start(self) -> None:
        run = self._run
        with run.store.fenced(self._lease) as conn:
            run.store.runs.start(conn, run.run_id, self._lease.token)
            if run.options.replay:
                run.store.dead_letters.mark_replaying(conn, run.options.replay, run.run_id)

    def _move(self, chosen: Chosen) -> None:
        """What a sync remembers goes along to another account id, suspects and held inserts too."""
        if chosen.moved_from is not None:
            with self._run.store.fenced(self._lease) as conn:
                self._run.store.move_epoch(conn, self._run.sync.id, chosen.moved_from, chosen.pointer.epoch)
                self._run.store.snapshots.save(conn, chosen.pointer)

    def _mark_stale(self, pointer: Pointer, known: Pointer | None) -> None:
        """A full refresh that is killed is finished by the next run (PROTOCOL 11)."""
        if pointer.stale and known is not None and not known.stale:
            with self._run.store.fenced(self._lease) as conn:
                self._run.store.snapshots.mark_stale(conn, self._run.sync.id)

    def _make_durable(self, plan: Plan, pointer: Pointer) -> tuple[Books, Plan]:
        """Manifest, totals and early dead letters, before the first request (PROTOCOL 4)."""
        run, connector = self._run, self._run.connector
        run.on_phase(Phase.PLAN, planned_counters(plan))
        payload = self._payload(plan)
        write = partial(baseline.write_manifest, self._space.connection) if run.options.baseline else payload.write
        stored, forgotten = None, forgotten_query(plan.rules)
        if plan.totals.send or plan.totals.removals_sent or self._forgets(forgotten):
            name = manifest_name(run.store.uuid, run.sync.id, self._lease.token)
            stored = run.state.write(name, partial(write, forgotten))
        books = Books(
            epoch=pointer.epoch,
            mode=run.sync.sync_mode,
            manifest=stored.name if stored else None,
            checksum=stored.checksum if stored else None,
            settle=float(connector.config.settle),
            holds_unknown=run.sync.sync_mode is SyncMode.INSERT
            and not connector.idempotent(self._planner.rules.operation),
            counters=planned_counters(plan),
            by_watermark=plan.reading.cursor is not None,
        )
        with run.store.fenced(self._lease) as conn:
            books = self._record_plan(conn, books, pointer, plan.rules)
        return books, replace(plan, payload=payload.spool, batches=payload.batches)

    def _payload(self, plan: Plan) -> Payload:
        connector = self._run.connector
        limits = Limits(
            rows=connector.batch_rows_for(self._planner.rules.operation),
            removal_rows=connector.batch_rows_for(Operation.DELETE),
            bytes=max(1, connector.batch_bytes - connector.frame_bytes),
        )
        return Payload(self._space, plan, connector.spec.wire_form, limits, with_fields=connector.reads_values)

    def _forgets(self, forgotten: str) -> bool:
        return bool(self._space.connection.execute(f"SELECT count(*) FROM ({forgotten})").fetchall()[0][0])

    def _record_plan(self, conn: Connection, books: Books, pointer: Pointer, rules: DiffRules) -> Books:
        run, letters = self._run, self._run.store.dead_letters
        sync_id, epoch = run.sync.id, pointer.epoch
        resolved = letters.resolve_other_epochs(conn, sync_id, epoch)
        run.store.rearmed.remove_other_epochs(conn, sync_id, epoch)
        opened = 0
        for block in failures(self._space.connection):
            opened += letters.fail(conn, sync_id, epoch, run.run_id, [self._failure(row) for row in block.to_pylist()])
        if not run.options.keys:
            found = keyless_failures(self._space.connection)
            for code in (ErrorCode.MISSING_KEY, ErrorCode.MAPPING_ERROR):
                count, why = found.get(code, (0, ""))
                message = run.redact(why or failure_message(code, None, None))
                opened += letters.keyless(conn, sync_id, epoch, run.run_id, code, rows=count, message=message)
        for resolution, keys in _grouped(settled_letters(self._space.connection, rules)):
            resolved += letters.resolve_keys(conn, sync_id, epoch, keys, resolution, run.run_id)
        counters = replace(books.counters, dead_letters_opened=opened, dead_letters_resolved=resolved)
        books = replace(books, counters=counters)
        run.store.snapshots.save(conn, pointer)
        run.store.runs.set_epoch(conn, run.run_id, epoch)
        run.store.runs.set_plan(conn, run.run_id, books.to_plan())
        return books

    def _failure(self, row: dict[str, object]) -> Failure:
        code = ErrorCode(str(row["fate"]))
        copies = int(str(row["copies"]))
        error = None if row["error"] is None else str(row["error"])
        message = failure_message(code, str(row["error_field"]), error, copies=copies)
        return Failure(
            key=str(row["key"]),
            record_keys=str(row["record_keys"]),
            code=code,
            message=self._run.redact(message),
            operation=self._planner.rules.operation,
            rejection=False,
            rows=copies,
        )

    def _take(self, books: Books, pointer: Pointer) -> Folded:
        """Take as delivered what the manifest holds."""
        if self._run.stop.is_set():
            raise CancelledError("the baseline was stopped", hint="Nothing was changed.")
        self._run.on_phase(Phase.FOLD, books.counters)
        return baseline.take(self._closer, self._run.run_id, books, pointer)

    def _ended_well(self, folded: Folded, plan: Plan, memory: Memory) -> tuple[Folded, Ending]:
        """A complete run moves the watermark, and has read the keys that had to be read again."""
        ending = Ending(RunStatus.SUCCEEDED, warnings=tuple(plan.warnings))
        if self._run.options.partial:
            return folded, ending
        watermark = plan.reading.next_watermark(self._space.connection, self._run.sync)
        pointer = replace(folded.pointer, watermark=watermark)
        reread = memory.rearmed.column("id").to_pylist()
        source_rows = None if plan.rules.windowed else plan.totals.read
        return replace(folded, pointer=pointer, reread=reread), replace(ending, source_rows=source_rows)

    def _deliver(self, plan: Plan, books: Books, pointer: Pointer, account: Account) -> Folded:
        run = self._run
        ahead = run.connector.idempotent(self._planner.rules.operation)
        recorder = Recorder(
            run.store, self._lease, epoch=pointer.epoch, settle=books.settle, redact=run.redact, sealer=run.sealer,
            gathering=GATHERING if ahead else 0.0,
        )  # fmt: skip
        delivery = Delivery(
            target=Target(
                run.connector,
                run.sync.object_name,
                run.sync.key_fields,
                books.manifest or "",
                run.run_id,
                gone_is_failure=run.sync.on_missing == "fail",
                watch_refusals=plan.batches > 1,
                stop_at_refusals=Guard.FAILURES not in run.options.overrides,
                ahead=ahead,
            ),
            recorder=recorder,
            keeper=self._keeper,
            stop=run.stop,
            budget=SharedBudget(run.store.budgets, account_name(run.connector, account)),
            on_progress=lambda delivery: run.on_progress(self._counters(books, delivery)),
        )
        run.on_phase(Phase.DELIVER, books.counters)
        try:
            self._send(delivery, plan, books, pointer)
        except LeaseLostError:
            self._suspect(delivery, pointer, books)
            raise
        folded = self._add_up(books, delivery, pointer)
        return replace(folded, warnings=(*delivery.warnings, *folded.warnings))

    def _send(self, delivery: Delivery, plan: Plan, books: Books, pointer: Pointer) -> None:
        """Send all batches. A delivery that ends early is folded and closed before its error is raised."""
        try:
            with closing(delivery.recorder):
                if plan.payload is not None:
                    workers = min(self._run.connector.concurrency, plan.batches)
                    delivery.run(batches(plan.payload, self._intents(plan, books)), workers)
        except LeaseLostError:
            raise
        except BaseException as error:
            self._finish(self._add_up(books, delivery, pointer), self._ending_of(error))
            raise

    def _intents(self, plan: Plan, books: Books) -> Intents:
        """Intents name the manifest: a run that a retried step goes on with has another one."""
        run = self._run
        insert = run.sync.sync_mode is SyncMode.INSERT
        return Intents(
            f"{run.sync.id}-{books.epoch}" if insert else f"{run.sync.id}-{books.epoch}-{books.manifest}",
            by_key=insert,
            fields=plan.fields if run.connector.reads_values else (),
        )

    def _add_up(self, books: Books, delivery: Delivery, pointer: Pointer) -> Folded:
        self._run.on_phase(Phase.FOLD, self._counters(books, delivery))
        folded = self._closer.fold(self._run.run_id, books, pointer)
        traffic, totals = delivery.traffic, delivery.recorder.totals
        counters = replace(
            folded.counters,
            retries=traffic.retries,
            requests=traffic.requests,
            bytes_sent=traffic.bytes_sent,
            dead_letters_opened=books.counters.dead_letters_opened + totals.opened,
            dead_letters_resolved=books.counters.dead_letters_resolved + totals.resolved,
        )
        return replace(folded, counters=counters)

    def _finish(self, folded: Folded, ending: Ending) -> None:
        """The one transaction that ends the run (PROTOCOL 9)."""
        if not folded.counters.balanced():
            raise RetlError(f"the books of run {self._run.run_id} do not balance: {folded.counters}")
        self._run.on_phase(Phase.COMMIT, folded.counters)
        store = self._run.store
        with store.fenced(self._lease) as conn:
            if self._run.options.baseline:
                letters, run_id = store.dead_letters, self._run.run_id
                folded = baseline.close_letters(conn, self._space.connection, letters, run_id, folded)
            self._closer.commit(conn, self._run.run_id, folded, ending)
            store.leases.release(self._lease, conn)
        self._clean()

    def _clean(self) -> None:
        """The run has ended well or badly by now: what cannot be removed waits for the next one."""
        try:
            clean(self._run.store, self._run.state, self._run.sync.id, self._run.retention)
        except RetlError as error:
            _LOG.warning("what nothing needs any more stays for now: %s", error.message)

    def _suspect(self, delivery: Delivery, pointer: Pointer, books: Books) -> None:
        """A fenced process records no answers, but it says what it sent (PROTOCOL 6)."""
        store = self._run.store
        suspects = suspects_of(delivery.sent_unrecorded, store.now(), books.settle)
        with store.begin() as conn:
            store.suspects.add(conn, self._run.sync.id, pointer.epoch, suspects)

    def _counters(self, books: Books, delivery: Delivery) -> Counters:
        """What is known while rows are sent."""
        totals = delivery.recorder.totals
        return replace(
            books.counters,
            written=totals.written,
            unconfirmed=totals.unconfirmed,
            failed=books.counters.failed + totals.failed,
            deleted=totals.deleted,
            delete_failed=totals.delete_failed,
        )

    def _ending_of(self, error: BaseException) -> Ending:
        return ending_of(error, self._run.redact)


def _close_unplanned(run: SyncRun, lease: Lease, error: BaseException) -> None:
    """Close a run that failed and is still open, and free its lease; its ledger, if any, waits for the next run."""
    store = run.store
    try:
        with store.fenced(lease) as conn:
            if not store.runs.get(run.run_id, conn=conn).status.ended:
                ending = ending_of(error, run.redact)
                store.dead_letters.clear_replaying(conn, run.run_id)
                plan = store.runs.plan_of(run.run_id)
                counters = Books.of(plan).nothing_sent() if plan else Counters()
                store.runs.finish(
                    conn, run.run_id, ending.status, counters, error_code=ending.error_code,
                    error_message=ending.error_message, guard=ending.guard,
                )  # fmt: skip
            store.leases.release(lease, conn)
    except LeaseLostError:
        return  # somebody else owns the sync now, and closes this run


def planned_counters(plan: Plan) -> Counters:
    """What is settled before anything is sent."""
    totals = plan.totals
    return Counters(
        read=totals.read,
        failed=totals.rows_failed,
        unchanged=totals.unchanged,
        skipped=totals.rows_skipped,
        removed=totals.removed,
        delete_skipped=totals.removed - totals.removals_sent,
    )


def _grouped(pairs: Iterator[tuple[str, str]], size: int = 500) -> Iterator[tuple[str, list[str]]]:
    """(key, resolution) pairs as (resolution, keys), a bounded number of keys at a time."""
    waiting: dict[str, list[str]] = {}
    for key, resolution in pairs:
        keys = waiting.setdefault(resolution, [])
        keys.append(key)
        if len(keys) >= size:
            yield resolution, waiting.pop(resolution)
    yield from waiting.items()
