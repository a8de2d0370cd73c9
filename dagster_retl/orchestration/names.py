"""The names that Dagster people see and type: job, asset keys, tags."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from dagster_retl.model.sync import Sync, slugify
from dagster_retl.service import Service

JOB_NAME = "retl_syncs"
"""The one job of all syncs without partitions."""

KEY_PREFIX = "retl"
"""First part of every sync's asset key."""

PROJECT_TAG = "retl/project"
SYNC_TAG = "retl/sync"
DESTINATION_TAG = "retl/destination"
MODE_TAG = "retl/mode"
TRIGGER_TAG = "retl/trigger"
"""Run tag: who asked for the run (cli, api, replay, …)."""

ServiceFactory = Callable[[], Service]
"""Opens the project's service; whoever asks closes it. Called in ops, sensors and ticks only, never while loading."""


def asset_key(sync: Sync) -> dg.AssetKey:
    """`retl/<slug>`."""
    return dg.AssetKey([KEY_PREFIX, sync.slug])


def sensor_name(name: str, slug: str | None) -> str:
    """The name of a project's sensor, or of the same sensor for one sync."""
    return name if slug is None else f"{name}_{slug}"


def pool(sync: Sync) -> str:
    """The pool of a sync's op: that of its destination. It holds as many at a time as somebody allows it."""
    return f"retl_{slugify(sync.destination_id)}"


def run_tags(sync: Sync) -> dict[str, str]:
    """Tags of the Dagster runs that are launched for a sync."""
    return {SYNC_TAG: sync.slug, DESTINATION_TAG: sync.destination_id, MODE_TAG: sync.sync_mode.value}
