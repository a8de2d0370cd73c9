"""Suspects: what a destination may hold, now or later, that the snapshot does not say (PROTOCOL 5, 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Connection, delete, insert, select

from dagster_retl.store.database import Database
from dagster_retl.store.schema import suspects
from dagster_retl.store.sql import arrow_table, chunks

SUSPECT_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("key", pa.string()),
        ("record_keys", pa.string()),
        ("fingerprint", pa.string()),
        ("until", pa.string()),
        ("partition", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A version that was sent and not unambiguously answered.

    record_keys: JSON of the key fields. fingerprint: the version; None: a removal was sent.
    until: when the request can no longer land, as the store writes times (`clock.to_text`). partition: whose row it
    is (`Partition.identity`).
    """

    key: str
    record_keys: str
    fingerprint: str | None
    until: str
    partition: str | None = None


class Suspects:
    """The suspects of all syncs, each of one epoch."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, conn: Connection, sync_id: str, epoch: str, rows: Sequence[Suspect]) -> None:
        """Append suspects; a run that lost its lease does so too, in a transaction without a fence."""
        if rows:
            conn.execute(insert(suspects), [_values(sync_id, epoch, row) for row in rows])

    def table(self, sync_id: str, epoch: str, conn: Connection | None = None) -> pa.Table:
        """All of them, as `SUSPECT_SCHEMA`; `until` is the store's text and compares with its other times."""
        query = select(*(suspects.c[name] for name in SUSPECT_SCHEMA.names)).where(
            suspects.c.sync_id == sync_id, suspects.c.epoch == epoch
        )
        with self._db.reading(conn) as reader:
            return arrow_table(reader, query, SUSPECT_SCHEMA)

    def remove(self, conn: Connection, ids: Iterable[int]) -> int:
        """Drop suspects that an acceptance cleared. Returns how many there were."""
        return sum(conn.execute(delete(suspects).where(suspects.c.id.in_(chunk))).rowcount for chunk in chunks(ids))


def _values(sync_id: str, epoch: str, row: Suspect) -> dict[str, str | None]:
    return {
        "sync_id": sync_id,
        "epoch": epoch,
        "key": row.key,
        "record_keys": row.record_keys,
        "fingerprint": row.fingerprint,
        "until": row.until,
        "partition": row.partition,
    }
