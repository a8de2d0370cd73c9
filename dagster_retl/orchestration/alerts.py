"""The alert sensor: it tells people what the store knows, once.

What was said is kept in the store. The cursor only remembers which addresses could not be reached
at the last tick, so that they are tried last: losing it changes nothing else.
"""

from __future__ import annotations

import json
import os

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.orchestration.alerting.tick import TickReport, tick
from dagster_retl.orchestration.names import ServiceFactory, sensor_name

INTERVAL = 30
"""Seconds between two looks at the store."""

DAGSTER_URL = "RETL_DAGSTER_URL"
"""The environment variable with the address of Dagster's pages, for links in messages."""


def alert_sensor(project: Project, open_service: ServiceFactory, *, of: str | None = None) -> dg.SensorDefinition:
    """The sensor `retl_alerts`, or `retl_alerts_<slug>` of one sync. It runs unless the project's writes are off."""

    @dg.sensor(
        name=sensor_name("retl_alerts", of),
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
        description="Tells about failed runs, dead letters, stale syncs and more, once each, and when they are over.",
    )
    def retl_alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if not project.alerts:
            return dg.SensorResult(skip_reason="the project has no alerts")
        with open_service() as service:
            unreachable = json.loads(context.cursor or "[]")
            report = tick(service, dagster_url=os.environ.get(DAGSTER_URL), unreachable=unreachable, of=of)
        for label, reason in report.failures.values():
            context.log.error("%s could not be told: %s", label, reason)
        return dg.SensorResult(skip_reason=_summary(report), cursor=json.dumps(sorted(report.failures)))

    return retl_alerts


def _summary(report: TickReport) -> str:
    parts = [f"told: {'; '.join(report.sent)}"] if report.sent else []
    parts += [f"{label} could not be told: {reason}" for label, reason in report.failures.values()]
    parts += [f"messages that wait: {report.waiting}"] if report.waiting else []
    return ". ".join(parts) or "nothing new"
