"""Syncs that the API makes, its keys, and its answers to repeated requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add tables, and indexes for long lists."""
    _syncs()
    _sync_versions()
    _api_keys()
    _idempotency_keys()
    op.create_index("runs_by_sync_and_status", "runs", ["sync_id", "status", "created_at", "id"])
    _letters()


def _letters() -> None:
    """Pages of a code and counts of all, each from an index of its own."""
    op.drop_index("dead_letters_by_code", "dead_letters")
    op.drop_index("dead_letters_open_by_time", "dead_letters")
    _letters_by("open_by_time", ["first_seen_at", "id", "error_code"], "resolved_at IS NULL")
    _letters_by("open_by_code", ["error_code", "first_seen_at", "id"], "resolved_at IS NULL")
    _letters_by("resolved_by_code", ["error_code", "first_seen_at", "id"], "resolved_at IS NOT NULL")
    _letters_by("resolved", ["silenced"], "resolved_at IS NOT NULL")


def _letters_by(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(f"dead_letters_{name}", "dead_letters", columns, sqlite_where=where, postgresql_where=where)


def _syncs() -> None:
    op.create_table(
        "syncs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    live = sa.text("deleted_at IS NULL")
    for name, column in (("syncs_by_name", "name"), ("syncs_by_slug", "slug")):
        columns = ["project", column]
        op.create_index(name, "syncs", columns, unique=True, sqlite_where=live, postgresql_where=live)
    op.create_index("syncs_by_time", "syncs", ["project", "created_at", "id"])


def _sync_versions() -> None:
    op.create_table(
        "sync_versions",
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sync_id", "version"),
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("destinations", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key"),
    )
    op.create_index("idempotency_keys_by_time", "idempotency_keys", ["created_at"])
