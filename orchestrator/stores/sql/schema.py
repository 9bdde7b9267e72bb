"""The upgrade of a database's tables, in the caller's transaction and under the caller's lock."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from orchestrator.errors import StoreUnavailable
from orchestrator.stores.sql.tables import FIRST_FORMAT, FORMAT, VERSION_TABLE, meta

_MAX_SCHEMA = 63  # bytes; PostgreSQL cuts longer names, and two of them might become one
_MIGRATIONS = Path(__file__).parent / "migrations"


class _OneAtATime:
    """Alembic keeps the migration under way in a module: two threads would write through each other's connection."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Make a lock of this process's own."""
        self.lock = threading.Lock()


_alembic = _OneAtATime()


def check_schema_name(schema: str | None) -> None:
    """Raise ValueError for a name that PostgreSQL would not take as it is."""
    if schema and ("\0" in schema or len(schema.encode("utf-8", "surrogatepass")) > _MAX_SCHEMA):
        raise ValueError(f"a schema's name has {_MAX_SCHEMA} bytes at most, and no NUL: {schema!r}")


def check_format(found: Sequence[Any] | None, shown: str) -> bool:
    """Return True if the stored format is this release's, False if the tables are to be upgraded.

    A format of a newer release is an error, and so is one of a development version before the first release: this code
    cannot read its documents.
    """
    if not found:
        return False
    stored = int(found[0])
    if stored < FIRST_FORMAT:
        raise StoreUnavailable(
            f"The store {shown} has format {stored}, of a development version before the first release; "
            f"this release cannot read it. Delete it, or use another database.",
            store=shown,
        )
    if stored > FORMAT:
        raise StoreUnavailable(
            f"The store {shown} has format {stored}, of a newer release; this one knows formats up to {FORMAT}.",
            store=shown,
        )
    return stored == FORMAT


def upgrade(driver: str, raw: Any, lock: Callable[[], bool]) -> None:
    """Upgrade through the driver's connection. `lock` takes the lock and tells if there is anything left to do."""
    executor = create_engine(f"{driver}://", creator=lambda: raw, poolclass=StaticPool)
    with executor.connect() as connection:
        connection.exec_driver_sql("SELECT 1")  # from here on SQLAlchemy knows of a transaction
        if lock():
            _run_scripts(connection)
        connection.commit()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Alembic from telling each of its plugins to the log, unless the user has set how much it may tell."""
    logger = logging.getLogger("alembic")
    before = logger.level
    logger.setLevel(before or logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _run_scripts(connection: Connection) -> None:
    with _alembic.lock, _quiet():
        _run_alembic(connection)
    connection.execute(meta.delete().where(meta.c.name == "format"))
    connection.execute(meta.insert().values(name="format", value=FORMAT))


def _run_alembic(connection: Connection) -> None:
    # Alembic is slow to import, and nearly every process finds the schema as it should be.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: Any) -> Any:
        return scripts._upgrade_revs("head", revision)  # as `alembic upgrade head` does

    with EnvironmentContext(config, scripts, fn=steps, destination_rev="head") as environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE)
        environment.run_migrations()
