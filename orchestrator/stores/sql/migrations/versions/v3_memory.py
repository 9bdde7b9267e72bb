"""Runs remember several callers, and the right to sweep knows since when there was no pause."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v3"
down_revision: str | None = "v2"
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table, and add the columns."""
    op.create_table(
        "orchestrator_requests",
        sa.Column("run_id", _NAME, primary_key=True, nullable=False),
        sa.Column("id", _NAME, primary_key=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
    )
    for name in ("steady_since", "ahead"):
        op.add_column(
            "orchestrator_tickers", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
