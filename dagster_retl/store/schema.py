"""The tables of the store.

Times are UTC text in RFC 3339 with microseconds, so that they sort, compare and look alike on
SQLite and Postgres. Ids are text. JSON is text. `epoch` names the identity of what a sync writes
to (connector, account, object, key, writing or deleting): snapshot, ledger, suspects and dead
letters belong to one epoch.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()

_OPEN = "resolved_at IS NULL"
_RESOLVED = "resolved_at IS NOT NULL"
# A plain INTEGER primary key is what SQLite numbers by itself; on Postgres it would end at 2 billion.
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, in both dialects."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


store_info = Table(
    "store_info",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)
"""One row: the store's own name, part of every generation's name."""

sync_states = Table(
    "sync_states",
    metadata,
    Column("sync_id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("enabled", Boolean),
    Column("updated_at", Text, nullable=False),
)
"""What people decided about a sync outside its file. `enabled` null: what the file says."""

leases = Table(
    "leases",
    metadata,
    Column("sync_id", Text, primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("run_id", Text),
    Column("host", Text),
    Column("boot_id", Text),
    Column("pid", Integer),
    Column("pid_started", Float),
    Column("acquired_at", Text),
    Column("heartbeat_at", Text),
    Column("expires_at", Text),
)
"""One row a sync; `token` only grows. `run_id` null: free."""

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sync_id", Text, nullable=False),
    Column("sync_name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("epoch", Text),
    Column("token", BigInteger),
    Column("trigger", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("full_refresh", Boolean, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("dagster_run_id", Text),
    Column("dagster_step", Text),
    Column("plan", Text),
    Column("counters", Text, nullable=False),
    Column("warnings", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("guard", Text),
    Column("created_at", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text),
    Index("runs_by_sync", "sync_id", "created_at", "id"),
    Index("runs_by_time", "created_at", "id"),
    Index("runs_by_status", "status", "created_at", "id"),
    Index("runs_by_sync_and_status", "sync_id", "status", "created_at", "id"),
    Index("runs_by_dagster", "dagster_run_id", "dagster_step"),
)
"""`plan`: JSON of the plan's totals and its manifest (name, checksum), null until it is durable."""

batches = Table(
    "batches",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sync_id", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("answered_at", Text),
    Column("outcomes", LargeBinary),
    Column("jobs", Text),
    Index("batches_by_sync", "sync_id"),
)
"""The ledger: a row is the intent to send a batch of the run's manifest; `outcomes` is its answer. `jobs`: JSON of
the jobs at the vendor that it was sent as."""

