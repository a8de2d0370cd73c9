"""The alert sensor: it tells people what the store knows."""

from __future__ import annotations

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.orchestration.names import ServiceFactory

INTERVAL = 30
"""Seconds between two looks at the store."""


def alert_sensor(project: Project, open_service: ServiceFactory) -> dg.SensorDefinition:
    """The sensor `retl_alerts`. It runs unless the project's writes are off."""

    @dg.sensor(
        name="retl_alerts",
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
        description="Tells about failed runs, tripped guards and dead letters, once each, and when they are over.",
    )
    def retl_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with open_service() as service:
            return dg.SkipReason(f"{len(service.store.dead_letters.open_groups())} kinds of dead letters are open")

    return retl_alerts
