"""Syncs that live in the store: made, changed and deleted through the API, every version kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Select, insert, inspect, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from dagster_retl.errors import ConflictError, NotFoundError, VersionMismatchError
from dagster_retl.store.audit import Audit
from dagster_retl.store.clock import from_text, maybe_time, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema_syncs import sync_versions, syncs

_C = syncs.c


@dataclass(frozen=True, slots=True)
class StoredSync:
    """A sync as the store keeps it. `definition`: plain data as in retl.yaml, without id, project, name and slug."""

    id: str
    project: str
    name: str
    slug: str
    definition: Mapping[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SyncVersion:
    """What a sync said from `created_at` on, and who said it."""

    sync_id: str
    version: int
    name: str
    definition: Mapping[str, Any]
    actor: str
    created_at: datetime


class StoredSyncs:
    """All syncs of the store. Names and slugs are unique among the live ones of a project. Every change is audited."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._db = database
        self._audit = audit

    def live(self, project: str) -> list[StoredSync]:
        """The live ones of a project, newest first."""
        with self._db.read() as conn:
            return _live_ones(conn, project)

    def deleted(self, project: str) -> list[StoredSync]:
        """The deleted ones of a project, newest first."""
        query = select(syncs).where(_C.project == project, _C.deleted_at.is_not(None))
        with self._db.read() as conn:
            return [_stored(row) for row in conn.execute(_newest_first(query))]

    def get(self, sync_id: str, conn: Connection | None = None) -> StoredSync:
        """A sync, deleted or not. Raises `NotFoundError`."""
        with self._db.reading(conn) as reader:
            row = reader.execute(select(syncs).where(_C.id == sync_id)).one_or_none()
        if row is None:
            raise _unknown(sync_id)
        return _stored(row)

    def find(self, project: str, reference: str) -> StoredSync | None:
        """The live sync of that id, slug or name, in this order."""
        named = or_(_C.id == reference, _C.slug == reference, _C.name == reference)
        with self._db.read() as conn:
            rows = conn.execute(select(syncs).where(_C.project == project, _C.deleted_at.is_(None), named)).all()
        ranked = sorted(rows, key=lambda row: (row.id != reference, row.slug != reference))
        return _stored(ranked[0]) if ranked else None

    def create(self, sync: StoredSync, actor: str) -> StoredSync:
        """Keep a new sync, whose times and version are set here. Raises `ConflictError` when its name is taken."""
        with self._db.begin() as conn:
            now = to_text(self._db.now(conn))
            values = {
                "id": sync.id,
                "project": sync.project,
                "name": sync.name,
                "slug": sync.slug,
                "definition": _json(sync.definition),
                "version": 1,
                "created_at": now,
                "updated_at": now,
            }
            try:
                with conn.begin_nested():
                    conn.execute(insert(syncs).values(values))
            except IntegrityError:
                raise self._taken(conn, sync) from None
            self._note(conn, sync.id, actor, "sync.create")
            return self.get(sync.id, conn)

    def update(
        self, sync_id: str, name: str, definition: Mapping[str, Any], actor: str, *, expected: int | None = None
    ) -> StoredSync:
        """Replace what a live sync says.

        expected: the version that this is a change of. Raises `NotFoundError`, `VersionMismatchError` when the
        sync has another version by now, `ConflictError` when the name is taken.
        """
        with self._db.begin() as conn:
            current = self._lock(conn, sync_id)
            _require_version(current, expected)
            changed = {
                "name": name,
                "definition": _json(definition),
                "version": current.version + 1,
                "updated_at": to_text(self._db.now(conn)),
            }
            try:
                with conn.begin_nested():
                    conn.execute(update(syncs).where(_C.id == sync_id).values(changed))
            except IntegrityError:
                raise self._taken(conn, current, name=name) from None
            self._note(conn, sync_id, actor, "sync.update")
            return self.get(sync_id, conn)

    def delete(self, conn: Connection, sync_id: str, actor: str, *, expected: int | None = None) -> StoredSync:
        """Let a live sync go; its runs, dead letters and snapshot stay. Raises as `update` does."""
        _require_version(self._lock(conn, sync_id), expected)
        now = to_text(self._db.now(conn))
        conn.execute(update(syncs).where(_C.id == sync_id).values(deleted_at=now, updated_at=now))
        gone = self.get(sync_id, conn)
        self._audit.add(conn, actor, "sync.delete", sync_id, gone.name)
        return gone

    def versions(self, sync_id: str) -> list[SyncVersion]:
        """Every version of a sync, newest first; of a deleted one as well. Raises `NotFoundError`."""
        query = select(sync_versions).where(sync_versions.c.sync_id == sync_id)
        with self._db.read() as conn:
            rows = conn.execute(query.order_by(sync_versions.c.version.desc())).all()
        if not rows:
            raise _unknown(sync_id)
        return [_version(row) for row in rows]

    def _lock(self, conn: Connection, sync_id: str) -> StoredSync:
        query = select(syncs).where(_C.id == sync_id, _C.deleted_at.is_(None)).with_for_update()
        row = conn.execute(query).one_or_none()
        if row is None:
            raise _unknown(sync_id)
        return _stored(row)

    def _note(self, conn: Connection, sync_id: str, actor: str, action: str) -> None:
        """Keep the version that was just written, and who wrote it."""
        copied = select(
            _C.id, _C.version, _C.name, _C.definition, literal(actor), _C.updated_at
        ).where(_C.id == sync_id)  # fmt: skip
        names = ["sync_id", "version", "name", "definition", "actor", "created_at"]
        conn.execute(insert(sync_versions).from_select(names, copied))
        now = self.get(sync_id, conn)
        self._audit.add(conn, actor, action, sync_id, f"{now.name} (version {now.version})")

    def _taken(self, conn: Connection, sync: StoredSync, *, name: str | None = None) -> ConflictError:
        wanted = name or sync.name
        same = or_(_C.name == wanted, _C.slug == sync.slug)
        query = select(_C.id, _C.name).where(
            _C.project == sync.project, _C.deleted_at.is_(None), same, _C.id != sync.id
        )
        holder = conn.execute(query.order_by(_C.name != wanted).limit(1)).one_or_none()
        if holder is None:
            return ConflictError(
                f"a sync {wanted!r} was made and deleted meanwhile", hint="Try again.", subject=sync.id
            )
        return ConflictError(
            f"the sync {holder.id} is called {holder.name!r}: names, and the slugs made of them, are unique",
            hint="Choose another name, or change that sync.",
            subject=holder.id,
        )


