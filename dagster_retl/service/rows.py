"""Rows, before and after runs: plans, explanations, erasing, and what is kept no longer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dagster_retl.engine.cleaning import Cleaned, clean
from dagster_retl.engine.explain import Explanation, Now, explain_row, what_a_run_would_do
from dagster_retl.engine.forget import Forgetting, Forgotten
from dagster_retl.engine.known_secrets import secrets_in
from dagster_retl.engine.plan import Plan
from dagster_retl.engine.run import preview
from dagster_retl.engine.sync_run import SyncRun
from dagster_retl.errors import ConfigurationError, RetlError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.project import EngineSettings
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.runs import RunOptions
from dagster_retl.model.sync import Sync, reads_asset
from dagster_retl.service.dead_letters import DeadLetterCases
from dagster_retl.sources.base import Source
from dagster_retl.sources.frame_source import FrameSource
from dagster_retl.sources.parameters import bind
from dagster_retl.sources.query import resolve_query
from dagster_retl.syncs.renaming import require_own_state


class RowCases(DeadLetterCases):
    """Rows, before and after runs: plans, explanations, erasing, and what is kept no longer."""

    def partition(self, reference: str, key: str | None) -> Partition | None:
        """See `Sync.partition`."""
        return self.find(reference).partition(key, self.store.now())

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
        return told if offline else replace(told, now=self._now(sync, key, told.partition))

    def _now(self, sync: Sync, key: Mapping[str, Any], seen_in: str | None) -> Now:
        partition = sync.partitions.at(seen_in) if sync.partitions and seen_in else None
        try:
            with self._prepared(sync, RunOptions(keys=(key,), partition=partition), "") as run:
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

    def clean(self, reference: str | None = None) -> list[Cleaned]:
        """Delete what `retention` keeps no longer, of one sync or of all. Runs do so as well, in small portions."""
        syncs = [self.find(reference)] if reference else self.definitions()
        return [clean(self.store, self.state, sync.id, self.project.retention, at_once=True) for sync in syncs]

    @property
    def _engine(self) -> EngineSettings:
        return self.project.engine.model_copy(update={"spill": self.project.spill_folder})

    @contextmanager
    def _prepared(self, sync: Sync, options: RunOptions, run_id: str, frame: object = None) -> Iterator[SyncRun]:
        destination = self.project.destination(sync.destination_id)
        require_own_state(self.store, self.project, sync)
        connector = self.connector(destination)
        try:
            self._check_mode(sync, connector)
            self._check_partition(sync, options.partition)
            with self._source_of(sync, frame) as source, self._open_state() as state:
                query = resolve_query(sync.source_query, dialect=source.dialect, base=self.project.base)
                own = [self.project.store_url, self.project.state_url, self.project.dead_letters]
                used = [connector.config, *self._secrets_of_source(sync)]
                yield SyncRun(
                    run_id=run_id,
                    sync=sync,
                    connector=connector,
                    source=source,
                    sql=query.sql if frame is not None else bind(query.sql, options.partition, source.dialect),
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

    def _check_partition(self, sync: Sync, chosen: Partition | None) -> None:
        key = chosen.key if chosen else None
        if sync.partition(key, self.store.now()) != chosen:
            raise ConfigurationError(
                f"sync {sync.name!r} is parted differently than when partition {key!r} was chosen",
                hint="Choose it again.",
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
