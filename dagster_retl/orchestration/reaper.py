"""The reaper: a sensor that closes the runs of dead processes, and tells Dagster about them."""

from __future__ import annotations

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.orchestration.names import ServiceFactory

INTERVAL = 30
"""Seconds between two looks."""


def reaper_sensor(project: Project, open_service: ServiceFactory) -> dg.SensorDefinition:
    """The sensor `retl_reaper`. It runs unless the project's writes are off."""

    @dg.sensor(
        name="retl_reaper",
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
        description="Closes runs whose process died, as their leases tell, and ends their Dagster runs.",
    )
    def retl_reaper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with open_service() as service:
            return dg.SkipReason(f"{len(service.store.leases.expired())} dead processes")

    return retl_reaper
