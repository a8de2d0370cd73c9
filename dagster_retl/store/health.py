"""What the last check of each destination found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import destination_health
from dagster_retl.store.sql import upsert

_C = destination_health.c


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. error_code, message: why it failed; None: it did not. since: of which time on that is so."""

    destination_id: str
    error_code: str | None
    message: str | None
    since: datetime
    checked_at: datetime

    @property
    def down(self) -> bool:
        return self.error_code is not None


class Health:
    """The last check of each destination of a project; a store may serve several, with other credentials each."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def all(self, project: str) -> dict[str, Checked]:
        """By destination id; those that were never checked are missing."""
        with self._db.read() as conn:
            rows = conn.execute(select(destination_health).where(_C.project == project)).all()
        return {row.destination_id: _checked(row) for row in rows}

    def record(
        self,
        project: str,
        destination_id: str,
        *,
        error_code: str | None = None,
        message: str | None = None,
        since: datetime | None = None,
    ) -> Checked:
        """Remember what a check found just now. since: of when on that is so, where it was known before."""
        with self._db.begin() as conn:
            now = self._db.now(conn)
            mine = and_(_C.project == project, _C.destination_id == destination_id)
            row = conn.execute(select(destination_health).where(mine)).one_or_none()
            before = None if row is None else _checked(row)
            still_well = error_code is None and before is not None and not before.down
            began = since or (before.since if before is not None and still_well else now)
            values = {
                "error_code": error_code,
                "message": message,
                "since": to_text(began),
                "checked_at": to_text(now),
            }
            statement = upsert(conn, destination_health)
            statement = statement.values(project=project, destination_id=destination_id, **values)
            conn.execute(statement.on_conflict_do_update(index_elements=["project", "destination_id"], set_=values))
        return Checked(destination_id, error_code, message, began, now)


def _checked(row: Any) -> Checked:
    return Checked(row.destination_id, row.error_code, row.message, from_text(row.since), from_text(row.checked_at))
