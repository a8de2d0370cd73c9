"""What runs do to dead letters: open them, bump them, and close them when the truth says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, or_, text, update

from dagster_retl.errors import ErrorCode
from dagster_retl.model.ids import DEAD_LETTER_PREFIX, new_id
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema import dead_letters
from dagster_retl.store.sql import chunks, upsert

CONFIG_CHANGED = "config_changed"
FIXED_AT_SOURCE = "fixed_at_source"

KEYLESS = "code:"
"""How the keys of entries begin that stand for all rows without a key."""

_MESSAGE_LENGTH = 2_000
_WAVE = 1_000  # failures in one statement
_C = dead_letters.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a key was not accepted.

    record_keys: JSON of the key fields. rows: rows of the query that it stands for.
    fingerprint: the version that failed; None where there is none (a mapping error, a removal).
    rejection: the destination refused this version, which counts towards parking; a timeout or
    an outage does not. held: an insert whose outcome is unknown; nobody may decide about it
    before `held_until`, a time as the store writes it (`clock.to_text`). payload: what was sent, encrypted.
    partition: whose row it is (`Partition.identity`).
    """

    key: str
    record_keys: str
    code: ErrorCode
    message: str
    operation: str
    rejection: bool
    vendor_code: str | None = None
    fingerprint: str | None = None
    rows: int = 1
    held: bool = False
    held_until: str | None = None
    payload: bytes | None = None
    partition: str | None = None


class Failures:
    """The part of `DeadLetters` that runs use, in their fenced transactions."""

    _db: Database

    def fail(self, conn: Connection, sync_id: str, epoch: str, run_id: str, failures: Sequence[Failure]) -> int:
        """Open an entry for each key, or bump the open one. Returns how many were opened.

        A held entry stays what it is, whatever fails later: only its attempts are counted.
        """
        now = to_text(self._db.now(conn))
        common = {"sync_id": sync_id, "epoch": epoch, "run_id": run_id, "first_seen_at": now, "last_seen_at": now}
        statement = _open_or_bump(conn)
        opened = 0
        for wave in _waves(failures):
            attempts = conn.scalars(statement, [common | _values(failure) for failure in wave])
            opened += sum(count == 1 for count in attempts)
        return opened

    def keyless(
        self,
        conn: Connection,
        sync_id: str,
        epoch: str,
        run_id: str,
        code: ErrorCode,
        *,
        rows: int,
        message: str,
        operation: str = "none",
        partition: str | None = None,
    ) -> int:
        """The entry of rows that have no key: one per code (and partition), its row count replaced by each run.

        At zero rows it is resolved. Returns how many entries were opened (0 or 1).
        """
        key = keyless_key(code, partition)
        if rows == 0:
            self.resolve_keys(conn, sync_id, epoch, [key], FIXED_AT_SOURCE)
            return 0
        failure = Failure(
            key=key, record_keys="{}", code=code, message=message, operation=operation, rejection=False, rows=rows,
            partition=partition,
        )  # fmt: skip
        return self.fail(conn, sync_id, epoch, run_id, [failure])

    def resolve_keys(
        self,
        conn: Connection,
        sync_id: str,
        epoch: str,
        keys: Iterable[str],
        resolution: str,
        run_id: str | None = None,
    ) -> int:
        """Close the open entries of these keys; `run_id`: the run that found them closed.

        A version of these keys that somebody silenced is silenced no longer: the row changed.
        Held entries stay: only a person knows what became of them. Returns how many were closed.
        """
        closing: dict[str, Any] = {
            "resolved_at": to_text(self._db.now(conn)),
            "resolution": resolution,
            "replay_run_id": None,
        }
        if run_id is not None:
            closing["run_id"] = run_id
        mine = and_(_C.sync_id == sync_id, _C.epoch == epoch)
        closed = 0
        for chunk in chunks(keys):
            these = and_(mine, _C.key.in_(chunk))
            conn.execute(update(dead_letters).where(these, _C.silenced).values(silenced=False))
            result = conn.execute(update(dead_letters).where(these, _C.resolved_at.is_(None), ~_C.held).values(closing))
            closed += result.rowcount
        return closed

    def resolve_other_epochs(self, conn: Connection, sync_id: str, epoch: str) -> int:
        """Close what belongs to an object, account or key that this sync no longer writes to."""
        closing = {"resolved_at": to_text(self._db.now(conn)), "resolution": CONFIG_CHANGED, "replay_run_id": None}
        others = and_(_C.sync_id == sync_id, _C.epoch != epoch, _C.resolved_at.is_(None))
        return conn.execute(update(dead_letters).where(others).values(closing)).rowcount


def keyless_key(code: ErrorCode, partition: str | None = None) -> str:
    """The key of the entry that stands for all rows without one."""
    return f"{KEYLESS}{code.value}" + (f":{partition}" if partition else "")


def _waves(failures: Sequence[Failure]) -> Iterator[list[Failure]]:
    """Failures in order and in statements that hold a key once: an upsert meets a row only once."""
    wave: dict[str, Failure] = {}
    for failure in failures:
        if failure.key in wave or len(wave) == _WAVE:
            yield list(wave.values())
            wave = {}
        wave[failure.key] = failure
    if wave:
        yield list(wave.values())


def _values(failure: Failure) -> dict[str, Any]:
    return {
        "id": new_id(DEAD_LETTER_PREFIX),
        "key": failure.key,
        "record_keys": failure.record_keys,
        "error_code": failure.code.value,
        "vendor_code": None if failure.vendor_code is None else _storable(failure.vendor_code),
        "message": _storable(failure.message),
        "operation": str(failure.operation),
        "fingerprint": failure.fingerprint,
        "attempts": 1,
        "rejections": int(failure.rejection),
        "rows": failure.rows,
        "held": failure.held,
        "held_until": failure.held_until,
        "payload": failure.payload,
        "silenced": False,
        "partition": failure.partition,
    }


def _storable(message: str) -> str:
    """Vendors send anything: Postgres takes no NUL, UTF-8 no half of a surrogate pair."""
    clean = message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if len(clean) <= _MESSAGE_LENGTH:
        return clean
    return f"{clean[:_MESSAGE_LENGTH]} … ({len(clean) - _MESSAGE_LENGTH} characters more)"


def _open_or_bump(conn: Connection) -> Any:
    """INSERT … ON CONFLICT on the open entry of the key, returning the attempts of each row."""
    statement = upsert(conn, dead_letters)
    new = statement.excluded
    same_version = _C.fingerprint.is_not_distinct_from(new.fingerprint)
    changes: dict[str, Any] = {
        name: case((_C.held, _C[name]), else_=new[name])
        for name in (
            "record_keys",
            "error_code",
            "vendor_code",
            "message",
            "operation",
            "fingerprint",
            "payload",
            "partition",
        )
    } | {
        "attempts": _C.attempts + 1,
        "rejections": case(
            (_C.held, _C.rejections), (same_version, _C.rejections + new.rejections), else_=new.rejections
        ),
        "rows": new.rows,
        "run_id": new.run_id,
        "last_seen_at": new.last_seen_at,
        "held": or_(_C.held, new.held),
        "held_until": _later(_C.held_until, new.held_until),
    }
    return statement.on_conflict_do_update(
        index_elements=["sync_id", "epoch", "key"], index_where=text("resolved_at IS NULL"), set_=changes
    ).returning(_C.attempts)


def _later(old: ColumnElement[Any], new: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((new.is_(None), old), (old > new, old), else_=new)
