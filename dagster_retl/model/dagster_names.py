"""The names that Dagster people see and type, for whoever talks to Dagster without importing it."""

from __future__ import annotations

from dagster_retl.model.sync import Sync

JOB_NAME = "retl_syncs"
"""The one job of all syncs without partitions."""

KEY_PREFIX = "retl"
"""First part of every sync's asset key."""

SYNC_TAG = "retl/sync"
DESTINATION_TAG = "retl/destination"
MODE_TAG = "retl/mode"
PROJECT_TAG = "retl/project"
"""Tag of the job: the project whose syncs it runs."""

TRIGGER_TAG = "retl/trigger"
"""Run tag: who asked for the run (cli, api, replay, …)."""

RUN_TAG = "retl/run"
"""Run tag: the queued run (retl_run_…) that the Dagster run was launched for."""


def asset_path(sync: Sync) -> list[str]:
    """The parts of the sync's asset key, `retl/<slug>`."""
    return [KEY_PREFIX, sync.slug]


def run_tags(sync: Sync) -> dict[str, str]:
    """Tags of the Dagster runs that are launched for a sync."""
    return {SYNC_TAG: sync.slug, DESTINATION_TAG: sync.destination_id, MODE_TAG: sync.sync_mode.value}
