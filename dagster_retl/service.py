"""The use cases: what the command line, Dagster and the REST API can do, in one place.

service = Service.open(Project.load("retl.yaml"))
report = service.run("crm_accounts")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import Connection

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.registry import connector_class
from dagster_retl.engine.cleaning import Cleaned, clean
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.ending import ending_of
from dagster_retl.engine.explain import Explanation, Now, explain_row, what_a_run_would_do
from dagster_retl.engine.forget import Forgetting, Forgotten
from dagster_retl.engine.known_secrets import secrets_in
from dagster_retl.engine.phase import OnPhase
from dagster_retl.engine.plan import Plan
from dagster_retl.engine.plan_record import planned_counters
from dagster_retl.engine.run import Report, execute, preview
from dagster_retl.engine.sealing import Sealer
from dagster_retl.engine.sync_run import SyncRun
from dagster_retl.errors import ConfigurationError, ConflictError, RetlError
from dagster_retl.model.project import Destination, EngineSettings, Project, Warehouse
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Account, Counters, FieldInfo, ObjectInfo
from dagster_retl.model.runs import DeadLetter, DeadLetterStats, Run, RunOptions, RunStatus
from dagster_retl.model.sync import Sync, reads_asset
from dagster_retl.sources.base import Source
from dagster_retl.sources.frame_source import FrameSource
from dagster_retl.sources.open import open_source
from dagster_retl.sources.query import asset_of, resolve_query
from dagster_retl.store.state import State
from dagster_retl.store.store import Store
from dagster_retl.syncs.catalog import Catalog
from dagster_retl.syncs.editing import Editor
from dagster_retl.syncs.next_run import NextRun, next_run


@dataclass(frozen=True, slots=True)
class SyncView:
    """A sync as people see it: its definition, whether it runs, and how it last went."""

    sync: Sync
    enabled: bool
    last_run: Run | None
    open_dead_letters: int


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `error` is None when all is well; `detail` says what was seen."""

    subject: str
    detail: str
    error: RetlError | None = None


