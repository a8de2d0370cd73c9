"""What the store keeps about one key of a sync, in all its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from dagster_retl.model.runs import DeadLetter
from dagster_retl.store.clock import from_text
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters.listing import dead_letter_of
from dagster_retl.store.schema import acceptances, dead_letters, rearmed_keys, suspects


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A version that the destination may hold. content: its fingerprint; None: the key may be gone."""

    content: str | None
    until: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided and no run has acted on yet. accepted: its version counts as delivered; else: try again."""

    at: datetime
    accepted: bool
    content: str | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Everything about a key. letters: of all epochs, oldest first; the rest is of the one that was asked for."""

    letters: Sequence[DeadLetter]
    suspects: Sequence[OpenQuestion]
    decisions: Sequence[Decision]


class KeyRecords:
    """Looks keys up."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of(self, sync_id: str, epoch: str | None, key: str) -> KeyRecord:
        """What is known of a key; `epoch` None: nothing was delivered yet."""
        letters = select(dead_letters).where(dead_letters.c.sync_id == sync_id, dead_letters.c.key == key)
        with self._db.read() as conn:
            return KeyRecord(
                [dead_letter_of(row) for row in conn.execute(letters.order_by(dead_letters.c.first_seen_at))],
                [
                    OpenQuestion(row.fingerprint, from_text(row.until))
                    for row in _rows(conn, suspects, sync_id, epoch, key)
                ],
                sorted(_decisions(conn, sync_id, epoch, key), key=lambda decision: decision.at),
            )


def _decisions(conn: Connection, sync_id: str, epoch: str | None, key: str) -> list[Decision]:
    accepted = [
        Decision(from_text(row.accepted_at), accepted=True, content=row.fingerprint)
        for row in _rows(conn, acceptances, sync_id, epoch, key)
    ]
    rearmed = [
        Decision(from_text(row.rearmed_at), accepted=False) for row in _rows(conn, rearmed_keys, sync_id, epoch, key)
    ]
    return accepted + rearmed


def _rows(conn: Connection, table: Table, sync_id: str, epoch: str | None, key: str) -> Sequence[Any]:
    mine = (table.c.sync_id == sync_id) & (table.c.epoch == epoch) & (table.c.key == key)
    return conn.execute(select(table).where(mine).order_by(table.c.id)).all()