suspects = Table(
    "suspects",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("sync_id", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("record_keys", Text, nullable=False),
    Column("fingerprint", Text),
    Column("until", Text, nullable=False),
    Column("partition", Text),
    Index("suspects_by_sync", "sync_id", "epoch"),
)
"""What the destination may hold, now or until `until`; `fingerprint` null: the key may be gone."""

acceptances = Table(
    "acceptances",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("sync_id", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("record_keys", Text, nullable=False),
    Column("fingerprint", Text),
    Column("accepted_at", Text, nullable=False),
    Column("partition", Text),
    Index("acceptances_by_sync", "sync_id", "epoch"),
)
"""Versions that a person declared delivered; the next run folds them into the snapshot."""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sync_id", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("record_keys", Text, nullable=False),
    Column("error_code", Text, nullable=False),
    Column("vendor_code", Text),
    Column("message", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("fingerprint", Text),
    Column("attempts", Integer, nullable=False),
    Column("rejections", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("held_until", Text),
    Column("replay_run_id", Text),
    Column("first_seen_at", Text, nullable=False),
    Column("last_seen_at", Text, nullable=False),
    Column("resolved_at", Text),
    Column("resolution", Text),
    Column("silenced", Boolean, nullable=False),
    Column("payload", LargeBinary),
    Column("partition", Text),
    Index("dead_letters_open", "sync_id", "epoch", "key", unique=True, **where(_OPEN)),
    Index("dead_letters_by_time", "first_seen_at", "id"),
    Index("dead_letters_open_by_time", "first_seen_at", "id", "error_code", **where(_OPEN)),
    Index("dead_letters_open_by_sync", "sync_id", "first_seen_at", "id", **where(_OPEN)),
    Index("dead_letters_resolved_by_time", "first_seen_at", "id", **where(_RESOLVED)),
    Index("dead_letters_resolved_by_sync", "sync_id", "first_seen_at", "id", **where(_RESOLVED)),
    Index("dead_letters_by_run", "run_id", "first_seen_at", "id"),
    Index("dead_letters_open_by_code", "error_code", "first_seen_at", "id", **where(_OPEN)),
    Index("dead_letters_resolved_by_code", "error_code", "first_seen_at", "id", **where(_RESOLVED)),
    Index("dead_letters_open_by_sync_and_code", "sync_id", "error_code", "first_seen_at", "id", **where(_OPEN)),
    Index("dead_letters_resolved_by_sync_and_code", "sync_id", "error_code", "first_seen_at", "id", **where(_RESOLVED)),
    Index("dead_letters_resolved", "silenced", **where(_RESOLVED)),
    Index("dead_letters_by_key", "sync_id", "epoch", "key", "first_seen_at"),
    Index("dead_letters_replaying", "replay_run_id", **where("replay_run_id IS NOT NULL")),
)
"""`key`: the row's identity, or `code:<CODE>` for rows without one (then `record_keys` is `{}`).
`rejections` counts refusals of `fingerprint` alone, for parking. `silenced`: this version is not
sent until it changes. `payload`: what was sent, encrypted, where payloads are kept. `dead_letters_resolved` is for
older versions of this code, which count it."""

letter_counts = Table(
    "letter_counts",
    metadata,
    Column("span", Text, primary_key=True),
    Column("begins", Text, primary_key=True),
    Column("sync_id", Text, primary_key=True),
    Column("error_code", Text, primary_key=True),
    Column("part", BigInteger, primary_key=True, autoincrement=False),
    Column("open", BigInteger, nullable=False),
    Column("resolved", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""How many dead letters there are, by the `span` (all, month, day, minute) of `first_seen_at`; written by triggers of
`dead_letters` alone. Counts are sums over `part`: on Postgres the number of the transaction that wrote the row, on
SQLite 0."""

rearmed_keys = Table(
    "rearmed_keys",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("sync_id", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("record_keys", Text, nullable=False),
    Column("rearmed_at", Text, nullable=False),
    Index("rearmed_keys_by_sync", "sync_id", "epoch"),
)
"""Keys that a run with a watermark reads whatever their cursor says, because a person decided about them or an
update found no record; the run that read them and ended well forgets them."""

row_history = Table(
    "row_history",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("sync_id", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("created_at", Text, nullable=False),
    Index("row_history_by_sync", "sync_id", "created_at", "id"),
    Index("row_history_by_time", "created_at", "id"),
)
"""The files of the state that hold what became of single rows, run by run."""

rate_budgets = Table(
    "rate_budgets",
    metadata,
    Column("account", Text, primary_key=True),
    Column("next_at", Float, nullable=False),
    Column("paused_until", Float, nullable=False),
    Column("rate", Float),
    Column("updated_at", Text, nullable=False),
)
"""One row an account: when its next request may leave, by the store's clock in seconds since 1970. `rate`:
what the destination's answers taught, in requests a second; null: what is configured."""

snapshots = Table(
    "snapshots",
    metadata,
    Column("sync_id", Text, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("account_name", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("generation", Text),
    Column("rows", BigInteger, nullable=False),
    Column("checksum", Text),
    Column("fingerprint_version", Integer, nullable=False),
    Column("stale", Boolean, nullable=False),
    Column("source_rows", BigInteger),
    Column("watermark", Text),
    Column("updated_at", Text, nullable=False),
)
"""The pointer to a sync's current generation; `generation` null: an empty snapshot. `stale`: a full
refresh is under way, so that no stored fingerprint counts. `source_rows`: of the last complete read."""

notices = Table(
    "notices",
    metadata,
    Column("key", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("notified_at", Text, nullable=False),
)
"""What alerts have said, so that nothing is said twice: (kind, destination, code) and its state."""

destination_health = Table(
    "destination_health",
    metadata,
    Column("project", Text, primary_key=True),
    Column("destination_id", Text, primary_key=True),
    Column("error_code", Text),
    Column("message", Text),
    Column("since", Text, nullable=False),
    Column("checked_at", Text, nullable=False),
)
"""What the last check of a destination found; `error_code` null: it answered. `since`: that is so."""

audit = Table(
    "audit",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""Who changed what, and when."""