def read_live_syncs(url: str, project: str) -> list[StoredSync]:
    """The live syncs of a project in the store at a URL, for whoever needs nothing else of it. Writes nothing.

    A store that is not there yet, or older than syncs in it, has none. Raises `StoreError` for one that
    cannot be read.
    """
    database = Database(url)
    try:
        if database.is_missing():
            return []
        with database.reachable(), database.read() as conn:
            return _live_ones(conn, project) if inspect(conn).has_table(syncs.name) else []
    finally:
        database.close()


def _live_ones(conn: Connection, project: str) -> list[StoredSync]:
    query = select(syncs).where(_C.project == project, _C.deleted_at.is_(None))
    return [_stored(row) for row in conn.execute(_newest_first(query))]


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(_C.created_at.desc(), _C.id.desc())


def _require_version(current: StoredSync, expected: int | None) -> None:
    if expected is not None and expected != current.version:
        raise VersionMismatchError(
            f"sync {current.name!r} has version {current.version} by now, not {expected}",
            hint="Read it again, and repeat the change on what it says now.",
            subject=current.id,
        )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _stored(row: Any) -> StoredSync:
    return StoredSync(
        id=row.id,
        project=row.project,
        name=row.name,
        slug=row.slug,
        definition=orjson.loads(row.definition),
        version=row.version,
        created_at=from_text(row.created_at),
        updated_at=from_text(row.updated_at),
        deleted_at=maybe_time(row.deleted_at),
    )


def _version(row: Any) -> SyncVersion:
    return SyncVersion(
        sync_id=row.sync_id,
        version=row.version,
        name=row.name,
        definition=orjson.loads(row.definition),
        actor=row.actor,
        created_at=from_text(row.created_at),
    )


def _unknown(sync_id: str) -> NotFoundError:
    return NotFoundError(f"there is no sync {sync_id!r}", hint="`retl syncs list` shows those that there are.")
