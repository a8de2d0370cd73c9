"""Jobs at the vendor, so that another process can end them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a column."""
    op.add_column("batches", sa.Column("jobs", sa.Text(), nullable=True))
