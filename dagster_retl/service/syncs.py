"""Syncs: where they are looked up, how they stand, and what people decide about them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from dagster_retl.model.runs import Run
from dagster_retl.model.sync import Sync
from dagster_retl.service.destinations import DestinationCases
from dagster_retl.syncs.catalog import Catalog, Retired
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
class RetiredView:
    """A sync that is gone, as people see it: what is left of it."""

    retired: Retired
    last_run: Run | None
    open_dead_letters: int


class SyncCases(DestinationCases):
    """Syncs: where they are looked up, how they stand, and what people decide about them."""

    def syncs(self) -> list[SyncView]:
        """All syncs: those of the project's file in its order, then those of the store."""
        enabled = self.store.states.all()
        return [self._view(sync, enabled.get(sync.id)) for sync in self.definitions()]

    def retired(self) -> list[RetiredView]:
        """Syncs of this project that are gone while something of them is kept."""
        return [self._view_of_retired(each) for each in self.catalog.retired()]

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

    def _view_of_retired(self, retired: Retired) -> RetiredView:
        runs = self.store.runs.list(retired.sync_id, limit=1)
        letters = self.store.dead_letters.count_open(retired.sync_id)
        return RetiredView(retired, runs[0] if runs else None, letters)

    def _view(self, sync: Sync, decided: bool | None) -> SyncView:
        runs = self.store.runs.list(sync.id, limit=1)
        return SyncView(
            sync=sync,
            enabled=sync.enabled if decided is None else decided,
            last_run=runs[0] if runs else None,
            open_dead_letters=self.store.dead_letters.count_open(sync.id),
        )
