"""What a run is doing, for people who watch it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from dagster_retl.model.rows import Counters


class Phase(StrEnum):
    """A part of a run, in order. A run enters each at most once; one that ends early skips some.

    `wait`: only where another partition of the sync is being run.
    """

    WAIT = "wait"
    RECOVER = "recover"
    DISCOVER = "discover"
    EXTRACT = "extract"
    DIFF = "diff"
    PLAN = "plan"
    DELIVER = "deliver"
    FOLD = "fold"
    COMMIT = "commit"


OnPhase = Callable[[Phase, Counters], None]
"""Called as a run enters a phase, with its counters as far as they are known."""


def doing(phase: Phase, counters: Counters) -> str:
    """The phase in words, such as `sending 12,400 rows, removing 3`."""
    return _delivering(counters) if phase is Phase.DELIVER else _WORDS[phase]


def _delivering(counters: Counters) -> str:
    rows, removals = counters.due, counters.removals_due
    parts = [f"sending {_number(rows)}"] if rows else []
    parts += [f"removing {removals:,}" if rows else f"removing {_number(removals)}"] if removals else []
    return ", ".join(parts) or "nothing to send"


def _number(rows: int) -> str:
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


_WORDS = {
    Phase.WAIT: "waiting for the run of another partition",
    Phase.RECOVER: "looking for what earlier runs left",
    Phase.DISCOVER: "asking who the destination is",
    Phase.EXTRACT: "reading the query",
    Phase.DIFF: "comparing with what was delivered",
    Phase.PLAN: "writing down what is to be sent",
    Phase.FOLD: "adding up the answers",
    Phase.COMMIT: "closing the run",
}
