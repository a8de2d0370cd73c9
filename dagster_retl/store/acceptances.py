"""Acceptances: versions that a person declared delivered; the next run folds them into the snapshot."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from sqlalchemy import Connection, delete, select

from dagster_retl.store.database import Database
from dagster_retl.store.schema import acceptances
from dagster_retl.store.sql import arrow_table, chunks

ACCEPTANCE_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("key", pa.string()),
        ("record_keys", pa.string()),
        ("fingerprint", pa.string()),
        ("accepted_at", pa.string()),
        ("partition", pa.string()),
    ]
)


class Acceptances:
    """What `DeadLetters.resolve` left for the next run. `fingerprint` null: the record was removed."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def table(self, sync_id: str, epoch: str, conn: Connection | None = None) -> pa.Table:
        """All of them in the order of their making, as `ACCEPTANCE_SCHEMA`."""
        query = (
            select(*(acceptances.c[name] for name in ACCEPTANCE_SCHEMA.names))
            .where(acceptances.c.sync_id == sync_id, acceptances.c.epoch == epoch)
            .order_by(acceptances.c.id)
        )
        with self._db.reading(conn) as reader:
            return arrow_table(reader, query, ACCEPTANCE_SCHEMA)

    def remove(self, conn: Connection, ids: Iterable[int]) -> int:
        """Drop the folded ones. Returns how many there were."""
        gone = (conn.execute(delete(acceptances).where(acceptances.c.id.in_(chunk))) for chunk in chunks(ids))
        return sum(result.rowcount for result in gone)
