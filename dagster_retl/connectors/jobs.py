"""Connectors whose vendor takes many rows as one job: upload, start, ask until it is done, fetch the results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dagster_retl.connectors.base import Connector, Exchange
from dagster_retl.model.rows import Batch, Operation, RowResult


class JobState(StrEnum):
    """Where a job is, by the vendor's word."""

    OPEN = "open"
    """It exists; nothing of it is applied, or will be unless it is started."""
    RUNNING = "running"
    """It was started and has not ended."""
    DONE = "done"
    """It ended; `collect` says what became of each row."""
    FAILED = "failed"
    """It ended before its time; some of its rows may be written all the same, and `collect` says which."""


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job at the vendor: all that another process needs to go on with it. detail: whatever else `collect` needs."""

    id: str
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a vendor says of a job. message: why it failed."""

    state: JobState
    message: str = ""


class JobConnector(Connector):
    """A connector that sends a batch as a job where there are many rows, and with `write` otherwise.

    The engine keeps the `JobRef` in its store after `open` and after `start`; the next run of a process that died
    ends what that one began. In between it waits, and asks with `poll`.
    """

    @abstractmethod
    def job_rows(self, object_name: str, operation: Operation, key_fields: Sequence[str], rows: int) -> int | None:
        """How many rows one job takes, where `rows` rows are better sent as jobs; None: send them with `write`."""

    @property
    @abstractmethod
    def job_bytes(self) -> int:
        """Bytes of one job's rows, at most, counted as JSON."""

    @abstractmethod
    def open(self, batch: Batch) -> Exchange[JobRef]:
        """Create a job, and give it nothing yet that could be applied without `start`."""

    @abstractmethod
    def start(self, batch: Batch, job: JobRef) -> Exchange[JobRef]:
        """Upload the rows and let the job begin; the reference to keep from now on.

        It may be called again for a job that is still open, when nobody knows how far the last call came.
        """

    @abstractmethod
    def poll(self, job: JobRef) -> Exchange[JobStatus]:
        """Where the job is. Raises `DestinationError` (`NOT_FOUND`) where the vendor does not know it any more."""

    @abstractmethod
    def collect(self, batch: Batch, job: JobRef) -> Exchange[Sequence[RowResult]]:
        """What became of the rows of a job that ended.

        `batch` may come from the manifest of a process that died: its rows have `key`, `key_values` and
        `record_id`, but no other values. A row that the job did not get to has a fault that the engine tries again;
        one that it never held has no result. Raises `DestinationError` (`SCHEMA_DRIFT`, `CONFIGURATION`,
        `BATCH_REJECTED`, `PAYLOAD_TOO_LARGE`) for a job that was refused as a whole, of which nothing is applied.
        """

    @abstractmethod
    def abort(self, job: JobRef) -> Exchange[None]:
        """End a job that is open or running, as far as the vendor can."""
