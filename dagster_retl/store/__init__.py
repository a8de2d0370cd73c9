"""The store: the truth about leases, runs, what was sent and what failed; and the state beside it."""

from __future__ import annotations

from dagster_retl.store.dead_letters import DeadLetters, Failure, OpenGroup
from dagster_retl.store.leases import HEARTBEAT, TTL, Holder, Lease
from dagster_retl.store.ledger import LedgerBatch
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State, Stored, generation_name, manifest_name
from dagster_retl.store.store import Store
from dagster_retl.store.suspects import Suspect

__all__ = [
    "HEARTBEAT",
    "TTL",
    "DeadLetters",
    "Failure",
    "Holder",
    "Lease",
    "LedgerBatch",
    "OpenGroup",
    "Pointer",
    "State",
    "Store",
    "Stored",
    "Suspect",
    "generation_name",
    "manifest_name",
]
