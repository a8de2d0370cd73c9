"""Serving the API."""

from __future__ import annotations

import os

import uvicorn

from dagster_retl.api.app import RATE, create_app
from dagster_retl.model.project import Project

DAGSTER_URL = "RETL_DAGSTER_URL"
DAGSTER_TOKEN = "RETL_DAGSTER_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_DAGSTER = "http://127.0.0.1:3000"


def serve(project: Project, *, host: str = "127.0.0.1", port: int = 3030, rate_limit: float = RATE) -> None:
    """Serve the API of a project until Ctrl-C or SIGTERM.

    `RETL_DAGSTER_URL` and `RETL_DAGSTER_TOKEN` say where Dagster's webserver is. Raises `StoreError` when the
    store cannot be used.
    """
    app = create_app(
        project,
        dagster_url=os.environ.get(DAGSTER_URL) or DEFAULT_DAGSTER,
        dagster_token=os.environ.get(DAGSTER_TOKEN),
        rate_limit=rate_limit,
    )
    app.state.shared.service.store.now()
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, date_header=True)
