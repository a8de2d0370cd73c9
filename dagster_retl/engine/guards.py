"""What stops a run before its first write. Each guard says what it saw and how to override it once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from dagster_retl.changes.diff import PlanTotals
from dagster_retl.errors import GuardTrippedError
from dagster_retl.model.rows import Account, FieldInfo, FieldType
from dagster_retl.model.runs import Guard, RunOptions
from dagster_retl.model.sync import Sync, SyncMode

FEW_DELETES = 10
"""As many removals never trip the share of the `deletes` guard."""


def override_note(guard: GuardTrippedError) -> str:
    """What the result of a run says about a guard that somebody overrode."""
    return f"guard `{guard.guard}` was overridden: {guard.message}"


def account_guard(known_id: str, known_name: str, account: Account) -> GuardTrippedError:
    """The destination reaches another account than the one that the snapshot was delivered to."""
    return GuardTrippedError(
        f"the destination now reaches account {account.name!r} ({account.id}), "
        f"but the snapshot was delivered to {known_name!r} ({known_id})",
        guard=Guard.ACCOUNT,
        hint="Run with `--reset` to send everything to the new account, "
        "or with `--keep-snapshot` if it is the same data under another id.",
    )


def contract_guard(sync: Sync, fields: Sequence[FieldType], known: Sequence[FieldInfo]) -> GuardTrippedError | None:
    """The destination's fields do not fit the mapping: a field is gone, read-only, or missing.

    Names are compared without case: a vendor that minds it refuses the row, and says so better.
    """
    if not known:
        return None
    by_name = {info.name.lower(): info for info in known}
    problems = list(_contract_problems(sync, [field.name for field in fields], by_name))
    if not problems:
        return None
    return GuardTrippedError(
        f"object {sync.object_name!r} does not fit the mapping: {'; '.join(problems)}",
        guard=Guard.CONTRACT,
        hint="Correct `field_mappings`, or run once with `--override contract`.",
    )


def _contract_problems(sync: Sync, names: Sequence[str], known: dict[str, FieldInfo]) -> Iterator[str]:
    for name in names:
        info = known.get(name.lower()) or known.get(name.lower().split(".")[0])
        if info is None:
            close = difflib.get_close_matches(name.lower(), known, n=1)
            yield f"there is no field {name!r}" + (f" (did you mean {known[close[0]].name!r}?)" if close else "")
        elif name not in sync.key_fields and not _writable(sync, info):
            yield f"field {name!r} cannot be written"
    if sync.sync_mode in (SyncMode.UPSERT, SyncMode.INSERT, SyncMode.MIRROR):
        mapped = {part for name in names for part in (name.lower(), name.lower().split(".")[0])}
        missing = sorted(info.name for key, info in known.items() if info.required and key not in mapped)
        if missing:
            yield f"required fields are not mapped: {', '.join(missing)}"


def _writable(sync: Sync, info: FieldInfo) -> bool:
    if sync.sync_mode is SyncMode.DELETE:
        return True
    return info.createable if sync.sync_mode is SyncMode.INSERT else info.updateable or info.createable


def plan_guards(
    sync: Sync, totals: PlanTotals, options: RunOptions, *, snapshot_rows: int, last_source_rows: int | None
) -> Iterator[GuardTrippedError]:
    """Guards over what the plan would do; a partial run computes no removals and trips none of them."""
    if options.partial or sync.sync_mode is not SyncMode.MIRROR:
        return
    yield from _deletes(sync, totals, snapshot_rows)
    yield from _shrink(sync, totals, last_source_rows)


def _deletes(sync: Sync, totals: PlanTotals, snapshot_rows: int) -> Iterator[GuardTrippedError]:
    removed = totals.removals_sent
    allowed = sync.guards.deletes
    everything = snapshot_rows > 0 and removed >= snapshot_rows
    if everything or (removed > FEW_DELETES and removed > allowed * snapshot_rows):
        yield GuardTrippedError(
            f"{removed:,} of {snapshot_rows:,} records would be deleted; at most {allowed:.0%} are allowed"
            + (", and never all of them" if everything else ""),
            guard=Guard.DELETES,
            hint="Is the query right? If it is, run once with `--override deletes`.",
        )


def _shrink(sync: Sync, totals: PlanTotals, last: int | None) -> Iterator[GuardTrippedError]:
    if not last or (totals.read >= (1 - sync.guards.shrink) * last and totals.read > 0):
        return
    yield GuardTrippedError(
        f"the query gave {totals.read:,} rows, {last:,} the last time: a shrink of more than {sync.guards.shrink:.0%}",
        guard=Guard.SHRINK,
        hint="Is the source complete? If it is, run once with `--override shrink`.",
    )
