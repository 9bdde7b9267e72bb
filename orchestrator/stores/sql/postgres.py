"""PostgreSQL, through pipelines: statements are sent together, and only asking for rows waits.

A transaction that locks, looks and writes takes two round trips that way: one until the locked rows are there, one with
everything else and the COMMIT. Each statement sees what was committed before it began (READ COMMITTED): what is read
after the lock is as the last holder left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from orchestrator.errors import PayloadTooLarge
from orchestrator.stores.sql import queries
from orchestrator.stores.sql.link import Answer, Conflict, Link, Lost, Row, T, Work
from orchestrator.stores.sql.pipe import Connection, Failed, Pipe
from orchestrator.stores.sql.queries import quoted
from orchestrator.stores.sql.schema import check_format, upgrade

CONNECT = 5  # seconds
LOCK = 10  # seconds until a lock is given up and asked for again
STATEMENT = 30  # seconds of one statement, by the server's count
ANSWER = 40.0  # seconds that the server may be silent, by ours: a frozen server counts nothing
# Every statement goes by a key: no value is worth another plan.
_SETTINGS = f"""SELECT set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('lock_timeout', '{LOCK}s', false),
    set_config('statement_timeout', '{STATEMENT}s', false),
    set_config('idle_in_transaction_session_timeout', '{STATEMENT}s', false)"""
_ALIVE = {
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
_MIGRATION = 0x6F726368  # number of the advisory lock: "orch"

_CONFLICTS = {"40001", "40P01", "55P03"}
# Shut down, starting, failed over to a server that may not write, timed out: another connection may do.
_LOSSES = ("08", "57P", "25P03", "25006", "53300")
_TOO_LARGE = "54"


class _Tx:
    """Statements are queued; their answers come when they are asked for, or at the end."""

    def __init__(self, pipe: Pipe, dialect: queries.Postgres) -> None:
        self._pipe = pipe
        self._dialect = dialect

    def send(self, query: str, **parameters: Any) -> Answer:
        statement = self._dialect.statement(query)
        return self._pipe.send(statement.text, [parameters[name] for name in statement.parameters], statement.name)

    def put(self, query: str, rows: Sequence[Row]) -> None:
        statement = self._dialect.statement(query)
        self._pipe.send(statement.text, [*zip(*rows, strict=True)], statement.name)


class PostgresLink(Link):
    """The connections of one process to one database, and one schema of it."""

    def __init__(self, url: URL, shown: str, schema: str | None) -> None:
        super().__init__(shown)
        url = url.set(drivername="postgresql+psycopg")
        _, options = url.get_dialect()().create_connect_args(url)
        self._options: dict[str, Any] = {"connect_timeout": CONNECT, "client_encoding": "UTF8", **_ALIVE, **options}
        self._schema = schema
        self._dialect = queries.Postgres(schema)
        self._generation = 0  # of connections; those of an older one are closed when they come up
        self._abandoned: list[QueuePool] = []
        self._pool = self._new_pool()

    def _new_pool(self) -> QueuePool:
        return QueuePool(self._connect, pool_size=5, max_overflow=45, timeout=LOCK, reset_on_return=None, use_lifo=True)

    def _connect(self) -> Any:
        connection = Connection.connect(**self._options, autocommit=True)
        try:
            connection.generation = self._generation
            connection.prepared = set()
            _alone(connection, _SETTINGS.encode())
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._generation += 1
        self._pool.dispose()

    def _abandon(self) -> None:
        self._abandoned.append(self._pool)  # kept: collecting it would warn of connections that are the parent's
        self._pool = self._new_pool()

    def _prepare(self) -> None:
        try:
            connection = self._connect()
            try:
                if not self._is_current(connection):
                    connection.autocommit = False
                    upgrade("postgresql+psycopg", connection, lambda: self._lock_schema(connection))
            finally:
                connection.close()
        except (psycopg.Error, Failed) as error:
            raise self._read_error(error, None) from error
        except SQLAlchemyError as error:
            raise self._read_error(getattr(error, "orig", None) or error, None) from error

    def _is_current(self, connection: Connection) -> bool:
        ((exists,),) = _alone(connection, self._dialect.statement(queries.EXISTS).text)
        if not exists:
            return False
        found = _alone(connection, self._dialect.statement(queries.FORMAT).text)
        return check_format(found[0] if found else None, self.shown)

    def _lock_schema(self, connection: Connection) -> bool:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION])
        if self._is_current(connection):  # another process was faster
            return False
        if self._schema:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}".encode())
            connection.execute(f"SET LOCAL search_path TO {quoted(self._schema)}".encode())
        return True

    def _attempt(self, work: Work[T], write: bool) -> T:
        pooled, connection = self._checkout()
        try:
            return self._run(connection, work, write)
        except (psycopg.Error, Failed) as error:
            raise self._read_error(error, connection) from error
        finally:
            if not connection.idle:
                pooled.invalidate()
            pooled.close()

    def _run(self, connection: Connection, work: Work[T], write: bool) -> T:
        pipe = Pipe(connection, ANSWER)
        try:
            if write:
                pipe.send(b"BEGIN ISOLATION LEVEL READ COMMITTED")
            finish = work(_Tx(pipe, self._dialect))
            if write:
                pipe.send(b"COMMIT")
            pipe.end()
        except Failed:
            with suppress(Failed, psycopg.Error):
                pipe.end()
            with suppress(Failed, psycopg.Error):
                _alone(connection, b"ROLLBACK")
            raise
        return finish()

    def _checkout(self) -> tuple[PoolProxiedConnection, Connection]:
        try:
            while True:
                pooled = self._pool.connect()
                connection = pooled.driver_connection
                assert isinstance(connection, Connection)
                if connection.generation == self._generation and connection.idle:
                    return pooled, connection
                pooled.invalidate()
                pooled.close()
        except PoolExhausted as error:
            raise Conflict("all connections of this process are in use") from error
        except (psycopg.Error, Failed) as error:
            raise self._read_error(error, None) from error

    def _read_error(self, error: BaseException, connection: Connection | None) -> Exception:
        state = getattr(error, "sqlstate", None) or ""
        if state in _CONFLICTS:
            return Conflict(str(error))
        broken = connection is not None and connection.closed
        unsaid = isinstance(error, psycopg.OperationalError | Failed) and not state
        if broken or unsaid or state.startswith(_LOSSES):
            if connection is not None and connection.generation == self._generation:
                self._generation += 1  # its neighbours in the pool are hardly better
            return Lost(str(error))
        if state.startswith(_TOO_LARGE):
            return PayloadTooLarge(f"PostgreSQL does not take the value: {str(error).splitlines()[0]}")
        return self.unavailable("does not work", error)


def _alone(connection: Connection, statement: bytes) -> list[Any]:
    pipe = Pipe(connection, ANSWER)
    answer = pipe.send(statement)
    pipe.end()
    return answer.fetchall()
