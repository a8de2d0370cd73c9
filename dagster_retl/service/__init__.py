"""The use cases: what the command line, Dagster and the REST API can do, in one place.

service = Service.open(Project.load("retl.yaml"))
report = service.run("crm_accounts")

Each module has the cases of one subject, and rests on those before it: opened, destinations, syncs, health, checks,
dead_letters, rows, runs, replays.
"""

from __future__ import annotations

from dagster_retl.service.checks import Finding
from dagster_retl.service.replays import Replay, ReplayCases
from dagster_retl.service.syncs import RetiredView, SyncView

__all__ = ["Finding", "Replay", "RetiredView", "Service", "SyncView"]


class Service(ReplayCases):
    """A project with its store and state. Opens both when first used; safe to share between threads."""
