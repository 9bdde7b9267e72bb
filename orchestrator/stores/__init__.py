"""Stores, all behind `orchestrator.ports.Store`: in memory, SQLite and PostgreSQL, Redis."""

from __future__ import annotations

from importlib import import_module
from urllib.parse import urlsplit

from orchestrator.ports import Store
from orchestrator.stores.memory import MemoryStore

_named: dict[str, MemoryStore] = {}

_REDIS = (
    *("redis", "rediss", "redis+socket", "sentinel", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
# What the stores in a database need beyond the library's own dependencies, by the extra that has it.
_EXTRAS = {"sqlite": ("sqlalchemy", "alembic"), "postgres": ("sqlalchemy", "alembic", "psycopg")}


def open_store(url: str) -> Store:
    """Return the store at a URL.

    `memory://` (one of its own), `memory://name` (one per process and name), `sqlite:///path`,
    `postgresql+psycopg://…` (or `postgres://…`), `redis://…`, `rediss://…`, `redis+socket://…`,
    `redis+sentinel://…` (or Celery's `sentinel://…`), `redis+cluster://…`, the last two with `rediss` too. Connects
    when first used. Raises ValueError for a URL of another kind, ImportError naming the extra where a package is
    missing.
    """
    scheme, name = urlsplit(url).scheme, url.partition("://")[2]
    match scheme:
        case "memory" if not name:
            return MemoryStore()
        case "memory":
            return _named.setdefault(name, MemoryStore())  # one step, without a lock that a fork could leave locked
        case _ if scheme in _REDIS:
            from orchestrator.stores.redis import RedisStore

            return RedisStore(url)
        case _ if scheme.partition("+")[0] in ("sqlite", "postgresql", "postgres"):
            _require("sqlite" if scheme.startswith("sqlite") else "postgres", scheme)
            from orchestrator.stores.sql import SqlStore

            return SqlStore(url)
        case _:
            raise ValueError(
                f"no store for {scheme or 'an empty'}:// URLs: use memory, sqlite, postgresql+psycopg or redis"
            )


def _require(extra: str, scheme: str) -> None:
    """Raise ImportError where a package is missing that the stores of this scheme need."""
    for name in _EXTRAS[extra]:
        try:
            import_module(name)
        except ImportError as error:
            text = f"a store at {scheme}:// needs {name} ({error}): pip install 'celery-orchestrator[{extra}]'"
            raise ImportError(text) from error


__all__ = ["MemoryStore", "open_store"]
