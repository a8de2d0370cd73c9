"""What the store keeps about one key of a sync, in all its tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, or_, select

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
    """Everything about a key. letters: of all epochs, oldest first; the rest is of the one that was asked for.

    record_keys: the key's fields, as each of them has them.
    """

    letters: Sequence[DeadLetter]
    suspects: Sequence[OpenQuestion]
    decisions: Sequence[Decision]
    record_keys: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    """How many dead letters went, and how many rows besides."""

    letters: int
    others: int


class KeyRecords:
    """Looks keys up, and erases them."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of(self, sync_id: str, epoch: str | None, key: str) -> KeyRecord:
        """What is known of a key; `epoch` None: nothing was delivered yet."""
        entries = select(dead_letters).where(dead_letters.c.sync_id == sync_id, dead_letters.c.key == key)
        with self._db.read() as conn:
            letters = [dead_letter_of(row) for row in conn.execute(entries.order_by(dead_letters.c.first_seen_at))]
            suspected, accepted, rearmed = (
                _rows(conn, table, sync_id, epoch, key) for table in (suspects, acceptances, rearmed_keys)
            )
        decisions = [Decision(from_text(row.accepted_at), accepted=True, content=row.fingerprint) for row in accepted]
        decisions += [Decision(from_text(row.rearmed_at), accepted=False) for row in rearmed]
        return KeyRecord(
            letters=letters,
            suspects=[OpenQuestion(row.fingerprint, from_text(row.until)) for row in suspected],
            decisions=sorted(decisions, key=lambda decision: decision.at),
            record_keys=[letter.record_keys for letter in letters]
            + [orjson.loads(row.record_keys) for row in (*suspected, *accepted, *rearmed)],
        )

    def erase(self, conn: Connection, sync_id: str, epoch: str | None, key: str, elsewhere: Collection[str]) -> Erased:
        """Delete every row about a key; `elsewhere`: what it is called in other epochs."""
        counts = [
            conn.execute(delete(table).where(_about(table, sync_id, epoch, key, elsewhere))).rowcount
            for table in (dead_letters, suspects, acceptances, rearmed_keys)
        ]
        return Erased(counts[0], sum(counts[1:]))


def _about(table: Table, sync_id: str, epoch: str | None, key: str, elsewhere: Collection[str]) -> ColumnElement[bool]:
    here = and_(table.c.epoch == epoch, table.c.key == key)
    others = and_(table.c.epoch.is_distinct_from(epoch), table.c.key.in_(sorted(elsewhere)))
    return and_(table.c.sync_id == sync_id, or_(here, others))


def _rows(conn: Connection, table: Table, sync_id: str, epoch: str | None, key: str) -> Sequence[Any]:
    mine = (table.c.sync_id == sync_id) & (table.c.epoch == epoch) & (table.c.key == key)
    return conn.execute(select(table).where(mine).order_by(table.c.id)).all()
