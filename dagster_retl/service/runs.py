"""Runs: queued, executed, closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection

from dagster_retl.engine.ending import ending_of
from dagster_retl.engine.known_secrets import secrets_in
from dagster_retl.engine.phase import OnPhase
from dagster_retl.engine.plan_record import planned_counters
from dagster_retl.engine.run import Report, execute, preview
from dagster_retl.engine.sync_run import SyncRun
from dagster_retl.errors import CancelledError, ConflictError, LeaseHeldError
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import REPLAY, Run, RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.service.dead_letters import replay_of
from dagster_retl.service.rows import RowCases

LAUNCHING = timedelta(seconds=60)
"""A queued replay that no Dagster run has by then is launched by nobody but the sensor `retl_replays`."""

NOTHING_LEFT = "nothing is left to send again: its dead letters were resolved before it began"


class RunCases(RowCases):
    """Runs: queued, executed, closed."""

    def queue(self, reference: str, options: RunOptions | None = None, *, trigger: str = "manual") -> Run:
        """Register a run before it is launched."""
        sync = self.find(reference)
        return self.store.runs.create(sync.id, sync.slug, self._effective(options), trigger=trigger)

    def queue_all(self, asked: Mapping[str, RunOptions], *, trigger: str, actor: str) -> list[Run]:
        """Register a run for each of these syncs (by id), or for none of them.

        Raises `NotFoundError`, and `ConflictError` when a sync is disabled or a run of it is queued or under
        way. A replay that waits is in nobody's way: it is launched when the sync is free.
        """
        syncs = {sync_id: self.find(sync_id) for sync_id in asked}
        for sync in syncs.values():
            self.require_enabled(sync)
        with self.store.begin() as conn:
            for sync_id in sorted(syncs):  # always in one order: nobody waits for one that waits for him
                self._refuse_unless_idle(conn, syncs[sync_id])
            return [self._queue(conn, syncs[sync_id], asked[sync_id], trigger, actor) for sync_id in asked]

    def require_enabled(self, sync: Sync) -> None:
        """Raises `ConflictError` for a disabled sync."""
        if not self.is_enabled(sync):
            raise ConflictError(f"sync {sync.name!r} is disabled", hint="Enable it first.", subject=sync.id)

    def _refuse_unless_idle(self, conn: Connection, sync: Sync) -> None:
        self.store.leases.lock(conn, sync.id)
        self.catalog.require_live(conn, sync.id)
        run = self._in_the_way(conn, sync)
        if run is not None:
            raise ConflictError(
                f"sync {sync.name!r} has a run that is {run.status.value}: {run.id}",
                hint="Wait for it, or cancel it.",
                subject=run.id,
            )

    def _in_the_way(self, conn: Connection, sync: Sync) -> Run | None:
        """The run of the sync that is running, or about to."""
        launched_since = self.store.now(conn) - LAUNCHING
        for run in self.store.runs.unfinished(conn, sync.id):
            if run.status is RunStatus.QUEUED and not self.store.replays.waits(run, launched_since):
                return run
            if run.status is RunStatus.RUNNING and self.running(sync, conn) == run.id:
                return run
        return None

    def _queue(self, conn: Connection, sync: Sync, options: RunOptions, trigger: str, actor: str) -> Run:
        run = self.store.runs.create(sync.id, sync.slug, self._effective(options), trigger=trigger, conn=conn)
        self.store.audit.add(conn, actor, "run.start", run.id, sync.slug)
        return run

    def run(
        self,
        reference: str,
        options: RunOptions | None = None,
        *,
        run_id: str | None = None,
        trigger: str = "manual",
        dagster_run_id: str | None = None,
        dagster_step: str | None = None,
        stop: threading.Event | None = None,
        on_progress: Callable[[Counters], None] | None = None,
        on_phase: OnPhase = lambda phase, counters: None,
        frame: object = None,
    ) -> Report:
        """Run a sync to its end. Raises what ended it early, once that is in the store.

        run_id: a queued run to execute; a step that Dagster retries goes on with its own run.
        on_progress: called with the counters while rows are sent, which the store shows as well.
        on_phase: called in this thread as the run enters each of its phases. frame: the DataFrame that
        a sync with an `asset:` query reads.
        """
        sync = self.find(reference)
        chosen = self._effective(options)
        run = self._registered(sync, chosen, run_id, trigger, dagster_run_id, dagster_step)
        try:
            chosen = chosen if run_id is None else self._replayed(run, chosen)
            with self._prepared(sync, chosen, run.id, frame) as prepared:
                tell = partial(self._tell, run.id, on_progress)
                if not chosen.dry_run and self.catalog.in_file(sync.id):
                    self.store.file_syncs.note(sync.id, self.project.project, sync.slug)
                live = replace(prepared, stop=stop or threading.Event(), on_progress=tell, on_phase=on_phase)
                return self._dry_run(live) if chosen.dry_run else execute(live)
        except BaseException as error:
            self._close_unstarted(run.id, error)
            raise

    def _tell(self, run_id: str, listener: Callable[[Counters], None] | None, counters: Counters) -> None:
        self.store.runs.progress(run_id, counters)
        if listener is not None:
            listener(counters)

    def run_of(self, run_id: str) -> Run:
        """A run. Raises `NotFoundError`."""
        return self.store.runs.get(run_id)

    def runs(self, reference: str | None = None, status: RunStatus | None = None, *, limit: int = 50) -> list[Run]:
        """Runs, newest first."""
        sync_id = self.find(reference).id if reference else None
        return self.store.runs.list(sync_id, status, limit=limit)

    def _effective(self, options: RunOptions | None) -> RunOptions:
        """With `writes: off`, every run is a plan."""
        chosen = options or RunOptions()
        return chosen if self.project.writes else replace(chosen, dry_run=True)

    def _registered(
        self,
        sync: Sync,
        options: RunOptions,
        run_id: str | None,
        trigger: str,
        dagster_run_id: str | None,
        dagster_step: str | None,
    ) -> Run:
        if run_id is not None:
            if dagster_run_id is not None:
                self.store.runs.link_dagster(run_id, dagster_run_id, dagster_step)
            return self.store.runs.get(run_id)
        earlier = self.store.runs.find(dagster_run_id, dagster_step) if dagster_run_id else None
        return earlier or self.store.runs.create(
            sync.id,
            sync.slug,
            options,
            trigger=trigger,
            dagster_run_id=dagster_run_id,
            dagster_step=dagster_step,
        )

    def _replayed(self, run: Run, options: RunOptions) -> RunOptions:
        """What a queued replay is to send: the entries that are marked with it, now that nobody adds to it any more."""
        if run.trigger != REPLAY or run.status is not RunStatus.QUEUED or options.dry_run:
            return options
        with self.store.begin() as conn:
            letters = self.store.replays.entries(run.id, conn)
            if not letters:
                raise CancelledError(NOTHING_LEFT)
            wanted = replace(replay_of(letters), partition=options.partition)
            self.store.replays.set_options(conn, run.id, wanted)
        return wanted

    def _dry_run(self, run: SyncRun) -> Report:
        plan = preview(run)
        counters = planned_counters(plan)
        counters = replace(counters, skipped=counters.skipped + plan.totals.send, delete_skipped=plan.totals.removed)
        warnings = [*plan.warnings, *(f"a run would be stopped: {guard.message}" for guard in plan.guards)]
        with self.store.begin() as conn:
            self.store.runs.start(conn, run.run_id, token=0)
            self.store.runs.finish(conn, run.run_id, RunStatus.SUCCEEDED, counters, warnings=warnings)
        return Report(self.store.runs.get(run.run_id), plan)

    def _close_unstarted(self, run_id: str, error: BaseException) -> None:
        """A run that never got its lease (or its connector, or its source) is closed here."""
        run = self.store.runs.get(run_id)
        if run.status is not RunStatus.QUEUED or self._waits_again(run, error):
            return
        ending = ending_of(error, Redactor(secrets_in(self._urls())))
        with self.store.begin() as conn:
            self.store.dead_letters.clear_replaying(conn, run_id)
            self.store.runs.finish(
                conn,
                run_id,
                ending.status,
                Counters(),
                error_code=ending.error_code,
                error_message=ending.error_message,
                guard=ending.guard,
            )

    def _waits_again(self, run: Run, error: BaseException) -> bool:
        """Whether it is a replay that a live run turned away: it is launched again once that has ended."""
        turned_away = isinstance(error, LeaseHeldError) and bool(self.store.replays.entries(run.id))
        return turned_away and self.store.replays.put_back(run.id)

    def _urls(self) -> list[object]:
        warehouses = self.project.warehouses.values()
        return [
            self.project.store_url,
            self.project.state_url,
            *(value for each in warehouses for value in (each.url, each.connect_args)),
        ]
