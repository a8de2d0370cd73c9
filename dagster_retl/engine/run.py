"""One run of one sync, from the lease to the commit (PROTOCOL 1).

    lease → recover → account and epoch → extract, map, diff → guards → plan is durable
          → deliver → fold → commit, release

Whatever goes wrong after the lease, the run is folded and closed before the error is raised; a
process that dies leaves that to the next run, which does the same.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, replace

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.jobs import JobConnector
from dagster_retl.engine import baseline
from dagster_retl.engine.budget import SharedBudget, account_name
from dagster_retl.engine.cleaning import clean
from dagster_retl.engine.commit import Books, Closer, Folded
from dagster_retl.engine.delivery import Delivery, Target
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.ending import Ending, ending_of
from dagster_retl.engine.feed import Intents, batches
from dagster_retl.engine.job_recovery import JobRecovery
from dagster_retl.engine.jobs import operations_by_job
from dagster_retl.engine.keeper import HEARTBEAT, LeaseKeeper
from dagster_retl.engine.phase import Phase
from dagster_retl.engine.plan import Plan
from dagster_retl.engine.plan_record import PlanRecord
from dagster_retl.engine.planning import Memory, Planner
from dagster_retl.engine.present import with_present
from dagster_retl.engine.recall import Chosen, choose_pointer, recall, recall_latest
from dagster_retl.engine.recorder import GATHERING, Recorder
from dagster_retl.engine.recovery import Recovery
from dagster_retl.engine.suspicion import suspects_of
from dagster_retl.engine.sync_run import SyncRun
from dagster_retl.engine.workspace import Workspace, workspace
from dagster_retl.errors import CancelledError, LeaseHeldError, LeaseLostError, RetlError
from dagster_retl.model.rows import Account, Counters
from dagster_retl.model.runs import AccountChange, Guard, Run, RunStatus
from dagster_retl.model.sync import SyncMode
from dagster_retl.store.leases import TTL, Lease
from dagster_retl.store.runs import options_from_json
from dagster_retl.store.snapshots import Pointer

_LOG = logging.getLogger(__name__)
_LOOK = 0.5  # seconds between two looks at a lease that another partition's run holds


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did: its record, and the plan it followed."""

    run: Run
    plan: Plan


def execute(run: SyncRun) -> Report:
    """Run to the end. Raises what ended the run, after it was closed in the store."""
    lease = _lease(run)
    keeper = LeaseKeeper(run.store, lease)
    try:
        with workspace(run.settings) as space:
            return _Execution(run, lease, keeper, space).execute()
    except BaseException as error:
        _close_unplanned(run, lease, error)
        raise
    finally:
        keeper.close()


def _lease(run: SyncRun) -> Lease:
    """The sync's lease. Runs of partitions wait for one another, as one sync has one lease (PROTOCOL 20)."""
    waiting = False
    while True:
        try:
            return run.store.leases.acquire(run.sync.id, run.run_id, ttl=_ttl(run.connector))
        except LeaseHeldError as error:
            if not _waits_for(run, error.run_id):
                raise
        if not waiting:
            run.on_phase(Phase.WAIT, Counters())
        waiting = True
        if run.stop.wait(_LOOK):
            raise CancelledError("the run was stopped while it waited for another partition's")


def _waits_for(run: SyncRun, holder: str) -> bool:
    """Whether the holder is a run of another partition; of the same one, it is doing what this run was to do."""
    if run.options.partition is None:
        return False
    other = options_from_json(run.store.runs.get(holder).options).partition
    return other is not None and other != run.options.partition


