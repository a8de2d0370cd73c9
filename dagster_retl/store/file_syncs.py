"""Syncs that project files define, as far as they ran here: what is left of one that leaves its file has an owner."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema_syncs import file_syncs
from dagster_retl.store.sql import upsert

_C = file_syncs.c


class FileSyncs:
    """By id: the project, and the slug that the sync had when it ran last."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def note(self, sync_id: str, project: str, slug: str) -> None:
        """The sync runs, under this slug. Writes what is new only."""
        if self.slug(sync_id) == slug:
            return
        with self._db.begin() as conn:
            changed = {"project": project, "slug": slug, "seen_at": to_text(self._db.now(conn))}
            say = upsert(conn, file_syncs).values(sync_id=sync_id, **changed)
            conn.execute(say.on_conflict_do_update(index_elements=["sync_id"], set_=changed))

    def slug(self, sync_id: str) -> str | None:
        """The slug that the sync had when it ran last; None: it never ran."""
        with self._db.read() as conn:
            return conn.scalar(select(_C.slug).where(_C.sync_id == sync_id))

    def called(self, project: str, slugs: Collection[str]) -> dict[str, str]:
        """Id → slug, of the syncs of a project that had one of these slugs when they ran last."""
        query = select(_C.sync_id, _C.slug).where(_C.project == project, _C.slug.in_(sorted(slugs)))
        with self._db.read() as conn:
            return {row.sync_id: row.slug for row in conn.execute(query.order_by(_C.sync_id))}

    def owners(self) -> dict[str, str]:
        """Id → project, of all syncs of files."""
        with self._db.read() as conn:
            return {row.sync_id: row.project for row in conn.execute(select(_C.sync_id, _C.project))}
