"""What people do to dead letters: resolve them, or have them replayed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from dagster_retl.errors import ConfigurationError, NotFoundError
from dagster_retl.model.rows import Operation
from dagster_retl.store.audit import Audit
from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters.failures import KEYLESS
from dagster_retl.store.schema import acceptances, dead_letters, rearmed_keys
from dagster_retl.store.sql import chunks

SKIPPED = "skipped"
MANUAL_PUSH = "manual_push"

_RESOLUTION = re.compile(r"[a-z0-9_]{1,64}")
_NAMED = 10  # ids that an error message names
_C = dead_letters.c


class Decisions:
    """The part of `DeadLetters` that people use. Every decision is audited."""

    _db: Database
    _audit: Audit

    def resolve(self, ids: Sequence[str], resolution: str, actor: str, conn: Connection | None = None) -> list[str]:
        """Close entries; the ids of those that were open.

        `skipped` silences the version that failed until the row changes. `manual_push` takes that
        version as accepted, and so does any resolution of a held entry: it arrived. Every other
        resolution only closes the entry: the next run tries the row again, though a watermark may
        have passed it.

        All or nothing: raises `NotFoundError` with the ids that do not exist, `ConfigurationError`
        for a resolution that is not `[a-z0-9_]{1,64}` or a held entry that may still arrive.
        Entries that are resolved already stay as they are.
        """
        if not _RESOLUTION.fullmatch(resolution):
            raise ConfigurationError(
                f"{resolution[:80]!r} is not a resolution",
                hint="Use up to 64 lower-case letters, digits and underscores, such as fixed_source_data.",
            )
        with self._db.writing(conn) as writer:
            now = self._db.now(writer)
            entries = self._lock_open(writer, ids)
            _refuse_unsettled(entries, now)
            _accept(writer, [entry for entry in entries if _arrived(entry, resolution)], now)
            _rearm(writer, [entry for entry in entries if not _settled(entry, resolution)], now)
            self._close(writer, entries, resolution, now)
            for entry in entries:
                self._audit.add(writer, actor, "dead_letter.resolve", entry.id, resolution)
        return [entry.id for entry in entries]

    def mark_replaying(self, conn: Connection, ids: Sequence[str], run_id: str, actor: str | None = None) -> list[str]:
        """Have `run_id` send these entries' rows again; the ids of those that are open.

        They stay open until their row is accepted, and their count of refusals starts again. Of a
        held entry it says that the insert did not arrive: it is held no longer. Raises as
        `resolve` does.
        """
        entries = self._lock_open(conn, ids)
        _refuse_unsettled(entries, self._db.now(conn))
        opened = [entry.id for entry in entries]
        for chunk in chunks(opened):
            values = {"replay_run_id": run_id, "held": False, "held_until": None, "rejections": 0}
            conn.execute(update(dead_letters).where(_C.id.in_(chunk)).values(values))
        if actor is not None:
            for entry_id in opened:
                self._audit.add(conn, actor, "dead_letter.replay", entry_id, run_id)
        return opened

    def clear_replaying(self, conn: Connection, run_id: str) -> int:
        """The replay ended: what it did not deliver is an ordinary open entry again."""
        return conn.execute(update(dead_letters).where(_C.replay_run_id == run_id).values(replay_run_id=None)).rowcount

    def _lock_open(self, conn: Connection, ids: Sequence[str]) -> list[Any]:
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Any] = {}
        for chunk in chunks(sorted(wanted)):
            query = select(dead_letters).where(_C.id.in_(chunk)).order_by(_C.id).with_for_update()
            found.update((row.id, row) for row in conn.execute(query))
        missing = [entry_id for entry_id in wanted if entry_id not in found]
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise NotFoundError(
                f"there is no dead letter {', '.join(missing[:_NAMED])}{more}",
                hint="Nothing was changed. `retl dlq list` shows the open entries.",
            )
        return [found[entry_id] for entry_id in wanted if found[entry_id].resolved_at is None]

    def _close(self, conn: Connection, entries: Sequence[Any], resolution: str, now: datetime) -> None:
        closing = {
            "resolved_at": to_text(now),
            "resolution": resolution,
            "silenced": ~_C.held if resolution == SKIPPED else False,
            "replay_run_id": None,
            "held": False,
        }
        for chunk in chunks(entry.id for entry in entries):
            conn.execute(update(dead_letters).where(_C.id.in_(chunk)).values(closing))


def _refuse_unsettled(entries: Sequence[Any], now: datetime) -> None:
    waiting = [
        (from_text(entry.held_until), entry.id)
        for entry in entries
        if entry.held and entry.held_until is not None and from_text(entry.held_until) > now
    ]
    if waiting:
        until, entry_id = max(waiting)
        raise ConfigurationError(
            f"the insert of {entry_id} may still arrive until {until.isoformat(timespec='seconds')}: "
            "nobody can know yet whether it did",
            hint="Nothing was changed. After that time, look at the destination: resolve the entry if the record "
            "is there, replay it if it is not.",
        )


def _settled(entry: Any, resolution: str) -> bool:
    """Whether the decision says all about the version, so that nobody need look at the row before it changes."""
    return _arrived(entry, resolution) or (resolution == SKIPPED and entry.fingerprint is not None)


def _arrived(entry: Any, resolution: str) -> bool:
    """Whether the decision says that the destination holds the entry's version.

    Without a fingerprint there is no version (a mapping error, rows without a key), except for
    a removal.
    """
    known = entry.fingerprint is not None or entry.operation == Operation.DELETE.value
    return known and (entry.held or resolution == MANUAL_PUSH)


def _rearm(conn: Connection, entries: Sequence[Any], now: datetime) -> None:
    copied = ("sync_id", "epoch", "key", "record_keys")
    rows = [
        {name: getattr(entry, name) for name in copied} | {"rearmed_at": to_text(now)}
        for entry in entries
        if not entry.key.startswith(KEYLESS)
    ]
    if rows:
        conn.execute(insert(rearmed_keys), rows)


def _accept(conn: Connection, entries: Sequence[Any], now: datetime) -> None:
    if entries:
        copied = ("sync_id", "epoch", "key", "record_keys", "fingerprint", "partition")
        rows = [{name: getattr(entry, name) for name in copied} | {"accepted_at": to_text(now)} for entry in entries]
        conn.execute(insert(acceptances), rows)
