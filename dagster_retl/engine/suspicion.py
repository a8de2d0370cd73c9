"""What a process that lost its lease leaves behind: all that it may have sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from dagster_retl.engine.feed import NumberedBatch
from dagster_retl.store.clock import to_text
from dagster_retl.store.suspects import Suspect


def suspects_of(batches: Sequence[NumberedBatch], now: datetime, settle: float, partition: str | None) -> list[Suspect]:
    """Every row of these batches may be at the destination, or get there within `settle` seconds."""
    until = to_text(now + timedelta(seconds=settle))
    return [Suspect(row.key, row.record_keys, row.content, until, partition) for batch in batches for row in batch.rows]
