"""The names that Dagster people see and type, for whoever talks to Dagster without importing it."""

from __future__ import annotations

import hashlib

from dagster_retl.model.sync import Sync

JOB_NAME = "retl_syncs"
"""The one job of all syncs without partitions."""


def job_name(sync: Sync) -> str:
    """The job of a project that runs a sync: syncs that are parted differently cannot share one."""
    if sync.partitions is None:
        return JOB_NAME
    parts = sync.partitions.model_dump_json(exclude={"backfill"}).encode()
    return f"{JOB_NAME}_{sync.partitions.type}_{hashlib.sha256(parts).hexdigest()[:6]}"


KEY_PREFIX = "retl"
"""First part of every sync's asset key."""

SYNC_TAG = "retl/sync"
DESTINATION_TAG = "retl/destination"
MODE_TAG = "retl/mode"
PROJECT_TAG = "retl/project"
"""Tag of the job: the project whose syncs it runs."""

PARTITION_TAG = "dagster/partition"
"""Run tag of Dagster: the partition that a run is for."""

SYNC_ID = "retl/sync_id"
"""Metadata of the asset: the id of its sync."""

TRIGGER_TAG = "retl/trigger"
"""Run tag: who asked for the run (cli, api, replay, …)."""

RUN_TAG = "retl/run"
"""Run tag: the queued run (retl_run_…) that the Dagster run was launched for."""


def asset_path(sync: Sync) -> list[str]:
    """The parts of the sync's asset key, `retl/<slug>`."""
    return [KEY_PREFIX, sync.slug]


def job_of_one(sync: Sync) -> str:
    """The job of a sync that is a component of its own."""
    return f"retl_{sync.slug}"


def run_tags(sync: Sync) -> dict[str, str]:
    """Tags of the Dagster runs that are launched for a sync."""
    return {SYNC_TAG: sync.slug, DESTINATION_TAG: sync.destination_id, MODE_TAG: sync.sync_mode.value}
