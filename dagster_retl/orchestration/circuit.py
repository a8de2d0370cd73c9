"""A destination that was down a moment ago is left alone by schedules: its circuit is open."""

from __future__ import annotations

from datetime import datetime, timedelta

from dagster_retl.errors import ErrorCode
from dagster_retl.model.runs import Run
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service

OPEN_FOR = timedelta(minutes=5)
"""Afterwards the next tick of any of its syncs tries the destination again."""


_RECENT = 50
"""Runs of the store that are looked at: a tick has to be cheap."""


def open_circuit(service: Service, sync: Sync, now: datetime) -> Run | None:
    """The run that found the sync's destination down, if that was the last word about it and is not long ago.

    Runs of all the project's syncs into that destination count.
    """
    shared = [each.id for each in service.project.syncs if each.destination_id == sync.destination_id]
    neighbours = {sync.id, *shared}
    ended = [run for run in service.runs(limit=_RECENT) if run.sync_id in neighbours and run.finished_at is not None]
    tried = [run for run in ended if not run.dry_run and (run.counters.requests or run.error_code)]
    if not tried:
        return None
    last = max(tried, key=closing_time)
    return last if now < closing_time(last) and last.error_code == ErrorCode.DESTINATION_DOWN.value else None


def left_alone(service: Service, sync: Sync) -> str | None:
    """Why nothing starts for the sync by itself now: its destination is down; None: it is not."""
    failed = open_circuit(service, sync, service.store.now())
    if failed is None:
        return None
    until = closing_time(failed).strftime("%H:%M:%S")
    return f"destination {sync.destination_id} is down, says {failed.id}; it is left alone until {until} UTC"


def closing_time(run: Run) -> datetime:
    """When the circuit that an ended run has opened is closed again."""
    return (run.finished_at or run.created_at) + OPEN_FOR
