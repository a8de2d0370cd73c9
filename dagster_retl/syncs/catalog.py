"""All syncs of a project: those of its file and those of its store, and who owns which.

A file's sync that adopts one of the store (`adopt: retl_sync_…`) takes its place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from dagster_retl.errors import ConfigurationError, NotFoundError
from dagster_retl.model.ids import sync_id_of
from dagster_retl.model.mistakes import did_you_mean
from dagster_retl.model.order import order_mistakes
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.store.store import Store
from dagster_retl.store.stored_syncs import StoredSync, read_live_syncs
from dagster_retl.syncs.definition import sync_of


@dataclass(frozen=True, slots=True)
class Entry:
    """A sync and where it stands.

    enabled: what people decided, or else what was written. version: of a sync of the store; None: a file owns it.
    created_at: None where nobody knows. updated_at: when it was written, or switched on or off, last.
    """

    sync: Sync
    enabled: bool
    version: int | None
    created_at: datetime | None
    updated_at: datetime | None

    @property
    def owner(self) -> str:
        """`file` or `store`."""
        return "file" if self.version is None else "store"


@dataclass(frozen=True, slots=True)
class Retired:
    """A sync that is gone, whose state is kept. deleted_at: when, where it was deleted; None: it left the file."""

    sync_id: str
    name: str
    deleted_at: datetime | None = None


class Catalog:
    """Finds syncs. Reads the store anew each time: other processes change it."""

    def __init__(self, project: Project, store: Store) -> None:
        self._project = project
        self._store = store

    def syncs(self) -> list[Sync]:
        """Those of the file in its order, then those of the store, the oldest first."""
        return [*self._project.syncs, *_of_store(self._project, self._stored())]

    def find(self, reference: str) -> Sync:
        """The sync of that id, slug or name. Raises `NotFoundError`."""
        try:
            return self._project.sync(reference)
        except NotFoundError:
            stored = self._store.syncs.find(self._project.project, reference)
        if stored is not None and not self._adopted(stored.id):
            return sync_of(stored)
        self._refuse_deleted(reference)
        raise NotFoundError(
            f"there is no sync {reference!r}",
            hint=did_you_mean(reference, [sync.slug for sync in self.syncs()]) or "`retl syncs list` shows all syncs.",
        )

    def entries(self) -> list[Entry]:
        """All syncs with where they stand, in the order of `syncs`."""
        decided, times = self._store.states.all(), self._store.states.decided_at()
        stored = {each.id: each for each in self._stored()}
        return [self._entry(sync, stored.get(sync.id), decided, times) for sync in self.syncs()]

    def entry(self, reference: str) -> Entry:
        """One of them. Raises `NotFoundError`."""
        sync = self.find(reference)
        stored = None if self.in_file(sync.id) else self._store.syncs.get(sync.id)
        return self._entry(sync, stored, self._store.states.all(), self._store.states.decided_at())

    def entry_of(self, sync_id: str) -> Entry:
        """The one of that id, and no name. Raises `NotFoundError`."""
        found = self.entry(sync_id)
        if found.sync.id != sync_id:
            raise NotFoundError(f"there is no sync {sync_id!r}", hint="Syncs are named by their ids here.")
        return found

    def knows(self, sync_id: str) -> bool:
        """Whether there is a sync of that id, or was one in the store."""
        if self.in_file(sync_id):
            return True
        try:
            return self._store.syncs.get(sync_id).project == self._project.project
        except NotFoundError:
            return False

    def require_live(self, conn: Connection, sync_id: str) -> None:
        """Raises `NotFoundError` when the sync was deleted; in the transaction of whoever locked it."""
        if not self.in_file(sync_id) and self._store.syncs.get(sync_id, conn).deleted_at is not None:
            raise NotFoundError(f"there is no sync {sync_id!r}", hint="It was deleted just now.")

    def in_file(self, sync_id: str) -> bool:
        """Whether the project's file owns the sync."""
        return any(sync.id == sync_id for sync in self._project.syncs)

    def retired(self) -> list[Retired]:
        """Syncs of this project that are gone while the store still keeps something of them."""
        live = {sync.id for sync in self.syncs()}
        deleted = [
            Retired(each.id, each.name, each.deleted_at) for each in self._store.syncs.deleted(self._project.project)
        ]
        gone = [each for each in deleted if each.sync_id not in live]
        known = live | {each.sync_id for each in gone}
        owners = self._store.file_syncs.owners()
        left = [
            Retired(sync_id, name)
            for sync_id, name in self._store.purging.remembered(known).items()
            if owners.get(sync_id, self._made_of(sync_id, name)) == self._project.project
        ]
        return [*gone, *left]

    def _made_of(self, sync_id: str, slug: str) -> str | None:
        """The project of a sync that ran before owners were written down, if that is this one: ids are made of both."""
        return self._project.project if sync_id == sync_id_of(self._project.project, slug) else None

    def _refuse_deleted(self, sync_id: str) -> None:
        """Raises `NotFoundError` for the id of a sync that was deleted: a run that was queued for it may come late."""
        for gone in self._store.syncs.deleted(self._project.project):
            if gone.id == sync_id:
                raise NotFoundError(
                    f"there is no sync {sync_id!r} any more: {gone.name!r} was deleted",
                    hint="`retl syncs list --retired` shows what is kept of it.",
                )

    def _stored(self) -> list[StoredSync]:
        return self._store.syncs.live(self._project.project)

    def _adopted(self, sync_id: str) -> bool:
        return self.in_file(sync_id)

    def _entry(
        self, sync: Sync, stored: StoredSync | None, decided: dict[str, bool], times: dict[str, datetime]
    ) -> Entry:
        if self.in_file(sync.id):
            stored = None
        written = _written_at(self._project.path) if stored is None else stored.updated_at
        moments = [moment for moment in (written, times.get(sync.id)) if moment is not None]
        return Entry(
            sync=sync,
            enabled=decided.get(sync.id, sync.enabled),
            version=None if stored is None else stored.version,
            created_at=None if stored is None else stored.created_at,
            updated_at=max(moments, default=None),
        )


