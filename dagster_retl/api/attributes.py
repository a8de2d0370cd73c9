"""What the answers are made of: attributes of each type of resource, metadata, problems; for the OpenAPI document."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A part of an answer; what stands below a field is its description."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ProblemDetail(Shape):
    """One thing that is wrong."""

    field: str
    """Its place: `schedule.expression`, `field_mappings[2].source`, a query parameter, a header."""
    code: str
    message: str
    id: str | None = None
    """What is in the way: the run that is under way, the sync that has the name."""


class ProblemError(Shape):
    """What went wrong."""

    code: str
    message: str
    details: list[ProblemDetail]
    request_id: str


class ProblemEnvelope(Shape):
    """The answer to every request that fails."""

    error: ProblemError


class Page(Shape):
    """Where the list goes on."""

    limit: int
    cursor: str | None
    """Pass it as `cursor` with the same filters to go on; null: this was the last page."""


class PageMeta(Shape):
    """Beside a page."""

    page: Page


class DiscoveryMeta(Shape):
    """How fresh the list is."""

    stale: bool
    """The destination does not answer now; this is what it said before."""
    discovered_at: datetime


class NextRunMeta(Shape):
    """What the next run will do, as far as that is known without reading anything."""

    sends: Literal["all", "changed"]
    removes: bool
    reason: str


class SavedMeta(Shape):
    """What follows from the change."""

    next_run: NextRunMeta
    definitions_stale: bool
    """Dagster could not be told: reload its code location, or its schedules and assets stay as they were."""
    warnings: list[str]
    """What could not be checked, because somebody did not answer."""


class DeletedMeta(Shape):
    """What follows from the deletion."""

    definitions_stale: bool
    cancelled_run_ids: list[str]


class ScheduleShape(Shape):
    """When a sync runs by itself."""

    type: Literal["cron", "manual", "on_upstream"]
    expression: str | None = None
    timezone: str | None = None


class SyncSummary(Shape):
    """A sync in a list."""

    name: str
    slug: str
    description: str | None
    warehouse: str
    destination_id: str
    object_name: str
    sync_mode: str
    enabled: bool
    schedule: ScheduleShape
    owner: Literal["file", "store"]
    """Who defines it: the project's file (it can be run and switched here), or this API."""
    version: int | None
    created_at: datetime | None
    updated_at: datetime | None


class DeadLetterCheckShape(Shape):
    """When the open dead letters of a sync are worth a warning."""

    open: int
    """More open entries than this."""
    age: str
    """An entry that has been open for longer, such as `1d`."""


class ChecksShape(Shape):
    """Asset checks beyond the two that every sync has."""

    dead_letters: DeadLetterCheckShape | None
    unique_keys: bool
    destination_contract: bool


class PartitionsShape(Shape):
    """How the query is parted."""

    type: Literal["hourly", "daily", "weekly", "monthly", "static"]
    start: date | None
    end: date | None
    timezone: str
    keys: list[str]
    backfill: Literal["single_run", "run_per_partition"]


class SyncAttributes(SyncSummary):
    """Everything that a sync says."""

    source_query: str
    field_mappings: list[dict[str, Any]]
    change_detection: str | dict[str, Any]
    guards: dict[str, float]
    checks: ChecksShape
    partitions: PartitionsShape | None
    max_attempts: int
    on_missing: str
    owners: list[str]
    group: str
    tags: dict[str, str]
    after: list[str]
    """Syncs that run before this one where they are in one run, by name or slug."""
    schedule_state: str | None = None
    """none, disabled, running, stopped_in_dagster, missing, unknown (Dagster does not answer)."""


class DeletedAttributes(Shape):
    """That it is gone, and since when."""

    deleted: bool
    deleted_at: datetime


class RetiredAttributes(Shape):
    """A sync that is gone."""

    name: str
    deleted_at: datetime | None
    """When it was deleted here; null: it left the project's file."""
    open_dead_letters: int


class ToggledAttributes(Shape):
    """Whether the sync runs by itself now."""

    enabled: bool
    updated_at: datetime
    schedule: ScheduleShape
    schedule_state: str


class VersionAttributes(Shape):
    """What a sync said, and who said it."""

    version: int
    name: str
    actor: str
    created_at: datetime
    definition: dict[str, Any]


class PlanAttributes(Shape):
    """What a run would write; values are masked."""

    model_config = ConfigDict(extra="allow")

    sync_id: str
    sync_name: str
    reason: str
    rows_read: int
    rows_sent: int
    rows_unchanged: int
    rows_failed: int
    rows_deleted: int
    samples: list[dict[str, Any]]
    guards: list[dict[str, Any]]
    warnings: list[str]


class RunError(Shape):
    """Why a run failed."""

    code: str | None
    message: str | None
    guard: str | None


class RunAttributes(Shape):
    """rows_read = rows_written + rows_failed + rows_unchanged + rows_skipped + rows_unknown, once it is over."""

    model_config = ConfigDict(extra="allow")

    sync_id: str
    sync_name: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    full_refresh: bool
    dry_run: bool
    partition: str | None
    """The key of the partition that it read, of a sync with partitions."""
    trigger: str
    rows_read: int
    rows_written: int
    rows_unconfirmed: int
    rows_failed: int
    rows_unchanged: int
    rows_skipped: int
    rows_unknown: int
    rows_removed: int
    rows_deleted: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None
    dagster_run_id: str | None
    error: RunError | None
    warnings: list[str]


class LetterAttributes(Shape):
    """A row that could not be written."""

    model_config = ConfigDict(extra="allow")

    sync_id: str
    run_id: str
    error_code: str
    vendor_code: str | None
    message: str
    record_keys: dict[str, Any]
    operation: str
    partition: str | None
    """Of a sync with partitions: the fixed key, or the window of time."""
    attempts: int
    rows: int
    first_seen_at: datetime
    last_seen_at: datetime
    resolved: bool
    resolution: str | None
    resolved_at: datetime | None
    replaying: bool


class StatsAttributes(Shape):
    """How many entries there are, and why the open ones failed."""

    open_count: int
    resolved_count: int
    by_error_code: dict[str, int]
    """Of open entries."""
    computed_at: datetime


class ResolvedAttributes(Shape):
    """What was resolved, and which runs send rows again."""

    resolved_ids: list[str]
    """Those that were open, or that are being replayed."""
    replay_run_id: str | None
    replay_run_ids: list[str]
    """One for each sync."""
    resolved_at: datetime


class DestinationAttributes(Shape):
    """A destination, and whether it answers."""

    name: str
    connector: str
    status: Literal["connected", "error", "unknown"]
    objects_discoverable: bool


class ObjectAttributes(Shape):
    """An object that can be written to."""

    label: str
    api_name: str
    supports_upsert: bool
    writable: bool


class FieldAttributes(Shape):
    """A field, its type, and how it may be written."""

    label: str
    data_type: str
    required: bool
    createable: bool
    updateable: bool
    external_id: bool
