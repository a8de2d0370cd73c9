"""Leases: one run of a sync at a time, fenced by a token that only grows (PROTOCOL 1)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, select, update

from dagster_retl.errors import LeaseHeldError, LeaseLostError
from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.processes import ProcessIdentity
from dagster_retl.store.schema import leases
from dagster_retl.store.sql import upsert

TTL = 60.0
"""Seconds after which a lease without a heartbeat is free."""

HEARTBEAT = 15.0
"""Seconds between heartbeats."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one sync.

    token: grows with each lease of the sync; it fences whoever held an earlier one.
    deadline: `time.monotonic()` of this process at which the lease may be somebody else's; it
    counts from before the request, so that it is never later than the store's expiry.
    previous_run_id: the run that this lease was taken from, which did not end by itself.
    """

    sync_id: str
    run_id: str
    token: int
    expires_at: datetime
    deadline: float
    ttl: float = TTL
    previous_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a sync, as the store knows it."""

    sync_id: str
    run_id: str
    token: int
    since: datetime
    heartbeat_at: datetime
    expires_at: datetime
    process: ProcessIdentity

    def dead(self, now: datetime) -> bool:
        """Whether the lease may be taken: it expired, or its process is gone from this machine."""
        return self.expires_at <= now or self.process.gone()


_FENCE = (
    update(leases)
    .where(
        leases.c.sync_id == bindparam("of_sync"),
        leases.c.token == bindparam("of_token"),
        leases.c.run_id == bindparam("of_run"),
    )
    .values(token=bindparam("of_token"))
)
"""Made once: it begins every transaction of a run."""


class Leases:
    """All leases of the store. Expiry counts by the store's clock."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def acquire(self, sync_id: str, run_id: str, *, ttl: float = TTL) -> Lease:
        """Take the sync for `ttl` seconds.

        Raises `LeaseHeldError` while another holder lives: nobody waits for a lease.
        """
        asked = time.monotonic()
        with self._db.begin() as conn:
            row = self.lock(conn, sync_id)
            now = self._db.now(conn)  # after the lock: waiting for it may have taken long
            holder = None if row.run_id is None else _holder(row)
            if holder is not None and not holder.dead(now):
                raise _held(holder, ttl)
            expires_at = now + timedelta(seconds=ttl)
            conn.execute(
                update(leases)
                .where(leases.c.sync_id == sync_id)
                .values(token=row.token + 1, run_id=run_id, acquired_at=to_text(now), **_alive(now, expires_at))
            )
        previous = None if holder is None else holder.run_id
        return Lease(sync_id, run_id, row.token + 1, expires_at, asked + ttl, ttl, previous)

    def heartbeat(self, lease: Lease) -> Lease:
        """Extend the lease by its `ttl`; the new one replaces it. Raises `LeaseLostError`."""
        asked = time.monotonic()
        with self._db.begin() as conn:
            self.fence(conn, lease)
            now = self._db.now(conn)
            expires_at = now + timedelta(seconds=lease.ttl)
            conn.execute(
                update(leases).where(_owned(lease)).values(heartbeat_at=to_text(now), expires_at=to_text(expires_at))
            )
        return replace(lease, expires_at=expires_at, deadline=asked + lease.ttl)

    def fence(self, conn: Connection, lease: Lease) -> None:
        """Lock the lease's row until the transaction ends. Raises `LeaseLostError` when it is not ours."""
        mine = {"of_sync": lease.sync_id, "of_token": lease.token, "of_run": lease.run_id}
        fenced = conn.execute(_FENCE, mine)
        if fenced.rowcount != 1:
            raise LeaseLostError(
                f"run {lease.run_id} no longer holds the lease of sync {lease.sync_id}",
                hint="Its heartbeat was late and another run took over, which also closes this run.",
            )

    def release(self, lease: Lease, conn: Connection | None = None) -> bool:
        """Free the sync; false when the lease was no longer ours. `conn`: in the caller's transaction."""
        with self._db.writing(conn) as writer:
            freed = writer.execute(update(leases).where(_owned(lease)).values(run_id=None, expires_at=None))
            return freed.rowcount == 1

    def holder(self, sync_id: str, conn: Connection | None = None) -> Holder | None:
        """Who holds the sync, alive or not; None when it is free."""
        query = select(leases).where(leases.c.sync_id == sync_id, leases.c.run_id.is_not(None))
        with self._db.reading(conn) as reader:
            row = reader.execute(query).one_or_none()
        return None if row is None else _holder(row)

    def expired(self) -> list[Holder]:
        """The holders that died: their runs are to be closed by whoever takes the lease next."""
        with self._db.read() as conn:
            now = self._db.now(conn)
            rows = conn.execute(select(leases).where(leases.c.run_id.is_not(None))).all()
        return [holder for holder in map(_holder, rows) if holder.dead(now)]

    def confirm_dead(self, conn: Connection, holder: Holder) -> bool:
        """Whether this holder still has the sync and is dead; nobody takes the lease until the transaction ends."""
        query = select(leases).where(leases.c.sync_id == holder.sync_id, leases.c.token == holder.token)
        row = conn.execute(query.where(leases.c.run_id.is_not(None)).with_for_update()).one_or_none()
        return row is not None and _holder(row).dead(self._db.now(conn))

    def lock(self, conn: Connection, sync_id: str) -> Any:
        """Let nobody take the sync, or do this, until the transaction ends; its row."""
        conn.execute(upsert(conn, leases).values(sync_id=sync_id, token=0).on_conflict_do_nothing())
        return conn.execute(select(leases).where(leases.c.sync_id == sync_id).with_for_update()).one()


def _owned(lease: Lease) -> ColumnElement[bool]:
    return and_(leases.c.sync_id == lease.sync_id, leases.c.token == lease.token, leases.c.run_id == lease.run_id)


def _alive(now: datetime, expires_at: datetime) -> dict[str, Any]:
    process = ProcessIdentity.current()
    return {
        "host": process.host,
        "boot_id": process.boot_id,
        "pid": process.pid,
        "pid_started": process.started,
        "heartbeat_at": to_text(now),
        "expires_at": to_text(expires_at),
    }


def _holder(row: Any) -> Holder:
    return Holder(
        sync_id=row.sync_id,
        run_id=row.run_id,
        token=row.token,
        since=from_text(row.acquired_at),
        heartbeat_at=from_text(row.heartbeat_at),
        expires_at=from_text(row.expires_at),
        process=ProcessIdentity(row.host, row.boot_id, row.pid, row.pid_started),
    )


def _held(holder: Holder, ttl: float) -> LeaseHeldError:
    since = holder.since.isoformat(timespec="seconds").replace("+00:00", "Z")
    return LeaseHeldError(
        f"sync {holder.sync_id} is being run by {holder.run_id} since {since} "
        f"(process {holder.process.pid} on {holder.process.host})",
        run_id=holder.run_id,
        since=holder.since,
        hint="Wait for it, or terminate its run in Dagster; "
        f"if its process died on another machine, the sync is free after {ttl:.0f} s without a heartbeat.",
    )
