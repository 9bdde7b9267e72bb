"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v1"
down_revision: str | None = None
branch_labels = None
depends_on = None

_ASSUMED_RUNS = 200  # see `tables.ASSUMED_RUNS`
_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# How PostgreSQL stores a table whose rows are written again and again.
_BUSY = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500"
# A timer comes and goes with every step, and a sweep reads over the dead rows until they are cleared away.
_FLEETING = (
    "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200, "
    "autovacuum_vacuum_cost_delay = 0"
)
_STORAGE = (("runs", _BUSY), ("activations", _BUSY), ("timers", _FLEETING))


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, _NAME, primary_key=True, nullable=False)


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, _NAME, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), primary_key=key, nullable=False, autoincrement=False)


def _moment(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def upgrade() -> None:
    """Make the tables."""
    _runs()
    _activations()
    for table, key in (("values", "id"), ("state", "key"), ("context", "key")):
        op.create_table(f"orchestrator_{table}", _key("run_id"), _key(key), _text("text"))
    op.create_table("orchestrator_events", _key("run_id"), _number("number", key=True), _number("at"), _text("doc"))
    op.create_table("orchestrator_mailboxes", _key("run_id"), _key("name"), _key("entry"))
    op.create_table(
        "orchestrator_timers",
        _key("run_id"),
        _key("path"),
        _name("namespace"),
        _number("deadline"),
        sqlite_with_rowid=False,
    )
    op.create_index("orchestrator_timers_deadline", "orchestrator_timers", ["namespace", "deadline"])
    op.create_table("orchestrator_requests", _key("run_id"), _key("id"), _number("at"), _text("reply"))
    op.create_index("orchestrator_requests_moment", "orchestrator_requests", ["run_id", "at"])
    op.create_table(
        "orchestrator_schedulers",
        _key("namespace"),
        _name("holder"),
        *(_number(name) for name in ("until", "last", "steady_since", "ahead")),
    )
    op.create_table("orchestrator_workers", _key("namespace"), _key("worker"), _number("until"))
    op.create_table("orchestrator_meta", _key("name"), _number("value"))
    if op.get_bind().dialect.name == "postgresql":
        for name in ("activations", "values", "state", "context", "events", "mailboxes", "requests", "timers"):
            op.execute(f"ALTER TABLE orchestrator_{name} ALTER COLUMN run_id SET (n_distinct = {_ASSUMED_RUNS})")
        for name, parameters in _STORAGE:
            op.execute(f"ALTER TABLE orchestrator_{name} SET ({parameters})")


def _runs() -> None:
    op.create_table(
        "orchestrator_runs",
        _key("run_id"),
        *(_name(name) for name in ("namespace", "workflow_id", "resource_id", "status")),
        sa.Column("awaiting", sa.Integer(), nullable=False),
        *(_number(name) for name in ("created_at", "updated_at", "settle_count", "events")),
        _text("doc"),
        *(_moment(name) for name in ("followed_until", "settle_awaited_until")),
    )
    awaiting = sa.text("awaiting = 1")
    for name, column in (("status", ()), ("workflow", ("workflow_id",)), ("resource", ("resource_id",))):
        order = [*column, "status", "created_at", "run_id"]
        op.create_index(f"orchestrator_runs_{name}", "orchestrator_runs", order)
        few = f"orchestrator_runs_{name}_awaiting"
        op.create_index(few, "orchestrator_runs", order, postgresql_where=awaiting, sqlite_where=awaiting)


def _activations() -> None:
    op.create_table(
        "orchestrator_activations",
        _key("run_id"),
        _key("path"),
        _name("status"),
        sa.Column("awaiting", sa.Integer(), nullable=False),
        _name("label"),
        _text("doc"),
    )
    awaiting, labeled = sa.text("awaiting = 1"), sa.text("awaiting = 1 AND label <> ''")
    for name, column, where in (("awaiting", "path", awaiting), ("label", "label", labeled)):
        op.create_index(
            f"orchestrator_activations_{name}",
            "orchestrator_activations",
            ["run_id", column],
            postgresql_where=where,
            sqlite_where=where,
        )
