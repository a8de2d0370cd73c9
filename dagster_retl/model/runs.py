"""Runs: what somebody asked for, what became of it, and the dead letters it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.rows import Counters

REPLAY = "replay"
"""The trigger of runs that send dead letters again."""


class RunStatus(StrEnum):
    """Where a run stands. Partial success is `succeeded`, with `failed` rows in its counters."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING)


class Guard(StrEnum):
    """The guards that can stop a run, by the name that overrides them for one run."""

    CONTRACT = "contract"
    ACCOUNT = "account"
    DELETES = "deletes"
    SHRINK = "shrink"
    FAILURES = "failures"


class AccountChange(StrEnum):
    """What to do when a destination reaches another account than the snapshot was delivered to."""

    REFUSE = "refuse"
    RESET = "reset"
    """Start from an empty snapshot, whatever there was: the whole result is sent."""
    KEEP_SNAPSHOT = "keep_snapshot"
    """It is the same data under another id (an account that moved): go on."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is special about one run.

    limit: send at most this many rows. keys: send only these rows; each is a mapping of key
    field to value. replay: ids of the dead letters that this run sends again (their keys are
    its `keys`). overrides: guards that may not stop this run. baseline: send nothing, take the whole
    result as delivered; raises `ConfigurationError` together with what says which rows to send. partition: the one
    that it reads, of a sync with partitions.
    """

    full_refresh: bool = False
    dry_run: bool = False
    limit: int | None = None
    keys: tuple[Mapping[str, Any], ...] = ()
    replay: tuple[str, ...] = ()
    overrides: frozenset[Guard] = frozenset()
    account_change: AccountChange = AccountChange.REFUSE
    baseline: bool = False
    partition: Partition | None = None

    def __post_init__(self) -> None:
        if self.baseline and (self.full_refresh or self.partial or self.replay):
            raise ConfigurationError(
                "a baseline takes the whole result and sends nothing: no full refresh, limit, keys or replay go with it"
            )

    @property
    def parted_by(self) -> str | None:
        """The identity of the partition that it reads; None: the whole query."""
        return self.partition.identity if self.partition else None

    @property
    def partial(self) -> bool:
        """A partial run computes no removals, moves no watermark and trips no shrink guard."""
        return self.limit is not None or bool(self.keys)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of one sync, as the store knows it. Times are UTC."""

    id: str
    sync_id: str
    status: RunStatus
    created_at: datetime
    sync_name: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    counters: Counters = field(default_factory=Counters)
    full_refresh: bool = False
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    trigger: str = "manual"
    dagster_run_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    guard: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def partition(self) -> str | None:
        """The key of the partition that it read, of a sync with partitions."""
        chosen = self.options.get("partition")
        return chosen["key"] if chosen else None

    @property
    def duration_s(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that could not be written, open until it is.

    rows: how many rows of the query it stands for (duplicates of one key, rows without a key).
    attempts: how often it failed, in all. rejections: how often the destination refused this
    version of it. held: an insert whose outcome is unknown; no run sends it until somebody says
    whether it arrived, which nobody can know before `held_until`. silenced: this version is not sent
    until it changes. replaying: a replay is under way. partition: whose row it is (`Partition.identity`).
    """

    id: str
    sync_id: str
    run_id: str
    error_code: str
    message: str
    record_keys: Mapping[str, Any]
    operation: str
    attempts: int
    rows: int
    first_seen_at: datetime
    last_seen_at: datetime
    vendor_code: str | None = None
    rejections: int = 0
    held: bool = False
    held_until: datetime | None = None
    silenced: bool = False
    replaying: bool = False
    resolved_at: datetime | None = None
    resolution: str | None = None
    partition: str | None = None

    @property
    def resolved(self) -> bool:
        return self.resolved_at is not None


@dataclass(frozen=True, slots=True)
class DeadLetterStats:
    """How many dead letters are open and resolved, and why the open ones failed."""

    open_count: int
    resolved_count: int
    by_error_code: Mapping[str, int]
    computed_at: datetime
