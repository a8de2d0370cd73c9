"""Row history: which files of the state say what became of the rows of which run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.files import Stored
from dagster_retl.store.schema import row_history
from dagster_retl.store.sql import chunks

_C = row_history.c


@dataclass(frozen=True, slots=True)
class HistoryFile:
    """A file, the run whose rows it is about, and the epoch that the run wrote to."""

    id: int
    epoch: str
    run_id: str
    name: str
    checksum: str
    rows: int
    created_at: datetime


class RowHistory:
    """The history files of all syncs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, conn: Connection, sync_id: str, epoch: str, run_id: str, stored: Stored) -> None:
        """Name a file, in the fenced transaction that folds its run's ledger."""
        conn.execute(
            insert(row_history).values(
                sync_id=sync_id,
                epoch=epoch,
                run_id=run_id,
                name=stored.name,
                checksum=stored.checksum,
                rows=stored.rows or 0,
                created_at=to_text(self._db.now(conn)),
            )
        )

    def files(self, sync_id: str) -> list[HistoryFile]:
        """The files of a sync, oldest first."""
        query = select(row_history).where(_C.sync_id == sync_id).order_by(_C.created_at, _C.id)
        with self._db.read() as conn:
            return [_file(row) for row in conn.execute(query)]

    def names(self, sync_id: str) -> set[str]:
        """The names of a sync's files in the state."""
        with self._db.read() as conn:
            return set(conn.scalars(select(_C.name).where(_C.sync_id == sync_id)))

    def replace(self, conn: Connection, file_id: int, stored: Stored | None) -> None:
        """Name another file in its place; None: none at all."""
        if stored is None:
            self.remove(conn, [file_id])
            return
        values = {"name": stored.name, "checksum": stored.checksum, "rows": stored.rows or 0}
        conn.execute(update(row_history).where(_C.id == file_id).values(values))

    def remove(self, conn: Connection, ids: Iterable[int]) -> int:
        """Name these no more. Returns how many there were."""
        return sum(conn.execute(delete(row_history).where(_C.id.in_(chunk))).rowcount for chunk in chunks(ids))


def _file(row: Any) -> HistoryFile:
    return HistoryFile(
        id=row.id,
        epoch=row.epoch,
        run_id=row.run_id,
        name=row.name,
        checksum=row.checksum,
        rows=row.rows,
        created_at=from_text(row.created_at),
    )
