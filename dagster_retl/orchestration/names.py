"""The names that Dagster people see and type: job, asset keys, tags."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from dagster_retl.model.dagster_names import (
    DESTINATION_TAG,
    JOB_NAME,
    KEY_PREFIX,
    MODE_TAG,
    PROJECT_TAG,
    RUN_TAG,
    SYNC_ID,
    SYNC_TAG,
    TRIGGER_TAG,
    asset_path,
    job_name,
    job_of_one,
    run_tags,
)
from dagster_retl.model.sync import Sync, slugify
from dagster_retl.service import Service

__all__ = [
    "DESTINATION_TAG",
    "JOB_NAME",
    "KEY_PREFIX",
    "MODE_TAG",
    "PROJECT_TAG",
    "RUN_TAG",
    "SYNC_ID",
    "SYNC_TAG",
    "TRIGGER_TAG",
    "ServiceFactory",
    "asset_key",
    "job_name",
    "job_of_one",
    "pool",
    "run_tags",
    "sensor_name",
]

ServiceFactory = Callable[[], Service]
"""Opens the project's service; whoever asks closes it. Called in ops, sensors and ticks only, never while loading."""


def asset_key(sync: Sync) -> dg.AssetKey:
    """`retl/<slug>`."""
    return dg.AssetKey(asset_path(sync))


def sensor_name(name: str, slug: str | None) -> str:
    """The name of a project's sensor, or of the same sensor for one sync."""
    return name if slug is None else f"{name}_{slug}"


def pool(sync: Sync) -> str:
    """The pool of a sync's op: that of its destination. It holds as many at a time as somebody allows it."""
    return f"retl_{slugify(sync.destination_id)}"
