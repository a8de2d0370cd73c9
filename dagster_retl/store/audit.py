"""Who changed what, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import audit


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`actor` did `action` to `subject` (an id), with what particulars."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str


class Audit:
    """The log of what people and keys did. Entries are never changed."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, conn: Connection, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Write an entry in the transaction of the change itself."""
        at = to_text(self._db.now(conn))
        conn.execute(insert(audit).values(at=at, actor=actor, action=action, subject=subject, detail=detail))

    def list(self, *, limit: int = 100, before: int | None = None) -> list[tuple[int, AuditEntry]]:
        """Entries with their numbers, newest first; `before`: only those with a smaller number."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        with self._db.read() as conn:
            return [
                (row.id, AuditEntry(from_text(row.at), row.actor, row.action, row.subject, row.detail))
                for row in conn.execute(query)
            ]
