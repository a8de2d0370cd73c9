"""`schedule: on_upstream`: a sync runs when an asset that it reads was materialized."""

from __future__ import annotations

from typing import Any

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.names import PROJECT_TAG, TRIGGER_TAG, asset_key, sensor_name

INTERVAL = 30
"""Seconds between two looks at what was materialized."""


def condition(sync: Sync) -> dg.AutomationCondition[Any] | None:
    """When Dagster runs the sync by itself; None: it does not.

    Some upstream was materialized since the sync was last asked for, and neither it nor an upstream
    is being run. An upstream that nobody ever reported on keeps no sync waiting. What is materialized
    while the sync runs, which may have read before, asks for another run. Of windows of time only the last one runs.
    """
    if sync.schedule.type != "on_upstream":
        return None
    asked_for = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.initial_evaluation()
    updated = dg.AutomationCondition.any_deps_updated().since(asked_for)
    idle = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
    if sync.partitions is not None and sync.partitions.windowed:
        idle &= dg.AutomationCondition.in_latest_time_window()
    return (updated & idle).with_label("an upstream was materialized")


def automation_sensors(project: Project, *, of: str | None = None) -> list[dg.AutomationConditionSensorDefinition]:
    """The sensor `retl_automation`, if a sync needs it; it looks at syncs only. Stopped where writes are off."""
    keys = [asset_key(sync) for sync in project.syncs if sync.schedule.type == "on_upstream"]
    if not keys:
        return []
    return [
        dg.AutomationConditionSensorDefinition(
            sensor_name("retl_automation", of),
            target=dg.AssetSelection.assets(*keys),
            default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
            minimum_interval_seconds=INTERVAL,
            run_tags={PROJECT_TAG: project.project, TRIGGER_TAG: "automation"},
            description="Runs syncs whose upstream assets were materialized.",
        )
    ]
