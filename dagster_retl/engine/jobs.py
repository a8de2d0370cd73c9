"""Which batches are jobs at the vendor, how large these are, and how their references are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import orjson

from dagster_retl.changes.diff import PlanTotals
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.jobs import JobConnector, JobRef
from dagster_retl.engine.payload import Limits
from dagster_retl.model.rows import Operation
from dagster_retl.model.sync import Sync


def job_rows(connector: AnyConnector, sync: Sync, operation: Operation, rows: int) -> int | None:
    """How many rows a job takes, where so many rows are sent as jobs."""
    if not rows or not isinstance(connector, JobConnector):
        return None
    return connector.job_rows(sync.object_name, operation, sync.key_fields, rows)


def operations_by_job(
    connector: AnyConnector, sync: Sync, operation: Operation, totals: PlanTotals
) -> frozenset[Operation]:
    """The operations of a plan whose batches are sent as jobs."""
    rows = Counter({operation: totals.send})
    rows[Operation.DELETE] += totals.removals_sent
    return frozenset(each for each, count in rows.items() if job_rows(connector, sync, each, count))


def batch_limits(connector: AnyConnector, sync: Sync, operation: Operation, rows: int) -> Limits:
    """How large the batches of an operation are, of which there are so many rows."""
    most = job_rows(connector, sync, operation, rows)
    if most is not None and isinstance(connector, JobConnector):
        return Limits(most, connector.job_bytes)
    return Limits(connector.batch_rows_for(operation), max(1, connector.batch_bytes - connector.frame_bytes))


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job, and which rows of its batch it holds, by position; None: all of them."""

    ref: JobRef
    positions: Sequence[int] | None = None


def encode_jobs(jobs: Sequence[BatchJob]) -> str:
    """As the ledger keeps them, oldest first."""
    return orjson.dumps([asdict(job) for job in jobs]).decode()


def decode_jobs(stored: str) -> list[BatchJob]:
    """The jobs of a batch, oldest first."""
    return [BatchJob(JobRef(**job["ref"]), job["positions"]) for job in orjson.loads(stored)]
