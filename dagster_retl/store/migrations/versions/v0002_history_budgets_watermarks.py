"""Row history, shared rate budgets, keys that a watermark must not pass, payloads of dead letters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add tables and a column."""
    op.add_column("dead_letters", sa.Column("payload", sa.LargeBinary(), nullable=True))
    _rate_budgets()
    _rearmed_keys()
    _row_history()


def _rate_budgets() -> None:
    op.create_table(
        "rate_budgets",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("paused_until", sa.Float(), nullable=False),
        sa.Column("rate", sa.Float(), nullable=True),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account"),
    )


def _rearmed_keys() -> None:
    op.create_table(
        "rearmed_keys",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("record_keys", sa.Text(), nullable=False),
        sa.Column("rearmed_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("rearmed_keys_by_sync", "rearmed_keys", ["sync_id", "epoch"])


def _row_history() -> None:
    op.create_table(
        "row_history",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("row_history_by_sync", "row_history", ["sync_id", "created_at", "id"])
    op.create_index("row_history_by_time", "row_history", ["created_at", "id"])
