"""What people decided about a sync outside its file."""

from __future__ import annotations

from sqlalchemy import select

from dagster_retl.store.audit import Audit
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import sync_states
from dagster_retl.store.sql import upsert


class SyncStates:
    """Whether syncs are enabled, where somebody said so. Every change is audited."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._db = database
        self._audit = audit

    def enabled(self, sync_id: str) -> bool | None:
        """None: nobody said; what the file says counts."""
        with self._db.read() as conn:
            return conn.scalar(select(sync_states.c.enabled).where(sync_states.c.sync_id == sync_id))

    def all(self) -> dict[str, bool]:
        """Sync id → enabled, for the syncs that somebody decided about."""
        query = select(sync_states.c.sync_id, sync_states.c.enabled).where(sync_states.c.enabled.is_not(None))
        with self._db.read() as conn:
            return {row.sync_id: row.enabled for row in conn.execute(query)}

    def set_enabled(self, sync_id: str, project: str, slug: str, enabled: bool | None, actor: str) -> None:
        """Switch a sync on or off; None: follow the file again."""
        with self._db.begin() as conn:
            changed = {"project": project, "slug": slug, "enabled": enabled, "updated_at": to_text(self._db.now(conn))}
            decide = upsert(conn, sync_states).values(sync_id=sync_id, **changed)
            conn.execute(decide.on_conflict_do_update(index_elements=["sync_id"], set_=changed))
            action = {True: "sync.enable", False: "sync.disable", None: "sync.follow_file"}[enabled]
            self._audit.add(conn, actor, action, sync_id, slug)
