"""The tables of what the API keeps: syncs and their versions, keys, answers to repeated requests; and of files' syncs.

They belong to the same metadata, with the same kinds of columns, as those in `schema`.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, Table, Text

from dagster_retl.store.schema import metadata, where

_LIVE = "deleted_at IS NULL"

syncs = Table(
    "syncs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("deleted_at", Text),
    Index("syncs_by_name", "project", "name", unique=True, **where(_LIVE)),
    Index("syncs_by_slug", "project", "slug", unique=True, **where(_LIVE)),
    Index("syncs_by_time", "project", "created_at", "id"),
)
"""Syncs that were made through the API. `definition`: JSON of what was said, as in retl.yaml, without what the
other columns hold. A deleted sync stays, so that its runs and dead letters have a name."""

file_syncs = Table(
    "file_syncs",
    metadata,
    Column("sync_id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
    Index("file_syncs_by_slug", "project", "slug"),
)
"""Syncs of project files that ran here: their project, and the slug that they had when they ran last."""

sync_versions = Table(
    "sync_versions",
    metadata,
    Column("sync_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)
"""Every version of every sync, the current one among them."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("destinations", Text),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", Text),
)
"""Keys of the API. `digest`: SHA-256 of the secret part. `destinations`: JSON list; null: all."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request", Text, nullable=False),
    Column("status", Integer),
    Column("answer", Text),
    Column("created_at", Text, nullable=False),
    Index("idempotency_keys_by_time", "created_at"),
)
"""Requests that may come again. `request`: a digest of what was asked; `status` null: not answered yet."""
