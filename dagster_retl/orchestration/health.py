"""The health sensor: it asks destinations that are down whether they answer again.

One that does gets its schedules and replays back at once; of one that does not, the reason is kept. Those
that are not known to be down are asked only where `check_every` says so: a check is a call that the vendor counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.model.runs import Run
from dagster_retl.orchestration.names import ServiceFactory, sensor_name
from dagster_retl.service import Service
from dagster_retl.service.health import Outage
from dagster_retl.store.health import Checked

INTERVAL = 30
"""Seconds between two looks at which destinations are to be asked."""

AGAIN = timedelta(seconds=60)
"""After this time a destination that is down is asked again."""

CHECKS = 5
"""Destinations that one tick asks; the others wait for the next."""

SECONDS = 20.0
"""After this time a tick asks no other destination: Dagster ends ticks after 60 s."""

TIMEOUT = 5.0
"""Seconds that a destination has for an answer."""


def health_sensor(project: Project, open_service: ServiceFactory, *, of: str | None = None) -> dg.SensorDefinition:
    """The sensor `retl_destination_health`, or one for the destination of one sync. It runs unless writes are off."""

    @dg.sensor(
        name=sensor_name("retl_destination_health", of),
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING if project.writes else dg.DefaultSensorStatus.STOPPED,
        description="Asks destinations that are down whether they answer again, and others where `check_every` is set.",
    )
    def retl_destination_health(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with open_service() as service:
            watched = {sync.destination_id for sync in project.syncs} if of else set(project.destinations)
            said = _tick(service, watched)
        return dg.SkipReason("; ".join(said) or "no destination is to be asked")

    return retl_destination_health


def _tick(service: Service, watched: set[str]) -> list[str]:
    began = time.monotonic()
    asked = 0
    said: list[str] = []
    for due in _due(service, watched):
        if asked == CHECKS or time.monotonic() - began > SECONDS:
            return [*said, "others wait for the next tick"]
        found = service.probe(due.destination_id, timeout=TIMEOUT, outage=due.outage)
        asked += found is not None
        said.append(_told(due, found))
    return said


@dataclass(frozen=True, slots=True)
class _Due:
    """A destination that is to be asked, since when, and what is known of it."""

    at: datetime
    destination_id: str
    outage: Outage | None


def _due(service: Service, watched: set[str]) -> list[_Due]:
    """Those whose turn it is, the one that waits longest first."""
    attempts = service.store.runs.last_attempts(sync.id for sync in service.definitions())
    outages = service.outages(attempts.values())
    checked = service.store.health.all(service.project.project)
    heard = _last_heard(service, attempts, checked)
    due = [
        _Due(at, destination_id, outages.get(destination_id))
        for destination_id in watched
        if (at := _due_at(service, destination_id, outages, checked, heard)) is not None
    ]
    now = service.store.now()
    return sorted((each for each in due if each.at <= now), key=lambda each: (each.at, each.destination_id))


def _due_at(
    service: Service,
    destination_id: str,
    outages: Mapping[str, Outage],
    checked: Mapping[str, Checked],
    heard: Mapping[str, datetime],
) -> datetime | None:
    """None: never."""
    outage = outages.get(destination_id)
    if outage is not None:
        last = checked.get(destination_id)
        return outage.seen_at if last is None or last.checked_at < outage.since else last.checked_at + AGAIN
    every = service.project.destination(destination_id).check_every
    if every is None:
        return None
    return heard[destination_id] + every if destination_id in heard else service.store.now()


def _last_heard(service: Service, attempts: Mapping[str, Run], checked: Mapping[str, Checked]) -> dict[str, datetime]:
    """When each destination answered last, a run or a check."""
    found = {destination_id: each.checked_at for destination_id, each in checked.items()}
    for sync in service.definitions():
        run = attempts.get(sync.id)
        if run is not None and run.finished_at is not None and run.counters.requests:
            found[sync.destination_id] = max(run.finished_at, found.get(sync.destination_id, run.finished_at))
    return found


def _told(due: _Due, found: Checked | None) -> str:
    if found is None:
        return f"{due.destination_id} cannot be asked: its connector has no address for a check"
    if found.down:
        return f"{due.destination_id} is down: {found.error_code} {found.message}"
    return f"{due.destination_id} answers" + (" again" if due.outage is not None else "")
