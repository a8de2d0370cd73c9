"""Keys that the next run of a sync with a watermark reads, whatever their cursor says (PROTOCOL 12).

A person decided about them, or nothing else would bring them back: an update found no record. They stay until
a run that read them has ended well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
from sqlalchemy import Connection, delete, insert, select

from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import rearmed_keys
from dagster_retl.store.sql import arrow_table, chunks

REARMED_SCHEMA = pa.schema([("id", pa.int64()), ("key", pa.string()), ("record_keys", pa.string())])

_C = rearmed_keys.c


class RearmedKeys:
    """The keys of all syncs, each of one epoch."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, conn: Connection, sync_id: str, epoch: str, keys: Iterable[tuple[str, str]]) -> None:
        """Remember (key, record_keys) pairs; those that are remembered stay as they are."""
        mine = select(_C.key).where(_C.sync_id == sync_id, _C.epoch == epoch)
        known = set(conn.scalars(mine))
        common = {"sync_id": sync_id, "epoch": epoch, "rearmed_at": to_text(self._db.now(conn))}
        for chunk in chunks((key, record_keys) for key, record_keys in keys if key not in known):
            conn.execute(insert(rearmed_keys), [common | {"key": key, "record_keys": keys} for key, keys in chunk])

    def table(self, sync_id: str, epoch: str, conn: Connection | None = None) -> pa.Table:
        """All of them, as `REARMED_SCHEMA`."""
        query = select(*(_C[name] for name in REARMED_SCHEMA.names)).where(_C.sync_id == sync_id, _C.epoch == epoch)
        with self._db.reading(conn) as reader:
            return arrow_table(reader, query, REARMED_SCHEMA)

    def remove(self, conn: Connection, ids: Sequence[int]) -> None:
        """Forget those that were read."""
        for chunk in chunks(ids):
            conn.execute(delete(rearmed_keys).where(_C.id.in_(chunk)))

    def remove_other_epochs(self, conn: Connection, sync_id: str, epoch: str) -> None:
        """Forget what belongs to an object, account or key that this sync no longer writes to."""
        conn.execute(delete(rearmed_keys).where(_C.sync_id == sync_id, _C.epoch != epoch))
