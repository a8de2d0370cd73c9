"""Dead letters as plan and fold need them: in columns, to be joined with rows."""

from __future__ import annotations

import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select

from dagster_retl.store.database import Database
from dagster_retl.store.schema import dead_letters
from dagster_retl.store.sql import arrow_table

OPEN_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("rejections", pa.int64()),
        ("held", pa.bool_()),
        ("error_code", pa.string()),
        ("operation", pa.string()),
        ("id", pa.string()),
        ("record_keys", pa.string()),
        ("partition", pa.string()),
    ]
)

REFUSAL_SCHEMA = pa.schema([("key", pa.string()), ("error_code", pa.string())])

SILENCED_SCHEMA = pa.schema([("key", pa.string()), ("fingerprint", pa.string()), ("partition", pa.string())])

_C = dead_letters.c


def overtaken() -> ColumnElement[bool]:
    """Whether a later entry of the same key exists."""
    newer = dead_letters.alias("newer")
    return exists().where(
        and_(newer.c.sync_id == _C.sync_id, newer.c.epoch == _C.epoch, newer.c.key == _C.key),
        or_(
            newer.c.first_seen_at > _C.first_seen_at,
            and_(newer.c.first_seen_at == _C.first_seen_at, newer.c.id > _C.id),
        ),
    )


class Planning:
    """The part of `DeadLetters` that a run reads before it plans, and when it folds."""

    _db: Database

    def open_for_plan(self, sync_id: str, epoch: str, conn: Connection | None = None) -> pa.Table:
        """The open entries, as `OPEN_SCHEMA`."""
        query = select(*(_C[name] for name in OPEN_SCHEMA.names)).where(
            _C.sync_id == sync_id, _C.epoch == epoch, _C.resolved_at.is_(None)
        )
        with self._db.reading(conn) as reader:
            return arrow_table(reader, query, OPEN_SCHEMA)

    def refusals(self, sync_id: str, epoch: str, run_id: str) -> pa.Table:
        """Why the rows failed that this run saw last, as `REFUSAL_SCHEMA`."""
        query = select(_C.key, _C.error_code).where(
            _C.run_id == run_id, _C.sync_id == sync_id, _C.epoch == epoch, _C.resolved_at.is_(None)
        )
        with self._db.read() as conn:
            return arrow_table(conn, query, REFUSAL_SCHEMA)

    def silenced(self, sync_id: str, epoch: str, conn: Connection | None = None) -> pa.Table:
        """The versions that are not sent until they change, as `SILENCED_SCHEMA`.

        The last entry of a key counts: one that was opened later says that the row changed.
        A silenced version whose row the plan finds changed is to be told to `resolve_keys`, or it
        would be silent again when the row changes back.
        """
        mine = and_(_C.sync_id == sync_id, _C.epoch == epoch)
        query = select(*(_C[name] for name in SILENCED_SCHEMA.names)).where(mine, _C.silenced, ~overtaken())
        with self._db.reading(conn) as reader:
            return arrow_table(reader, query, SILENCED_SCHEMA)