class Service:
    """A project with its store and state. Opens both when first used; safe to share between threads."""

    def __init__(self, project: Project) -> None:
        self.project = project

    @classmethod
    def open(cls, project: Project) -> Self:
        """Open the project's store, creating an empty one. Raises `StoreError`."""
        service = cls(project)
        service.store.now()
        return service

    @cached_property
    def store(self) -> Store:
        return Store.open(self.project.store_url)

    @cached_property
    def state(self) -> State:
        return self._open_state()

    def _open_state(self) -> State:
        project = self.project
        return State.open(project.state_url, base=project.base, spill=project.spill_folder)

    def close(self) -> None:
        if "state" in self.__dict__:
            self.state.close()
        if "store" in self.__dict__:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Syncs

    def syncs(self) -> list[SyncView]:
        """All syncs: those of the project's file in its order, then those of the store."""
        enabled = self.store.states.all()
        return [self._view(sync, enabled.get(sync.id)) for sync in self.definitions()]

    @property
    def catalog(self) -> Catalog:
        """Where syncs are looked up."""
        return Catalog(self.project, self.store)

    @property
    def editor(self) -> Editor:
        """What changes the syncs of the store."""
        return Editor(self.project, self.store, self.connector, self.source)

    def definitions(self) -> list[Sync]:
        """The syncs of the file and of the store, as they are now."""
        return self.catalog.syncs()

    def find(self, reference: str) -> Sync:
        """A sync by id, slug or name. Raises `NotFoundError`."""
        return self.catalog.find(reference)

    def sync(self, reference: str) -> SyncView:
        """A sync by name, slug or id. Raises `NotFoundError`."""
        sync = self.find(reference)
        return self._view(sync, self.store.states.enabled(sync.id))

    def is_enabled(self, sync: Sync) -> bool:
        """What people decided in the store, or else what the file says. A deleted sync is disabled."""
        decided = self.store.states.enabled(sync.id)
        return sync.enabled if decided is None else decided

    def running(self, sync: Sync, conn: Connection | None = None) -> str | None:
        """The id of the run that holds the sync's lease, if its process is alive."""
        holder = self.store.leases.holder(sync.id, conn)
        return None if holder is None or holder.dead(self.store.now(conn)) else holder.run_id

    def set_enabled(self, reference: str, enabled: bool, *, actor: str) -> SyncView:
        """Enable or disable a sync's schedule. A running run goes on."""
        sync = self.find(reference)
        self.store.states.set_enabled(sync.id, sync.project, sync.slug, enabled, actor)
        return self.sync(sync.id)

    def next_run(self, sync: Sync) -> NextRun:
        """What the sync's next run will do, as far as that is known without reading anything."""
        connector = self.connector(self.project.destination(sync.destination_id))
        try:
            return next_run(sync, connector, self.store.snapshots.pointer(sync.id))
        finally:
            connector.close()

    def purge(self, sync_id: str, *, actor: str) -> int:
        """Delete all that is left of a sync that is gone; see `Editor.purge`."""
        return self.editor.purge(sync_id, self.state, actor=actor)

    def _view(self, sync: Sync, decided: bool | None) -> SyncView:
        runs = self.store.runs.list(sync.id, limit=1)
        return SyncView(
            sync=sync,
            enabled=sync.enabled if decided is None else decided,
            last_run=runs[0] if runs else None,
            open_dead_letters=self.store.dead_letters.count_open(sync.id),
        )

    # Destinations and warehouses

    def connector(self, destination: Destination) -> AnyConnector:
        """A fresh connector; whoever asks closes it. Raises `ConfigurationError` for settings that are wrong."""
        kind = connector_class(destination.connector)
        try:
            config = kind.Config.model_validate(dict(destination.config), context={"base": self.project.base})
        except ValidationError as error:
            raise _bad_settings(destination, error) from None
        return kind(config)

    def source(self, warehouse: Warehouse) -> Source:
        """A fresh source; whoever asks closes it."""
        return open_source(
            warehouse.url,
            name=warehouse.name,
            base=self.project.base,
            connect_args=warehouse.connect_args,
            timezone=warehouse.timezone,
            statement_timeout=warehouse.statement_timeout,
            query_tag=warehouse.query_tag,
        )

    def _source_of(self, sync: Sync, frame: object) -> Source:
        """What a sync reads: its warehouse, or a DataFrame."""
        if not reads_asset(sync.source_query):
            return self.source(self.project.warehouse(sync.warehouse))
        if frame is None:
            raise ConfigurationError(
                f"sync {sync.name!r} reads the DataFrame of a Dagster asset, which only a run in Dagster is given",
                hint="Materialize its asset there; `dry_run: true` in the run's configuration shows the plan.",
            )
        return FrameSource(frame, sync.source_query.strip())

    def _secrets_of_source(self, sync: Sync) -> list[object]:
        if reads_asset(sync.source_query):
            return []
        warehouse = self.project.warehouse(sync.warehouse)
        return [warehouse.url, warehouse.connect_args]

    @contextmanager
    def discovery(self, destination_id: str) -> Iterator[Discovery]:
        """Ask a destination about itself."""
        connector = self.connector(self.project.destination(destination_id))
        try:
            with Discovery(connector) as discovery:
                yield discovery
        finally:
            connector.close()

    def account(self, destination_id: str) -> Account:
        """Whom a destination's credentials reach. Raises `DestinationError`."""
        with self.discovery(destination_id) as discovery:
            return discovery.account()

    def objects(self, destination_id: str, search: str | None = None) -> list[ObjectInfo]:
        """The objects of a destination; `search` filters label and name, ignoring case."""
        with self.discovery(destination_id) as discovery:
            found = discovery.objects()
        wanted = (search or "").lower()
        return [info for info in found if wanted in info.api_name.lower() or wanted in info.label.lower()]

    def fields(self, destination_id: str, object_name: str) -> list[FieldInfo]:
        """The fields of an object."""
        with self.discovery(destination_id) as discovery:
            return discovery.fields(object_name)

    def check(self, destination_id: str | None = None, *, offline: bool = False) -> Iterator[Finding]:
        """Check the syncs' definitions and, unless `offline`, every warehouse and destination they use."""
        if destination_id is not None:
            yield self._check_destination(self.project.destination(destination_id), offline=offline)
            return
        if not offline:
            for warehouse in self.project.warehouses.values():
                yield self._check_warehouse(warehouse)
        for destination in self.project.destinations.values():
            yield self._check_destination(destination, offline=offline)
        for sync in self.definitions():
            yield self._check_sync(sync)

    def _check_warehouse(self, warehouse: Warehouse) -> Finding:
        subject = f"warehouse {warehouse.name}"
        try:
            with self.source(warehouse) as source:
                source.check()
        except RetlError as error:
            return Finding(subject, error.message, error)
        return Finding(subject, f"reached {warehouse.display_url}")

    def _check_destination(self, destination: Destination, *, offline: bool) -> Finding:
        subject = f"destination {destination.id}"
        try:
            if offline:
                self.connector(destination).close()
                return Finding(subject, f"{destination.connector}: settings are complete")
            account = self.account(destination.id)
        except RetlError as error:
            return Finding(subject, error.message, error)
        return Finding(subject, f"{destination.connector}: reached {account.name}")

    def _check_sync(self, sync: Sync) -> Finding:
        subject = f"sync {sync.slug}"
        try:
            self.validate(sync)
        except RetlError as error:
            return Finding(subject, error.message, error)
        return Finding(subject, f"{sync.sync_mode} into {sync.destination_id}.{sync.object_name}")

    def validate(self, sync: Sync) -> None:
        """What can be said of a sync without asking anybody. Raises `ConfigurationError`."""
        connector = self.connector(self.project.destination(sync.destination_id))
        try:
            self._check_mode(sync, connector)
        finally:
            connector.close()
        if reads_asset(sync.source_query):
            asset_of(sync.source_query)
            return
        with self.source(self.project.warehouse(sync.warehouse)) as source:
            resolve_query(sync.source_query, dialect=source.dialect, base=self.project.base)

    def _check_mode(self, sync: Sync, connector: AnyConnector) -> None:
        reason = connector.supports(sync.sync_mode)
        if reason is not None:
            raise ConfigurationError(
                f"sync {sync.name!r}: {reason}",
                hint=f"Connector {connector.spec.name!r} knows: {', '.join(sorted(connector.spec.modes))}.",
            )

    # Runs

    def plan(self, reference: str, options: RunOptions | None = None) -> Plan:
        """What a run would write. Writes nothing, leaves no trace."""
        with self._prepared(self.find(reference), options or RunOptions(), "") as run:
            return preview(run)

    def explain(self, reference: str, key: Mapping[str, Any], *, offline: bool = False) -> Explanation:
        """Everything about the row with these key fields; `offline`: without asking the warehouse what it gives now.

        Raises `ConfigurationError` when they are no key of the sync.
        """
        sync = self.find(reference)
        connector = self.connector(self.project.destination(sync.destination_id))
        try:
            told = explain_row(self.store, self.state, self._engine, sync, connector, key)
        finally:
            connector.close()
        return told if offline else replace(told, now=self._now(sync, key))

    def _now(self, sync: Sync, key: Mapping[str, Any]) -> Now:
        try:
            with self._prepared(sync, RunOptions(keys=(key,)), "") as run:
                return what_a_run_would_do(preview(run))
        except RetlError as error:
            return Now(error=error)

    def forget(self, keys: Mapping[str, Mapping[str, Any]], *, actor: str, force: bool = False) -> list[Forgotten]:
        """Erase rows: the sync (by name, slug or id) → the key fields of the row that is erased from all it keeps.

        Ends with the store's file written anew, so that nothing of them is left in it. When it
        raises, or dies, call it again: it goes on where it was.
        """
        done = [self._forget(self.find(name), key, actor, force=force) for name, key in keys.items()]
        if not self.store.compact():
            raise RetlError(
                "traces of the key may be left in the free space of the store's file: somebody was reading it",
                hint="Run the same command again.",
            )
        return done

    def _forget(self, sync: Sync, key: Mapping[str, Any], actor: str, *, force: bool) -> Forgotten:
        connector = self.connector(self.project.destination(sync.destination_id))
        try:
            return Forgetting(
                self.store, self.state, self._engine, sync, connector, key, actor, force,
                keeps_history=bool(self.project.retention.row_history),
            ).execute()  # fmt: skip
        finally:
            connector.close()

    def queue(self, reference: str, options: RunOptions | None = None, *, trigger: str = "manual") -> Run:
        """Register a run before it is launched."""
        sync = self.find(reference)
        return self.store.runs.create(sync.id, sync.slug, self._effective(options), trigger=trigger)

    def queue_all(self, asked: Mapping[str, RunOptions], *, trigger: str, actor: str) -> list[Run]:
        """Register a run for each of these syncs (by id), or for none of them.

        The dead letters that a run is to send again are marked as being replayed. Raises `NotFoundError`, and
        `ConflictError` when a sync is disabled or a run of it is queued or under way.
        """
        syncs = {sync_id: self.find(sync_id) for sync_id in asked}
        for sync in syncs.values():
            if not self.is_enabled(sync):
                raise ConflictError(f"sync {sync.name!r} is disabled", hint="Enable it first.", subject=sync.id)
        with self.store.begin() as conn:
            for sync_id in sorted(syncs):  # always in one order: nobody waits for one that waits for him
                self._refuse_unless_idle(conn, syncs[sync_id])
            return [self._queue(conn, syncs[sync_id], asked[sync_id], trigger, actor) for sync_id in asked]

    def _refuse_unless_idle(self, conn: Connection, sync: Sync) -> None:
        self.store.leases.lock(conn, sync.id)
        self.catalog.require_live(conn, sync.id)
        for run in self.store.runs.unfinished(conn, sync.id):
            if run.status is RunStatus.QUEUED or self.running(sync, conn) == run.id:
                raise ConflictError(
                    f"sync {sync.name!r} has a run that is {run.status.value}: {run.id}",
                    hint="Wait for it, or cancel it.",
                    subject=run.id,
                )

    def _queue(self, conn: Connection, sync: Sync, options: RunOptions, trigger: str, actor: str) -> Run:
        run = self.store.runs.create(sync.id, sync.slug, self._effective(options), trigger=trigger, conn=conn)
        if options.replay:
            self.store.dead_letters.mark_replaying(conn, options.replay, run.id, actor)
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
            with self._prepared(sync, chosen, run.id, frame) as prepared:
                tell = partial(self._tell, run.id, on_progress)
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

    @property
    def _engine(self) -> EngineSettings:
        return self.project.engine.model_copy(update={"spill": self.project.spill_folder})

    @contextmanager
    def _prepared(self, sync: Sync, options: RunOptions, run_id: str, frame: object = None) -> Iterator[SyncRun]:
        destination = self.project.destination(sync.destination_id)
        connector = self.connector(destination)
        try:
            self._check_mode(sync, connector)
            with self._source_of(sync, frame) as source, self._open_state() as state:
                query = resolve_query(sync.source_query, dialect=source.dialect, base=self.project.base)
                own = [self.project.store_url, self.project.state_url, self.project.dead_letters]
                used = [connector.config, *self._secrets_of_source(sync)]
                yield SyncRun(
                    run_id=run_id,
                    sync=sync,
                    connector=connector,
                    source=source,
                    sql=query.sql,
                    store=self.store,
                    state=state,
                    settings=self._engine,
                    options=options,
                    retention=self.project.retention,
                    redact=Redactor(secrets_in([*own, *used])),
                    sealer=self._sealer() if self.project.dead_letters.payloads else None,
                )
        finally:
            connector.close()

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
        if run.status is not RunStatus.QUEUED:
            return
        ending = ending_of(error, Redactor(secrets_in(self._urls())))
        with self.store.begin() as conn:
            self.store.runs.finish(
                conn,
                run_id,
                ending.status,
                Counters(),
                error_code=ending.error_code,
                error_message=ending.error_message,
                guard=ending.guard,
            )

    def _urls(self) -> list[object]:
        warehouses = self.project.warehouses.values()
        return [
            self.project.store_url,
            self.project.state_url,
            *(value for each in warehouses for value in (each.url, each.connect_args)),
        ]

    # Retention

    def clean(self, reference: str | None = None) -> list[Cleaned]:
        """Delete what `retention` keeps no longer, of one sync or of all. Runs do so as well, in small portions."""
        syncs = [self.find(reference)] if reference else self.definitions()
        return [clean(self.store, self.state, sync.id, self.project.retention, at_once=True) for sync in syncs]

    # Dead letters

    def dead_letters(
        self,
        reference: str | None = None,
        *,
        resolved: bool = False,
        run_id: str | None = None,
        error_code: str | None = None,
        limit: int = 50,
    ) -> list[DeadLetter]:
        """Dead letters, newest first."""
        sync_id = self.find(reference).id if reference else None
        return self.store.dead_letters.list(
            sync_id, resolved=resolved, run_id=run_id, error_code=error_code, limit=limit
        )

    def dead_letter(self, entry_id: str) -> DeadLetter:
        """One dead letter. Raises `NotFoundError`."""
        return self.store.dead_letters.get(entry_id)

    def payload(self, entry_id: str) -> bytes | None:
        """The JSON document that was refused, where it was kept; None: it was not.

        Raises `NotFoundError`, and `ConfigurationError` without the key that it was encrypted with.
        """
        stored = self.store.dead_letters.payload(entry_id)
        return None if stored is None else self._sealer().unseal(stored)

    def _sealer(self) -> Sealer:
        keys = self.project.dead_letters.payload_key
        if keys is None:
            raise ConfigurationError(
                "payloads of dead letters are encrypted, and retl.yaml has no key",
                hint="Set `dead_letters: {payload_key: …}` to the key that they were encrypted with.",
            )
        return Sealer(keys.get_secret_value())

    def dead_letter_stats(self, reference: str | None = None) -> DeadLetterStats:
        """Open and resolved dead letters, and why the open ones failed."""
        return self.store.dead_letters.stats(self.find(reference).id if reference else None)

    def resolve(self, entry_ids: Sequence[str], resolution: str, *, actor: str) -> list[str]:
        """Close dead letters; returns the ids that were open. See `store.dead_letters` for what a resolution does."""
        return self.store.dead_letters.resolve(entry_ids, resolution, actor)

    def replays(self, entry_ids: Sequence[str]) -> Mapping[str, RunOptions]:
        """What to run to send these dead letters again: options by sync id.

        A replay reads the rows from the warehouse by key and writes what is true now. Rows that
        have no key of their own are found by an ordinary run.
        """
        entries = [self.dead_letter(entry_id) for entry_id in entry_ids]
        resolved = [entry.id for entry in entries if entry.resolved]
        if resolved:
            raise ConfigurationError(f"{', '.join(resolved)} cannot be replayed: it is resolved already")
        grouped: dict[str, list[DeadLetter]] = {}
        for entry in entries:
            grouped.setdefault(entry.sync_id, []).append(entry)
        return {sync_id: _replay(letters) for sync_id, letters in grouped.items()}


def _replay(letters: Sequence[DeadLetter]) -> RunOptions:
    ids = tuple(letter.id for letter in letters)
    if all(letter.record_keys for letter in letters):
        return RunOptions(replay=ids, keys=tuple(letter.record_keys for letter in letters))
    return RunOptions(replay=ids)


def _bad_settings(destination: Destination, error: ValidationError) -> ConfigurationError:
    problems = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'config'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )
    return ConfigurationError(
        f"destination {destination.id!r} ({destination.connector}): {problems}",
        hint=f"`retl connectors {destination.connector}` lists its settings.",
    )