def with_stored_syncs(project: Project) -> Project:
    """The project with the syncs of its store among its own, for definitions: nothing else is read, nothing written.

    Raises `StoreError` when the store cannot be read, and `ConfigurationError` when a sync of the file and
    one of the store have the same slug or name: one of them would hide the other.
    """
    found = _of_store(project, read_live_syncs(project.store_url, project.project))
    _refuse_same_names(project.syncs, found)
    _refuse_unknown_places(project, found)
    _refuse_broken_order([*project.syncs, *found], project.elsewhere)
    return project.model_copy(update={"syncs": (*project.syncs, *found)})


def _of_store(project: Project, stored: Iterable[StoredSync]) -> list[Sync]:
    owned = {sync.id for sync in project.syncs}
    return [sync_of(each) for each in reversed(list(stored)) if each.id not in owned]


def _refuse_same_names(of_file: Sequence[Sync], of_store: Iterable[Sync]) -> None:
    names = {name: sync for sync in of_file for name in (sync.slug, sync.name)}
    for sync in of_store:
        for name in (sync.slug, sync.name):
            if name in names:
                raise ConfigurationError(
                    f"{name!r} is a sync of the file and one of the store ({sync.id})",
                    hint=f"Write `adopt: {sync.id}` into the file's sync to go on with what the other one delivered, "
                    "or give one of them another name.",
                )


def _refuse_unknown_places(project: Project, of_store: Iterable[Sync]) -> None:
    for sync in of_store:
        for kind, name, known in (
            ("destination", sync.destination_id, project.destinations),
            ("warehouse", sync.warehouse, project.warehouses),
        ):
            if name not in known:
                raise ConfigurationError(
                    f"sync {sync.name!r} of the store ({sync.id}) needs the {kind} {name!r}, which the project does "
                    "not define",
                    hint="Define it again, or change or delete the sync through the API.",
                )


def _refuse_broken_order(syncs: Sequence[Sync], elsewhere: Collection[str]) -> None:
    for mistake in order_mistakes(syncs, elsewhere):
        sync = syncs[int(mistake.loc[1])]
        raise ConfigurationError(
            f"sync {sync.name!r} ({sync.id}) cannot run after {', '.join(map(repr, sync.after))}: {mistake.message}",
            hint="Put back the sync that is gone, or change `after` through the API.",
        )


def names_of(syncs: Iterable[Sync]) -> Iterator[str]:
    """Names and slugs, which are unique together."""
    for sync in syncs:
        yield from (sync.name, sync.slug)


def _written_at(path: Path | None) -> datetime | None:
    if path is None or not path.exists():
        return None
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
