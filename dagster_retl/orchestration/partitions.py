"""Partitions of a sync as Dagster's, and the partitions that a run of Dagster is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, reduce

import dagster as dg

from dagster_retl.model.partitions import Partition, Partitions
from dagster_retl.model.runs import Run
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.names import asset_key
from dagster_retl.service import Service

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
"""Tags of a run that is for several partitions."""

_WINDOWS = {
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


@lru_cache(maxsize=1_000)
def partitions_def(partitions: Partitions | None) -> dg.PartitionsDefinition[str] | None:
    """Dagster's definition, the same object for all syncs that are parted alike."""
    if partitions is None:
        return None
    if partitions.type == "static":
        return dg.StaticPartitionsDefinition(list(partitions.keys))
    start, end = (None if day is None else day.isoformat() for day in (partitions.start, partitions.end))
    if partitions.type == "hourly":
        return dg.HourlyPartitionsDefinition(f"{start}-00:00", end_date=None if end is None else f"{end}-00:00")
    made: dg.PartitionsDefinition[str] = _WINDOWS[partitions.type](
        str(start), end_date=end, timezone=partitions.timezone
    )
    return made


def backfill_policy(partitions: Partitions | None) -> dg.BackfillPolicy | None:
    """One run for all partitions of a backfill, or one for each."""
    if partitions is None:
        return None
    return dg.BackfillPolicy.single_run() if partitions.backfill == "single_run" else dg.BackfillPolicy.multi_run()


def partitions_of(context: dg.AssetExecutionContext, service: Service, sync: Sync) -> Sequence[Partition | None]:
    """What a step runs one after the other: the partitions of its Dagster run, or the whole sync (None).

    Raises `ConfigurationError` where the sync has partitions and the run names none.
    """
    named = context.has_partition_key or context.has_partition_key_range
    keys = sorted(context.partition_keys) if named else [None]
    return [service.partition(sync.id, key) for key in keys]


def requests(
    sync: Sync, partitions: Partitions, now: datetime, tags: Mapping[str, str]
) -> list[dg.RunRequest] | dg.SkipReason:
    """What a tick of a schedule asks for: the last window that is over, or all fixed keys."""
    selection = [asset_key(sync)]
    if partitions.windowed:
        window = partitions.latest(now)
        if window is None:
            return dg.SkipReason(f"no {partitions.type} window of sync {sync.name!r} is over yet")
        return [dg.RunRequest(asset_selection=selection, tags=tags, partition_key=window.key)]
    if partitions.backfill == "single_run":
        edges = {RANGE_START: partitions.keys[0], RANGE_END: partitions.keys[-1]}
        return [dg.RunRequest(asset_selection=selection, tags={**tags, **edges})]
    return [
        dg.RunRequest(run_key=f"{now.isoformat()} {key}", asset_selection=selection, tags=tags, partition_key=key)
        for key in partitions.keys
    ]


def parts_to_look_at(sync: Sync, now: datetime) -> Sequence[Partition | None]:
    """The partitions that a check reads: the last window that is over, all fixed keys, or the whole sync (None)."""
    partitions = sync.partitions
    if partitions is None:
        return [None]
    if not partitions.windowed:
        return [Partition(key) for key in partitions.keys]
    window = partitions.latest(now)
    return [] if window is None else [window]


def step_name(sync: Sync, partition: Partition | None, among: int) -> str:
    """What the store calls the part of a Dagster run that is one retl run."""
    return sync.slug if partition is None or among == 1 else f"{sync.slug} {partition.key}"


def together(runs: Sequence[Run]) -> Run:
    """The runs of several partitions as one: the last of them, with the counters of all."""
    return reduce(lambda sofar, run: replace(run, counters=sofar.counters + run.counters), runs)
