"""What people decided about a sync outside its file."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from dagster_retl.store.audit import Audit
from dagster_retl.store.clock import from_text, to_text
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

    def decided_at(self) -> dict[str, datetime]:
        """Sync id → when somebody decided about it last."""
        with self._db.read() as conn:
            rows = conn.execute(select(sync_states.c.sync_id, sync_states.c.updated_at))
            return {row.sync_id: from_text(row.updated_at) for row in rows}

    def set_enabled(
        self,
        sync_id: str,
        project: str,
        slug: str,
        enabled: bool | None,
        actor: str,
        conn: Connection | None = None,
    ) -> None:
        """Switch a sync on or off; None: follow the file again."""
        with self._db.writing(conn) as writer:
            now = to_text(self._db.now(writer))
            changed = {"project": project, "slug": slug, "enabled": enabled, "updated_at": now}
            decide = upsert(writer, sync_states).values(sync_id=sync_id, **changed)
            writer.execute(decide.on_conflict_do_update(index_elements=["sync_id"], set_=changed))
            action = {True: "sync.enable", False: "sync.disable", None: "sync.follow_file"}[enabled]
            self._audit.add(writer, actor, action, sync_id, slug)
