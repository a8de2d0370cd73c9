"""What the next run of a sync will do, as far as that is known without reading anything."""

from __future__ import annotations

from dataclasses import dataclass

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.epoch import KEY_FORMS, epoch_of
from dagster_retl.model.rows import Account
from dagster_retl.model.sync import Sync, SyncMode
from dagster_retl.store.snapshots import Pointer


@dataclass(frozen=True, slots=True)
class NextRun:
    """sends: `all` rows, or `changed` ones. removes: whether it deletes what left the query. reason: why, in words."""

    sends: str
    removes: bool
    reason: str


def next_run(sync: Sync, connector: AnyConnector, pointer: Pointer | None) -> NextRun:
    """pointer: of the sync's snapshot; None: nothing was delivered yet."""
    if sync.change_detection == "none":
        return NextRun("all", removes=False, reason="the sync compares nothing: every run sends every row")
    if pointer is None:
        return NextRun("all", removes=False, reason="nothing was delivered yet")
    if not _same_epoch(sync, connector, pointer):
        reason = "it writes to another object or by another key than before: it starts from an empty snapshot"
        return NextRun("all", removes=False, reason=reason)
    if pointer.stale:
        return NextRun("all", removes=_removes(sync), reason="a full refresh is to be finished")
    if pointer.identity != connector.identity():
        reason = f"if it reaches another account than {pointer.account_name}, it stops before it writes"
        return NextRun("changed", removes=_removes(sync), reason=reason)
    return NextRun("changed", removes=_removes(sync), reason=f"{pointer.rows:,} rows were delivered before")


def _same_epoch(sync: Sync, connector: AnyConnector, pointer: Pointer) -> bool:
    account = Account(pointer.account_id, pointer.account_name)
    return any(epoch_of(sync, connector, account, form) == pointer.epoch for form in KEY_FORMS)


def _removes(sync: Sync) -> bool:
    return sync.sync_mode is SyncMode.MIRROR
