"""Syncs of files that ran here: whose they are, whatever they were called when they began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "file_syncs",
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sync_id"),
    )
    op.create_index("file_syncs_by_slug", "file_syncs", ["project", "slug"])
