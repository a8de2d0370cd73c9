"""Creating, changing and deleting the syncs of the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.errors import ConflictError, NotFoundError
from dagster_retl.model.ids import SYNC_PREFIX, new_id
from dagster_retl.model.mistakes import Mistake
from dagster_retl.model.project import Destination, Project, Warehouse
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.sources.base import Source
from dagster_retl.store.state import State
from dagster_retl.store.store import Store
from dagster_retl.store.stored_syncs import StoredSync, SyncVersion
from dagster_retl.syncs.catalog import Catalog, Entry, names_of
from dagster_retl.syncs.definition import InvalidSyncError, definition_of, parse_sync, sync_of
from dagster_retl.syncs.surroundings import examine

_UNSET = datetime.fromtimestamp(0, UTC)
_CANCELLED = "the sync was deleted before the run began"


@dataclass(frozen=True, slots=True)
class Saved:
    """A sync that was saved. warnings: what could not be checked."""

    entry: Entry
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """A sync that was deleted. cancelled: its runs that had not begun."""

    stored: StoredSync
    cancelled: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Editor:
    """Changes syncs. open_connector, open_source: whoever asks closes what they return."""

    project: Project
    store: Store
    open_connector: Callable[[Destination], AnyConnector]
    open_source: Callable[[Warehouse], Source]

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.project, self.store)

    def create(self, data: Mapping[str, Any], *, actor: str) -> Saved:
        """A new sync of what somebody sent (plain data as in retl.yaml).

        Raises `InvalidSyncError` with all that is wrong with it, `ConflictError` when its name is taken.
        """
        sync = parse_sync(data, self.project, sync_id=new_id(SYNC_PREFIX), others=self.catalog.syncs())
        self._refuse_taken(sync)
        warnings = self._examine(sync)
        wanted = StoredSync(sync.id, self.project.project, sync.name, sync.slug, definition_of(sync), 1, _UNSET, _UNSET)
        self.store.syncs.create(wanted, actor)
        if not sync.enabled:
            self._switch(sync, actor)
        return Saved(self.catalog.entry(sync.id), warnings)

    def update(self, sync_id: str, changes: Mapping[str, Any], *, actor: str, expected: int | None = None) -> Saved:
        """Change what a sync says. A setting that is null goes back to its default; the others stay as they are.

        expected: the version that this changes. Raises as `create` does, `NotFoundError`, `ConflictError` for a
        sync of the file, and `VersionMismatchError`.
        """
        stored = self._owned(sync_id)
        data = {name: value for name, value in _merged(stored, changes).items() if value is not None}
        others = [each for each in self.catalog.syncs() if each.id != sync_id]
        sync = parse_sync(data, self.project, sync_id=sync_id, others=others)
        if sync.slug != stored.slug:
            raise InvalidSyncError(
                sync.name, [Mistake(("slug",), "the slug of a sync cannot be changed", kind="fixed")]
            )
        self._refuse_taken(sync)
        warnings = self._save(sync, stored, actor, expected)
        if "enabled" in changes:
            self._switch(sync, actor)
        return Saved(self.catalog.entry(sync_id), warnings)

    def delete(self, sync_id: str, *, actor: str, expected: int | None = None) -> Deleted:
        """Delete a sync softly: runs that have not begun are cancelled, a running one finishes. Raises as `update`."""
        stored = self._owned(sync_id)
        self._refuse_followed(stored)
        with self.store.begin() as conn:
            self.store.leases.lock(conn, sync_id)
            gone = self.store.syncs.delete(conn, sync_id, actor, expected=expected)
            self.store.states.set_enabled(sync_id, stored.project, stored.slug, enabled=False, actor=actor, conn=conn)
            queued = [run for run in self.store.runs.unfinished(conn, sync_id) if run.status is RunStatus.QUEUED]
            for run in queued:
                ending = {"error_code": "CANCELLED", "error_message": _CANCELLED}
                self.store.runs.finish(conn, run.id, RunStatus.CANCELLED, Counters(), **ending)
                self.store.dead_letters.clear_replaying(conn, run.id)
        return Deleted(gone, tuple(queued))

    def versions(self, sync_id: str) -> list[SyncVersion]:
        """What a sync of the store said, newest first. Raises `NotFoundError`, `ConflictError` for one of the file."""
        self._owned(sync_id)
        return self.store.syncs.versions(sync_id)

    def purge(self, sync_id: str, state: State, *, actor: str) -> int:
        """Delete all that is left of a sync that is gone; how many files of the state that were.

        Raises `NotFoundError` for one that left nothing, `ConflictError` for one that is not gone or still runs.
        """
        found = {retired.sync_id: retired.name for retired in self.catalog.retired()}
        if sync_id not in found:
            self._refuse_live(sync_id)
            raise NotFoundError(
                f"nothing is kept of a sync {sync_id!r}", hint="`retl syncs list --retired` shows what is left."
            )
        with self.store.begin() as conn:
            self.store.leases.lock(conn, sync_id)
            holder = self.store.leases.holder(sync_id, conn)
            if holder is not None and not holder.dead(self.store.now(conn)):
                raise ConflictError(f"run {holder.run_id} of the sync is still running", subject=holder.run_id)
            self.store.purging.purge(conn, sync_id, found[sync_id], actor)
        no_time = timedelta(0)
        return len(state.collect(sync_id, set(), no_time, store_uuid=self.store.uuid, generations=0))

    def _refuse_live(self, sync_id: str) -> None:
        if any(sync.id == sync_id for sync in self.catalog.syncs()):
            raise ConflictError(
                f"the sync {sync_id} is not gone", hint="Delete it first, or take it out of retl.yaml.", subject=sync_id
            )

    def _owned(self, sync_id: str) -> StoredSync:
        if self.catalog.in_file(sync_id):
            raise ConflictError(
                f"the sync {sync_id} is defined in {self.project.path or 'Python'}: it can be run and switched here, "
                "not changed",
                hint="Change it there.",
                subject=sync_id,
            )
        stored = self.store.syncs.get(sync_id)
        if stored.deleted_at is not None or stored.project != self.project.project:
            raise NotFoundError(f"there is no sync {sync_id!r}", hint="`retl syncs list` shows those that there are.")
        return stored

    def _refuse_followed(self, stored: StoredSync) -> None:
        followers = [each for each in self.catalog.syncs() if {stored.name, stored.slug} & set(each.after)]
        if followers:
            raise ConflictError(
                f"the sync {followers[0].name!r} ({followers[0].id}) runs after {stored.name!r}",
                hint="Change its `after` first.",
                subject=followers[0].id,
            )

    def _refuse_taken(self, sync: Sync) -> None:
        """A name that a sync of the file has; those of the store are looked at as it is written."""
        for other in self.project.syncs:
            if {sync.name, sync.slug} & set(names_of([other])):
                raise ConflictError(
                    f"the sync {other.id} of the project's file is called {other.name!r}: names are unique",
                    hint="Choose another name.",
                    subject=other.id,
                )

    def _save(self, sync: Sync, stored: StoredSync, actor: str, expected: int | None) -> tuple[str, ...]:
        """A new version, unless nothing changes."""
        definition = definition_of(sync)
        same = sync.name == stored.name and definition == definition_of(sync_of(stored))
        if same and expected in (None, stored.version):
            return ()
        warnings = self._examine(sync)
        self.store.syncs.update(sync.id, sync.name, definition, actor, expected=expected)
        return warnings

    def _examine(self, sync: Sync) -> tuple[str, ...]:
        destination = self.project.destination(sync.destination_id)
        warehouse = self.project.warehouse(sync.warehouse)
        with closing(self.open_connector(destination)) as connector:
            verdict = examine(sync, connector, lambda: self.open_source(warehouse), self.project.base)
        if verdict.mistakes:
            raise InvalidSyncError(sync.name, verdict.mistakes)
        return tuple(verdict.warnings)

    def _switch(self, sync: Sync, actor: str) -> None:
        self.store.states.set_enabled(sync.id, sync.project, sync.slug, sync.enabled, actor)


def _merged(stored: StoredSync, changes: Mapping[str, Any]) -> dict[str, Any]:
    said = {**stored.definition, "name": stored.name, "slug": stored.slug}
    if "key" in changes and "field_mappings" not in changes:
        entries = stored.definition["field_mappings"]
        said["field_mappings"] = [{name: each[name] for name in each if name != "key"} for each in entries]
    return said | dict(changes)
