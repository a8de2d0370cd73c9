"""Checks that a sync asks for: its dead letters, its keys, its destination. Each can be run alone, without a sync.

Dagster reads the annotations of ops: in this file they are not strings.
"""

from collections.abc import Callable, Iterator, Mapping

import dagster as dg

from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.runs import RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.model.sync_settings import DeadLetterCheck
from dagster_retl.model.units import format_duration
from dagster_retl.orchestration.contract import drift
from dagster_retl.orchestration.names import ServiceFactory, asset_key, pool
from dagster_retl.orchestration.partitions import parts_to_look_at
from dagster_retl.service import Service

_DESCRIPTIONS = {
    "dead_letters": "Open dead letters: how many, and for how long.",
    "unique_keys": "Every row of the query has a key, and no other row has the same. Reads the query.",
    "destination_contract": "Mapped fields exist, can be written, have the type they had, and no required one is "
    "left out. Asks the destination.",
}

Judge = Callable[[Service, Sync], dg.AssetCheckResult]


def optional_checks(sync: Sync, open_service: ServiceFactory) -> list[dg.AssetChecksDefinition]:
    """The op that evaluates the checks that a sync asks for; none where it asks for none."""
    if not sync.checks.names:
        return []

    @dg.multi_asset_check(
        name=f"{sync.slug}_checks",
        specs=[
            dg.AssetCheckSpec(name, asset=asset_key(sync), description=_DESCRIPTIONS[name])
            for name in sync.checks.names
        ],
        can_subset=True,
        pool=pool(sync),
    )
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with open_service() as service:
            for key in sorted(context.selected_asset_check_keys):
                yield judged(key.name, service, sync)

    return [checks]


def judged(name: str, service: Service, sync: Sync) -> dg.AssetCheckResult:
    """One check's result. What cannot be judged, because somebody does not answer, is a warning that says why."""
    try:
        return _JUDGES[name](service, sync)
    except RetlError as error:
        return _result(sync, name, False, f"{error.code}: {error.message}", {"retl/error_code": error.code.value})


def _dead_letters(service: Service, sync: Sync) -> dg.AssetCheckResult:
    limits = sync.checks.dead_letters or DeadLetterCheck()
    groups = service.store.dead_letters.open_groups(sync.id)
    count = sum(group.entries for group in groups)
    age = max((service.store.now() - group.oldest for group in groups), default=None)
    too_old = age is not None and age > limits.age
    codes = ", ".join(f"{group.entries} {group.error_code}" for group in groups)
    oldest = f"; the oldest for {format_duration(age)}" if age is not None else ""
    description = f"{count} open ({codes}){oldest}" if count else "none is open"
    metadata = {"open": count, "age_s": age.total_seconds() if age else 0.0, "limit": limits.open}
    return _result(sync, "dead_letters", count <= limits.open and not too_old, description, metadata)


def _unique_keys(service: Service, sync: Sync) -> dg.AssetCheckResult:
    parts = parts_to_look_at(sync, service.store.now())
    totals = [service.plan(sync.id, RunOptions(partition=part)).totals for part in parts]
    read = sum(each.read for each in totals)
    twice = sum(each.failed.get(ErrorCode.DUPLICATE_SOURCE_KEY, 0) for each in totals)
    without = sum(each.failed.get(ErrorCode.MISSING_KEY, 0) for each in totals)
    description = f"of {read} rows, {twice} have a key that is not theirs alone and {without} have none"
    metadata = {"rows_read": read, "duplicate": twice, "missing": without}
    return _result(sync, "unique_keys", not twice and not without, description, metadata, is_error=True)


def _destination_contract(service: Service, sync: Sync) -> dg.AssetCheckResult:
    found = drift(service, sync)
    said = [*([found.misfit] if found.misfit else []), *found.changes]
    nothing = f"{found.fields} fields, as before" if found.fields else "the destination does not tell its fields"
    description = "; ".join(said) or nothing
    metadata = {"fields": found.fields, "changed": len(found.changes)}
    is_error = found.misfit is not None
    return _result(sync, "destination_contract", not said, description, metadata, is_error=is_error)


_JUDGES: Mapping[str, Judge] = {
    "dead_letters": _dead_letters,
    "unique_keys": _unique_keys,
    "destination_contract": _destination_contract,
}


def _result(
    sync: Sync,
    name: str,
    passed: bool,
    description: str,
    metadata: Mapping[str, int | float | str],
    *,
    is_error: bool = False,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=asset_key(sync),
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=dict(metadata),
    )
