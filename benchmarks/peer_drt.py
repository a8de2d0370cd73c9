"""Driver: drt-core, as its documentation says: Postgres source, `rest_api` destination, batches in one request.

It runs in an environment of its own. Settings: folder, host, database, query, destination (URL), batch_rows;
optional: one_by_one. drt sends one request after the other; its rate limit is switched off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["DO_NOT_TRACK"] = "1"

from drt.config.models import SyncConfig
from drt.config.profiles import PostgresProfile
from drt.destinations.rest_api import RestApiDestination
from drt.engine.sync import run_sync
from drt.sources.postgres import PostgresSource
from measure import drive


def sync_of(settings: Mapping[str, Any]) -> SyncConfig:
    """A sync that sends every row of the query."""
    destination: dict[str, Any] = {
        "type": "rest_api",
        "url": f"{settings['destination']}/v1/people",
        "headers": {"Content-Type": "application/json"},
        "rate_limit": {"requests_per_second": 0},
    }
    if settings.get("one_by_one"):
        destination["body_template"] = "{{ row | tojson_safe }}"
    else:
        destination |= {
            "body_mode": "batch",
            "batch_template": "{{ rows | tojson_safe }}",
            "max_records_per_request": settings["batch_rows"],
        }
    options = {"mode": "full", "batch_size": 10_000, "on_error": "fail"}
    return SyncConfig.model_validate(
        {"name": "people", "model": settings["query"], "destination": destination, "sync": options}
    )


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run; what it says it did."""
    profile = PostgresProfile(
        type="postgres", host=settings["host"], dbname=settings["database"], user="postgres", password=""
    )
    folder = Path(settings["folder"])
    result = run_sync(sync_of(settings), PostgresSource(), RestApiDestination(), profile, folder)
    return {"written": result.success, "failed": result.failed}


if __name__ == "__main__":
    drive(run)
