"""What all requests of one API process share."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from dagster_retl.api.discovery import DiscoveryCache
from dagster_retl.api.launching import Launcher
from dagster_retl.api.limits import RateLimiter
from dagster_retl.api.metrics import Metrics
from dagster_retl.api.reloading import Reloader
from dagster_retl.service import Service
from dagster_retl.webserver import Webserver


@dataclass(frozen=True, slots=True)
class Shared:
    """The project's service, Dagster's webserver, and what remembers between requests."""

    service: Service
    webserver: Webserver
    launcher: Launcher
    reloader: Reloader
    discovery: DiscoveryCache
    limiter: RateLimiter
    metrics: Metrics


def shared(request: Request) -> Shared:
    """What the request's app holds."""
    found: Shared = request.app.state.shared
    return found
