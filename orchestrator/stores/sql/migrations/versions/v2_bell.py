"""Runs know until when somebody waits for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v2"
down_revision: str | None = "v1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for name in ("followed", "awaited"):
        op.add_column(
            "orchestrator_runs", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
