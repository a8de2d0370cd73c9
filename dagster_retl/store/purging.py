"""Purging: everything that the store keeps of a sync that is no more."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select, union

from dagster_retl.store.audit import Audit
from dagster_retl.store.database import Database
from dagster_retl.store.schema import (
    acceptances,
    batches,
    dead_letters,
    rearmed_keys,
    row_history,
    runs,
    snapshots,
    suspects,
    sync_states,
)
from dagster_retl.store.schema_syncs import file_syncs, sync_versions, syncs

_BY_SYNC = (
    acceptances, batches, dead_letters, file_syncs, rearmed_keys, row_history, runs, snapshots, suspects,
    sync_states, sync_versions,
)  # fmt: skip


class Purging:
    """What is left of syncs, and how it goes. Leases stay: their tokens must never begin again."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._db = database
        self._audit = audit

    def remembered(self, besides: Collection[str] = ()) -> dict[str, str]:
        """Sync id → name, of syncs that left something behind: runs, a snapshot, or a decision about them.

        besides: ids that nobody asks about.
        """
        tables = (snapshots, sync_states, file_syncs)
        with self._db.read() as conn:
            found = list(conn.scalars(union(*(select(table.c.sync_id) for table in tables))))
            return {sync_id: _name(conn, sync_id) for sync_id in found if sync_id not in besides}

    def purge(self, conn: Connection, sync_id: str, name: str, actor: str) -> None:
        """Delete all rows about a sync, in the caller's transaction. The audit stays."""
        for table in _BY_SYNC:
            conn.execute(delete(table).where(table.c.sync_id == sync_id))
        conn.execute(delete(syncs).where(syncs.c.id == sync_id))
        self._audit.add(conn, actor, "sync.purge", sync_id, name)


def _name(conn: Connection, sync_id: str) -> str:
    """What its last run, or who decided about it, called the sync."""
    last = select(runs.c.sync_name).where(runs.c.sync_id == sync_id)
    slug = select(sync_states.c.slug).where(sync_states.c.sync_id == sync_id)
    seen = select(file_syncs.c.slug).where(file_syncs.c.sync_id == sync_id)
    last = last.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(1)
    found = conn.scalar(last) or conn.scalar(seen) or conn.scalar(slug)
    return str(found or "")
