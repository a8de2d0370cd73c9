"""What tests of alerts share: an inbox that Apprise delivers to, and ticks of the sensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import dagster as dg
from worlds import World

from dagster_retl.model.project import AlertRule, Project
from dagster_retl.orchestration.alerts import alert_sensor
from dagster_retl.service import Service
from dagster_retl.testing.server import LoopbackServer, Received, Reply


class Inbox(LoopbackServer):
    """A service that takes notifications, unless it is `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Mapping[str, Any]] = []
        self.broken = False

    def handle(self, request: Received) -> Reply:
        if self.broken:
            return Reply.json({"error": "no"}, 500)
        self.messages.append(request.json())
        return Reply.json({})

    @property
    def address(self) -> str:
        """As Apprise has it."""
        return self.url.replace("http://", "json://")

    def titles(self) -> list[str]:
        """Of the messages that came since somebody asked."""
        found = [str(message["title"]) for message in self.messages]
        self.messages.clear()
        return found


def with_alerts(made: World, *rules: AlertRule) -> World:
    """The same world, with these alert rules."""
    project = made.project.model_copy(update={"alerts": rules})
    return dataclasses.replace(made, project=project, service=Service(project))


def tick(project: Project, cursor: str | None = None) -> dg.SensorResult:
    """One tick of a fresh sensor."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        result = alert_sensor(project, lambda: Service.open(project))(context)
        assert isinstance(result, dg.SensorResult)
        return result
