"""Pointers to the current snapshot generation of each sync."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import snapshots
from dagster_retl.store.sql import upsert


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which generation is a sync's snapshot, and what it is a snapshot of.

    account_id, account_name: who it was delivered to. identity: the configured account, without
    secrets. generation: name of the file, None for an empty snapshot; rows and checksum are the
    file's. stale: a full refresh is under way: keys count, fingerprints do not. source_rows: of
    the last complete read. updated_at: set by the store.
    """

    sync_id: str
    epoch: str
    account_id: str
    account_name: str
    identity: str
    generation: str | None
    rows: int
    checksum: str | None
    fingerprint_version: int
    stale: bool = False
    source_rows: int | None = None
    watermark: str | None = None
    updated_at: datetime | None = None


class Snapshots:
    """The pointers of all syncs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def pointer(self, sync_id: str, conn: Connection | None = None) -> Pointer | None:
        """None: nothing was ever delivered."""
        with self._db.reading(conn) as reader:
            row = reader.execute(select(snapshots).where(snapshots.c.sync_id == sync_id)).one_or_none()
        return None if row is None else _pointer(row)

    def save(self, conn: Connection, pointer: Pointer) -> None:
        """Swap the pointer, in the fenced transaction that also closes the run (PROTOCOL 9)."""
        values = asdict(pointer) | {"updated_at": to_text(self._db.now(conn))}
        changed = {name: value for name, value in values.items() if name != "sync_id"}
        swap = upsert(conn, snapshots).values(values)
        conn.execute(swap.on_conflict_do_update(index_elements=["sync_id"], set_=changed))

    def mark_stale(self, conn: Connection, sync_id: str) -> bool:
        """Begin a full refresh: no fingerprint counts, keys stay, the watermark goes (PROTOCOL 11).

        False: there is no snapshot, so that nothing had to be marked.
        """
        values = {"stale": True, "watermark": None, "updated_at": to_text(self._db.now(conn))}
        marked = conn.execute(update(snapshots).where(snapshots.c.sync_id == sync_id).values(values))
        return marked.rowcount == 1


def _pointer(row: Any) -> Pointer:
    values = dict(row._mapping)  # noqa: SLF001 - the public name of SQLAlchemy's row as a mapping
    return Pointer(**values | {"updated_at": from_text(values["updated_at"])})
