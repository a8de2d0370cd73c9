"""Making a plan durable before the first request: manifest, totals, early dead letters (PROTOCOL 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Connection

from dagster_retl.changes.diff import DiffRules, failures, forgotten_query, keyless_failures, settled_letters
from dagster_retl.engine import baseline
from dagster_retl.engine.commit import Books
from dagster_retl.engine.jobs import batch_limits
from dagster_retl.engine.payload import Limits, Payload
from dagster_retl.engine.phase import Phase
from dagster_retl.engine.plan import Plan, failure_message
from dagster_retl.engine.sync_run import SyncRun
from dagster_retl.engine.workspace import Workspace
from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import Counters, Operation
from dagster_retl.model.sync import SyncMode
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.leases import Lease
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import manifest_name


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """Keeps the plan of one run. operation: of its rows."""

    run: SyncRun
    lease: Lease
    space: Workspace
    operation: Operation

    def keep(self, plan: Plan, pointer: Pointer) -> tuple[Books, Plan]:
        """Manifest, totals and early dead letters, before the first request (PROTOCOL 4)."""
        run, connector = self.run, self.run.connector
        run.on_phase(Phase.PLAN, planned_counters(plan))
        payload = self._payload(plan)
        write = partial(baseline.write_manifest, self.space.connection) if run.options.baseline else payload.write
        stored, forgotten = None, forgotten_query(plan.rules)
        if plan.totals.send or plan.totals.removals_sent or self._forgets(forgotten):
            name = manifest_name(run.store.uuid, run.sync.id, self.lease.token)
            stored = run.state.write(name, partial(write, forgotten))
        books = Books(
            epoch=pointer.epoch,
            mode=run.sync.sync_mode,
            manifest=stored.name if stored else None,
            checksum=stored.checksum if stored else None,
            settle=float(connector.config.settle),
            holds_unknown=run.sync.sync_mode is SyncMode.INSERT and not connector.idempotent(self.operation),
            counters=planned_counters(plan),
            by_watermark=plan.reading.cursor is not None,
            hash_terms=plan.hash_terms,
            partition=run.options.parted_by,
        )
        with run.store.fenced(self.lease) as conn:
            books = self._record_plan(conn, books, pointer, plan.rules)
        return books, replace(plan, payload=payload.spool, batches=payload.batches)

    def _payload(self, plan: Plan) -> Payload:
        connector = self.run.connector
        return Payload(
            self.space,
            plan,
            connector.spec.wire_form,
            self._limits(self.operation, plan.totals.send),
            self._limits(Operation.DELETE, plan.totals.removals_sent),
            with_fields=connector.reads_values,
        )

    def _limits(self, operation: Operation, rows: int) -> Limits:
        return batch_limits(self.run.connector, self.run.sync, operation, rows)

    def _forgets(self, forgotten: str) -> bool:
        return bool(self.space.connection.execute(f"SELECT count(*) FROM ({forgotten})").fetchall()[0][0])

    def _record_plan(self, conn: Connection, books: Books, pointer: Pointer, rules: DiffRules) -> Books:
        run, letters = self.run, self.run.store.dead_letters
        sync_id, epoch = run.sync.id, pointer.epoch
        resolved = letters.resolve_other_epochs(conn, sync_id, epoch)
        run.store.rearmed.remove_other_epochs(conn, sync_id, epoch)
        opened = 0
        for block in failures(self.space.connection):
            opened += letters.fail(conn, sync_id, epoch, run.run_id, [self._failure(row) for row in block.to_pylist()])
        if not run.options.keys:
            found = keyless_failures(self.space.connection)
            for code in (ErrorCode.MISSING_KEY, ErrorCode.MAPPING_ERROR):
                count, why = found.get(code, (0, ""))
                message = run.redact(why or failure_message(code, None, None))
                opened += letters.keyless(
                    conn, sync_id, epoch, run.run_id, code, rows=count, message=message, partition=run.options.parted_by
                )
        for resolution, keys in _grouped(settled_letters(self.space.connection, rules)):
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
            message=self.run.redact(message),
            operation=self.operation,
            rejection=False,
            rows=copies,
            partition=self.run.options.parted_by,
        )


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
