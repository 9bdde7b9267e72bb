"""The SQL store: runs in SQLite (the embedded default) or PostgreSQL. Only here are SQLAlchemy and Alembic known.

Like the memory store it decides nothing: every change is read by `core.apply` under the lock of the run's header row.
"""

from orchestrator.stores.sql.store import SqlStore

__all__ = ["SqlStore"]
