"""What a sync remembers: which snapshot a run works against, and what the store knows besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dagster_retl.changes.fingerprint import FINGERPRINT_VERSION
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.epoch import epoch_of
from dagster_retl.engine.guards import account_guard, override_note
from dagster_retl.engine.planning import Memory
from dagster_retl.errors import ConfigurationError, StateMissingError
from dagster_retl.model.rows import Account
from dagster_retl.model.runs import AccountChange, Guard, RunOptions
from dagster_retl.model.sync import Sync, SyncMode
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State
from dagster_retl.store.store import Store


def recall_latest(
    store: Store, state: State, sync_id: str, choose: Callable[[Pointer | None], Chosen]
) -> tuple[Chosen, Memory]:
    """What a reader without the sync's lease works against.

    A generation that is gone was collected if the pointer has moved on meanwhile: then the reader
    takes the new one (PROTOCOL 9). Raises `StateMissingError` when it has not.
    """
    known = store.snapshots.pointer(sync_id)
    try:
        return _recalled(store, state, choose(known))
    except StateMissingError:
        latest = store.snapshots.pointer(sync_id)
        if known is None or latest is None or latest.generation == known.generation:
            raise
        return _recalled(store, state, choose(latest))


def _recalled(store: Store, state: State, chosen: Chosen) -> tuple[Chosen, Memory]:
    return chosen, recall(store, state, chosen.pointer, epoch=chosen.moved_from)


def recall(store: Store, state: State, pointer: Pointer, *, epoch: str | None = None) -> Memory:
    """What the store knows of a sync; `epoch`: under another one than the pointer's.

    Raises `StateMissingError` when its generation cannot be read.
    """
    generation = state.local_path(pointer.generation, pointer.checksum or "") if pointer.generation else None
    sync_id, epoch = pointer.sync_id, epoch or pointer.epoch
    return Memory(
        pointer=pointer,
        generation=generation,
        suspects=store.suspects.table(sync_id, epoch),
        letters=store.dead_letters.open_for_plan(sync_id, epoch),
        silenced=store.dead_letters.silenced(sync_id, epoch),
        accepted=store.acceptances.table(sync_id, epoch),
        rearmed=store.rearmed.table(sync_id, epoch),
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The snapshot that a run works against, and why, in words.

    moved_from: the epoch that it was of so far, where all that belongs to it comes along. notes: what the
    run's result says of it.
    """

    pointer: Pointer
    reason: str
    moved_from: str | None = None
    notes: tuple[str, ...] = ()


def choose_pointer(
    sync: Sync, connector: AnyConnector, account: Account, known: Pointer | None, options: RunOptions
) -> Chosen:
    """The snapshot this run works against.

    Raises `GuardTrippedError` when the destination reaches another account, and
    `ConfigurationError` where an `insert` sync would insert everything again.
    """
    epoch = epoch_of(sync, connector, account)
    blank = Pointer(sync.id, epoch, account.id, account.name, connector.identity(), None, 0, None, FINGERPRINT_VERSION)
    if known is None:
        return Chosen(blank, "first run: the snapshot is empty")
    if options.account_change is AccountChange.RESET:
        return Chosen(blank, "reset: the snapshot starts empty")
    if known.epoch == epoch:
        stale = known.stale or (options.full_refresh and options.partition is None)
        reason = "full refresh: everything is sent" if stale or options.full_refresh else "changes since the last run"
        return Chosen(replace(known, stale=stale, watermark=None if stale else known.watermark), reason)
    if known.account_id != account.id:
        return _other_account(sync, connector, account, known, blank, options)
    if sync.sync_mode is SyncMode.INSERT and known.generation and not (options.full_refresh or options.baseline):
        raise ConfigurationError(
            f"sync {sync.name!r} inserts, and its object or what tells its rows apart (the key, or without one "
            "the whole mapping) changed: it would insert every row again",
            hint=f"If the rows are there already, `retl baseline {sync.slug}` takes them as delivered; "
            "if every row is to be inserted, run it once with `--full-refresh`.",
        )
    return Chosen(blank, "the object, the key or the kind of writing changed: the snapshot starts empty")


def _other_account(
    sync: Sync, connector: AnyConnector, account: Account, known: Pointer, blank: Pointer, options: RunOptions
) -> Chosen:
    other = account_guard(known.account_id, known.account_name, account)
    if Guard.ACCOUNT in options.overrides:
        return Chosen(blank, "another account: the snapshot starts empty", notes=(override_note(other),))
    same_otherwise = epoch_of(sync, connector, Account(known.account_id, known.account_name)) == known.epoch
    if options.account_change is AccountChange.KEEP_SNAPSHOT and same_otherwise:
        stale = options.full_refresh or known.stale
        moved = replace(
            known,
            epoch=blank.epoch,
            account_id=account.id,
            account_name=account.name,
            identity=blank.identity,
            stale=stale,
            watermark=None if stale else known.watermark,
        )
        notes = (f"the snapshot was kept for another account id: {known.account_id} is now {account.id}",)
        return Chosen(moved, "another account id, the same data", moved_from=known.epoch, notes=notes)
    raise other
