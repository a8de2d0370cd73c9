"""Dead letters: the open or resolved record of a row that could not be written (PROTOCOL 8, 13, 14)."""

from __future__ import annotations

from dagster_retl.store.audit import Audit
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters.counting import Counting
from dagster_retl.store.dead_letters.decisions import Decisions
from dagster_retl.store.dead_letters.failures import KEYLESS, Failure, Failures
from dagster_retl.store.dead_letters.listing import Listing, OpenGroup
from dagster_retl.store.dead_letters.planning import OPEN_SCHEMA, SILENCED_SCHEMA, Planning

__all__ = ["KEYLESS", "OPEN_SCHEMA", "SILENCED_SCHEMA", "DeadLetters", "Failure", "OpenGroup"]


class DeadLetters(Failures, Decisions, Listing, Counting, Planning):
    """All dead letters of the store: at most one open entry per (sync, epoch, key)."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._db = database
        self._audit = audit
