"""What alerts have said, so that nothing is said twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import notices
from dagster_retl.store.sql import upsert


@dataclass(frozen=True, slots=True)
class Notice:
    """The state of one subject when people last heard of it."""

    key: str
    state: str
    detail: str
    notified_at: datetime


class Notices:
    """Notices by key; a key names its subject, most general part first (`dead_letters/conn/CODE`)."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, key: str) -> Notice | None:
        """The last notice of a subject."""
        with self._db.read() as conn:
            row = conn.execute(select(notices).where(notices.c.key == key)).one_or_none()
        return None if row is None else _notice(row)

    def put(self, key: str, state: str, detail: str = "", conn: Connection | None = None) -> None:
        """Remember what was said, and that it was said now."""
        with self._db.writing(conn) as writer:
            changed = {"state": state, "detail": detail, "notified_at": to_text(self._db.now(writer))}
            say = upsert(writer, notices).values(key=key, **changed)
            writer.execute(say.on_conflict_do_update(index_elements=["key"], set_=changed))

    def all(self, prefix: str = "") -> list[Notice]:
        """The notices whose key begins with `prefix`, by key."""
        query = select(notices).where(notices.c.key.startswith(prefix, autoescape=True)).order_by(notices.c.key)
        with self._db.read() as conn:
            return [_notice(row) for row in conn.execute(query)]

    def delete(self, key: str, conn: Connection | None = None) -> bool:
        """Forget a subject; false when nothing was known of it."""
        with self._db.writing(conn) as writer:
            return writer.execute(delete(notices).where(notices.c.key == key)).rowcount == 1


def _notice(row: Any) -> Notice:
    return Notice(row.key, row.state, row.detail, from_text(row.notified_at))
