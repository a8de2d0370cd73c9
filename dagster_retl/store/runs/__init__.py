"""Runs: queued, started, planned, counted, ended; and how to look at them."""

from __future__ import annotations

from dagster_retl.store.database import Database
from dagster_retl.store.runs.life import RunLife
from dagster_retl.store.runs.listing import RunListing
from dagster_retl.store.runs.rows import options_from_json, options_text, options_to_json, run_of, tried_to_write

__all__ = ["Runs", "options_from_json", "options_text", "options_to_json", "run_of", "tried_to_write"]


class Runs(RunLife, RunListing):
    """All runs of the store."""

    def __init__(self, database: Database) -> None:
        self._db = database