def _ttl(connector: AnyConnector) -> float:
    """Seconds that a lease lasts without a heartbeat: two of them may fail while the slowest request is under way."""
    return max(TTL, float(connector.config.timeout) + 2 * HEARTBEAT)


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
        plan = with_present(plan, run.connector, sync, discovery)
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
        run = self._run
        jobs = self._job_recovery(run.connector) if isinstance(run.connector, JobConnector) else None
        Recovery(run.store, self._lease, self._closer, run.sync, reset=reset, jobs=jobs).recover()
        self._run.on_phase(Phase.DISCOVER, Counters())
        with Discovery(self._run.connector, self._run.stop) as discovery:
            account = discovery.account()
            known = self._run.store.snapshots.pointer(self._run.sync.id)
            chosen = choose_pointer(self._run.sync, self._run.connector, account, known, self._run.options)
            pointer = chosen.pointer
            self._move(chosen)
            pointer = self._mark_stale(pointer, known)
            memory = recall(self._run.store, self._run.state, pointer)
            plan = self._planner.plan(memory, discovery, reason=chosen.reason, notes=chosen.notes)
        if plan.guards:
            raise plan.guards[0]
        books, plan = PlanRecord(run, self._lease, self._space, self._planner.rules.operation).keep(plan, pointer)
        if self._run.options.baseline:
            folded = self._take(books, pointer, moved=plan.moved)
        else:
            folded = self._deliver(plan, books, pointer, account)
        self._finish(*self._ended_well(folded, plan, memory))
        return Report(self._run.store.runs.get(self._run.run_id), plan)

    def _job_recovery(self, connector: JobConnector) -> JobRecovery:
        run, margin = self._run, float(connector.config.timeout)
        return JobRecovery(
            run.store, run.state, self._lease, connector, run.sync, run.redact, run.stop,
            before_send=lambda: self._keeper.check(margin=margin),
        )  # fmt: skip

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

    def _mark_stale(self, pointer: Pointer, known: Pointer | None) -> Pointer:
        """A full refresh that is killed is finished by the next run of the same partition, if any (PROTOCOL 11)."""
        store, partition = self._run.store, self._run.options.parted_by
        if pointer.stale and known is not None and not known.stale:
            with store.fenced(self._lease) as conn:
                store.snapshots.mark_stale(conn, self._run.sync.id)
        elif self._run.options.full_refresh and partition is not None:
            pointer = self._closer.forget_fingerprints(pointer, partition)
            with store.fenced(self._lease) as conn:
                store.snapshots.save(conn, pointer)
        return pointer

    def _take(self, books: Books, pointer: Pointer, *, moved: bool) -> Folded:
        """Take as delivered what the manifest holds."""
        if self._run.stop.is_set():
            raise CancelledError("the baseline was stopped", hint="Nothing was changed.")
        self._run.on_phase(Phase.FOLD, books.counters)
        return baseline.take(self._closer, self._run.run_id, books, pointer, moved=moved)

    def _ended_well(self, folded: Folded, plan: Plan, memory: Memory) -> tuple[Folded, Ending]:
        """A complete run moves the watermark, and has read the keys that had to be read again."""
        ending = Ending(RunStatus.SUCCEEDED, warnings=tuple(plan.warnings))
        if self._run.options.partial:
            return folded, ending
        watermark = plan.reading.next_watermark(self._space.connection, self._run.sync)
        pointer = replace(folded.pointer, watermark=watermark)
        reread = memory.rearmed.column("id").to_pylist()
        whole = not plan.rules.windowed and plan.rules.partition is None
        source_rows = plan.totals.read if whole else None
        return replace(folded, pointer=pointer, reread=reread), replace(ending, source_rows=source_rows)

    def _deliver(self, plan: Plan, books: Books, pointer: Pointer, account: Account) -> Folded:
        run = self._run
        jobs = operations_by_job(run.connector, run.sync, self._planner.rules.operation, plan.totals)
        ahead = run.connector.idempotent(self._planner.rules.operation) and not jobs
        recorder = Recorder(
            run.store, self._lease, epoch=pointer.epoch, settle=books.settle, redact=run.redact, sealer=run.sealer,
            gathering=GATHERING if ahead else 0.0, partition=books.partition,
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
                jobs=jobs,
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
        folded = self._add_up(plan, books, delivery, pointer)
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
            self._finish(self._add_up(plan, books, delivery, pointer), self._ending_of(error))
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

    def _add_up(self, plan: Plan, books: Books, delivery: Delivery, pointer: Pointer) -> Folded:
        self._run.on_phase(Phase.FOLD, self._counters(books, delivery))
        folded = self._closer.fold(self._run.run_id, books, pointer, rehash=plan.rehash, moved=plan.moved)
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
        suspects = suspects_of(delivery.sent_unrecorded, store.now(), books.settle, books.partition)
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
