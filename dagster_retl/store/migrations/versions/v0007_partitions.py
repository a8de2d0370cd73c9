"""Of which partition of their sync dead letters, suspects and acceptances are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a column to each; null: of none, or of one that was not kept."""
    for table in ("dead_letters", "suspects", "acceptances"):
        op.add_column(table, sa.Column("partition", sa.Text(), nullable=True))
