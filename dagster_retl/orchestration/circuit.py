"""A destination that is down is left alone by schedules and replays: its circuit is open."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from dagster_retl.model.sync import Sync
from dagster_retl.service import Service
from dagster_retl.service.health import Outage

OPEN_FOR = timedelta(minutes=5)
"""After the last sign of an outage; then the next tick of any of its syncs tries the destination again."""


def open_circuit(outages: Mapping[str, Outage], sync: Sync, now: datetime) -> Outage | None:
    """Why the sync's destination is left alone now, if it is."""
    outage = outages.get(sync.destination_id)
    return outage if outage is not None and now < closing_time(outage) else None


def left_alone(service: Service, sync: Sync) -> str | None:
    """Why nothing starts for the sync by itself now: its destination is down; None: it is not."""
    return why_left_alone(service.outages(), sync, service.store.now())


def why_left_alone(outages: Mapping[str, Outage], sync: Sync, now: datetime) -> str | None:
    """The same, where it is known what is down."""
    outage = open_circuit(outages, sync, now)
    if outage is None:
        return None
    says = outage.run_id or f"the check at {outage.seen_at:%H:%M:%S} UTC"
    until = closing_time(outage).strftime("%H:%M:%S")
    return (
        f"destination {sync.destination_id} is down, says {says}: {outage.code} {outage.reason}; "
        f"it is left alone until it answers, or until {until} UTC"
    )


def closing_time(outage: Outage) -> datetime:
    """When the circuit that an outage has opened closes by itself, unless somebody sees that it lasts."""
    return outage.seen_at + OPEN_FOR
