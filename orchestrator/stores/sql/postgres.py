"""PostgreSQL, through psycopg's pipeline mode: only asking for rows waits for the server.

A transaction that locks, looks and writes takes two round trips and three statements: the lock and the reading under
it, then everything that is written. Each statement sees what was committed before it began (READ COMMITTED): what is
read after the lock is as its last holder left it.

psycopg spends several times as long on a statement as libpq does, so writes are merged into one statement.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.waiting import Ready, Wait
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from orchestrator.errors import PayloadTooLarge
from orchestrator.stores.sql import queries
from orchestrator.stores.sql.link import UNWRITABLE, Answer, Conflict, ConnectionLost, Connections, Row, T, Work
from orchestrator.stores.sql.queries import quoted
from orchestrator.stores.sql.schema import check_format, check_schema_name, upgrade

CONNECT = 5  # seconds
LOCK = 10  # seconds until a lock is given up and asked for again
STATEMENT = 30  # seconds of one statement, by the server's count
ANSWER = 40.0  # seconds that the server may be silent, by ours: a frozen server counts nothing
# Every statement goes by a key: no value is worth another plan.
_SETTINGS = f"""SELECT set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('lock_timeout', '{LOCK}s', false),
    set_config('statement_timeout', '{STATEMENT}s', false),
    set_config('idle_in_transaction_session_timeout', '{STATEMENT}s', false)"""
# Behind a pooler of transactions there is no session that could have settings: each transaction brings its own.
_LOCAL_SETTINGS = f"""SELECT set_config('lock_timeout', '{LOCK}s', true),
    set_config('statement_timeout', '{STATEMENT}s', true)""".encode()
_ALIVE = {
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
_POOLING = "pooling"  # an option of the URL, of our own
_MIGRATION = 0x6F726368  # number of the advisory lock: "orch"

_CONFLICTS = {"40001", "40P01", "55P03"}
# Shut down, starting, failed over to a server that may not write, timed out: another connection may do.
_LOSSES = ("08", "57P", "25P03", "25006", "53300")
_TOO_LARGE = "54"
# The data or the statement is at fault: bad data, a broken constraint, what is not supported, what does not exist.
_REFUSALS = ("0A", "21", "22", "23", "42", "44")
_ENCODINGS = ("UTF8", "SQL_ASCII")  # of databases that take any text; the second takes it unread


class _Connection(psycopg.Connection[Any]):
    """A connection on which every wait has an end, and statements share packets."""

    generation = 0  # of the pool: see `PostgresConnections`
    is_shared = False  # a pooler gives each transaction another server: nothing of one stays for the next
    _socket: socket.socket | None = None

    def ask(self, statement: bytes, parameters: Mapping[str, Any], prepare: bool | None = None) -> Answer:
        """Send a statement; it is prepared at once, or after some uses.

        Outside of a pipeline, preparing takes a round trip of its own: that pays for what is asked often.
        """
        prepare = False if self.is_shared else prepare
        return self.execute(statement, {name: _as_text(value) for name, value in parameters.items()}, prepare=prepare)

    def gather_packets(self) -> None:
        """Let the kernel hold statements back until an answer is waited for.

        psycopg sends each of them by itself, and a server that is woken for each of them has more to do.
        """
        if _CORK:
            held = socket.socket(fileno=os.dup(self.fileno()))
            if held.family in (socket.AF_INET, socket.AF_INET6):
                self._socket = held
            else:
                held.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        super().close()

    def wait(self, gen: PQGen[RV], *_args: Any, **_kwargs: Any) -> RV:
        """Carry out one operation of psycopg's; fail and close when the server is silent for `ANSWER` seconds.

        A frozen server (stopped, or behind a network that swallows everything) keeps its sockets open and counts no
        timeout of its own, and psycopg would wait for it without end. `tcp_user_timeout` does not help: the kernel of
        a stopped process still acknowledges what it receives.
        """
        descriptor = self.fileno()
        try:
            wanted = next(gen)
            while True:
                if wanted == Wait.R and self._socket is not None:
                    self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, 0)  # sends what was held back
                    self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
                wanted = gen.send(self._await_socket(descriptor, wanted, gen))
        except StopIteration as end:
            answer: RV = end.value
            return answer

    def _await_socket(self, descriptor: int, wanted: Wait, gen: PQGen[Any]) -> Ready:
        try:
            if ready := _wait_for(descriptor, wanted, ANSWER):
                return ready
            raise psycopg.OperationalError(f"no answer within {ANSWER:.0f} s")
        except BaseException as error:
            # Nobody will read what is still to come. psycopg's generator has to hear of it: one that is left where it
            # is would try to go on when it is collected, and complain.
            self.close()
            with suppress(psycopg.Error, StopIteration):
                gen.throw(error)
            raise

    @property
    def is_idle(self) -> bool:
        """True when nothing is going on."""
        in_pipeline = self.pgconn.pipeline_status != PipelineStatus.OFF
        return not self.closed and not in_pipeline and self.pgconn.transaction_status == TransactionStatus.IDLE


_CORK: int = getattr(socket, "TCP_CORK", 0)  # of Linux; elsewhere every statement has a packet of its own


def _poll(descriptor: int, wanted: Wait, seconds: float) -> Ready | None:
    """Wait until a socket can be read or written, as wanted; None where the time is over."""
    poller = select.poll()
    poller.register(descriptor, _EVENTS[wanted])
    found = poller.poll(seconds * 1000)
    return _READY[found[0][1] & _BOTH] if found else None


def _select(descriptor: int, wanted: Wait, seconds: float) -> Ready | None:
    """The same where there is no `poll`: eventlet takes it away. Descriptors beyond 1,023 are refused."""
    reading = [descriptor] if wanted & Wait.R else []
    writing = [descriptor] if wanted & Wait.W else []
    can_read, can_write, _ = select.select(reading, writing, [], seconds)
    return Ready(bool(can_read) * Ready.R | bool(can_write) * Ready.W) if can_read or can_write else None


if hasattr(select, "poll"):
    _BOTH = select.POLLIN | select.POLLOUT
    _EVENTS = (0, select.POLLIN, select.POLLOUT, _BOTH)  # by `Wait`: psycopg waits to read, to write, or for either
    # Where the socket is broken, reading from it says how.
    _READY = {0: Ready.R, select.POLLIN: Ready.R, select.POLLOUT: Ready.W, _BOTH: Ready.RW}
    _wait_for = _poll
else:
    _wait_for = _select


def _as_text(value: Any) -> str | None:
    """Return a parameter as PostgreSQL reads it.

    The statement knows the type. Told by psycopg, it would be prepared for small numbers and again for large ones.
    """
    match value:
        case None | str():
            return value
        case int():
            return str(value)
        case [int(), *_]:
            return "{" + ",".join(map(str, value)) + "}"
        case []:
            return "{}"
        case _:
            escaped = [item.replace("\\", "\\\\").replace('"', '\\"') for item in value]
            return '{"' + '","'.join(escaped) + '"}'


class _Transaction:
    """Statements of one transaction, in a pipeline. Writes are gathered, and go out as one statement.

    There is no BEGIN and no COMMIT, which would cost as much as other statements. Without them, all that a pipeline
    sends before its end is one transaction, and its end commits it.
    """

    def __init__(self, connection: _Connection, dialect: queries.Postgres) -> None:
        self._connection = connection
        self._dialect = dialect
        self._gathered: list[tuple[str, dict[str, Any]]] = []

    def send(self, query: str, **parameters: Any) -> Answer:
        self.send_gathered()
        return self._connection.ask(self._dialect.statement(query), parameters, True)

    def write(self, query: str, **parameters: Any) -> None:
        self._gathered.append((query, parameters))

    def put(self, query: str, rows: Sequence[Row]) -> None:
        columns = zip(*rows, strict=True)
        self._gathered.append((query, {str(place): column for place, column in enumerate(columns)}))

    def send_with_writes(self, query: str, **parameters: Any) -> Answer:
        self._gathered.append((query, parameters))
        names, given = zip(*self._gathered, strict=True)
        self._gathered = []
        merged = {f"{place}_{name}": value for place, one in enumerate(given) for name, value in one.items()}
        return self._connection.ask(self._dialect.merged(names), merged, True)

    def send_gathered(self) -> None:
        """Send what was gathered."""
        if self._gathered:
            query, parameters = self._gathered.pop()
            self.send_with_writes(query, **parameters)


class _Question:
    """A statement that only reads, and its rows once it has been carried out."""

    def __init__(self, statement: bytes, parameters: dict[str, Any]) -> None:
        self._statement = statement
        self._parameters = parameters

    def ask(self, connection: _Connection) -> None:
        self._answer = connection.ask(self._statement, self._parameters)

    def fetchall(self) -> list[Any]:
        return self._answer.fetchall()


class _Questions:
    """Statements that only read, all asked at the end: then it is known whether they need a pipeline.

    A pipeline costs as much as a statement, and most reads are one statement.
    """

    def __init__(self, dialect: queries.Postgres) -> None:
        self._dialect = dialect
        self.asked: list[_Question] = []

    def send(self, query: str, **parameters: Any) -> Answer:
        question = _Question(self._dialect.statement(query), parameters)
        self.asked.append(question)
        return question

    send_with_writes = send

    def write(self, query: str, **parameters: Any) -> None:
        raise NotImplementedError

    def put(self, query: str, rows: Sequence[Row]) -> None:
        raise NotImplementedError

    def ask(self, connection: _Connection) -> None:
        with connection.pipeline() if len(self.asked) > 1 else nullcontext():
            for question in self.asked:
                question.ask(connection)


def _reads_pooling(url: URL) -> bool:
    """Return True for a URL by which a pooler gives each transaction another server. Raises ValueError."""
    given = url.query.get(_POOLING, "session")
    if given not in ("session", "transaction"):
        raise ValueError(f"`{_POOLING}` in the store's URL is session (the default) or transaction, not {given!r}")
    return given == "transaction"


class PostgresConnections(Connections):
    """The connections of one process to one database, and one schema of it."""

    def __init__(self, url: URL, shown: str, schema: str | None) -> None:
        super().__init__(shown)
        check_schema_name(schema)
        self._is_shared = _reads_pooling(url)
        url = url.difference_update_query([_POOLING])
        url = url.set(drivername="postgresql+psycopg")
        _, options = url.get_dialect()().create_connect_args(url)
        # By its name a DBA tells these connections from those of the application's own tables.
        own = {"connect_timeout": CONNECT, "client_encoding": "UTF8", "application_name": "orchestrator"}
        self._options: dict[str, Any] = {**own, **_ALIVE, **options}
        self._schema = schema
        self._dialect = queries.Postgres(schema)
        self._generation = 0  # of connections; those of an older one are closed when they come up
        self._abandoned: list[QueuePool] = []
        self._pool = self._new_pool()

    def _new_pool(self) -> QueuePool:
        return QueuePool(self._connect, pool_size=5, max_overflow=45, timeout=LOCK, reset_on_return=None, use_lifo=True)

    def _connect(self) -> Any:
        try:
            connection = _Connection.connect(**self._options, autocommit=True)
        except psycopg.ProgrammingError as error:  # the client's own word, about what it was given
            raise ValueError(f"the URL of the store cannot be used: {str(error).strip()}") from None
        try:
            connection.generation = self._generation
            connection.gather_packets()
            if self._is_shared:
                connection.is_shared, connection.prepare_threshold = True, None
            else:
                connection.execute(_SETTINGS.encode())
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
                self._check_encoding(connection)
                if self._is_shared:
                    self._check_isolation(connection)
                if not self._is_current(connection):
                    connection.autocommit = False
                    upgrade("postgresql+psycopg", connection, lambda: self._lock_schema(connection))
            finally:
                connection.close()
        except psycopg.Error as error:
            raise self._read_error(error, None) from error
        except SQLAlchemyError as error:
            raise self._read_error(getattr(error, "orig", None) or error, None) from error

    def _check_encoding(self, connection: _Connection) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in _ENCODINGS:
            text = f"its encoding is {encoding}, in which not every text can be kept: create the database in UTF8"
            raise self.unavailable("cannot be used", ValueError(text))

    def _check_isolation(self, connection: _Connection) -> None:
        found = connection.execute("SELECT current_setting('default_transaction_isolation')").fetchone()
        if found != ("read committed",):
            text = (
                f"its transactions are {found and found[0]!r} unless a session says otherwise, and behind a pooler of "
                "transactions (pooling=transaction) none can: ALTER ROLE … SET default_transaction_isolation = "
                "'read committed'"
            )
            raise self.unavailable("cannot be used", ValueError(text))

    def _is_current(self, connection: _Connection) -> bool:
        named = {"name": self._dialect.full_name("meta")}
        ((exists,),) = connection.ask(self._dialect.statement(queries.EXISTS), named).fetchall()
        if not exists:
            return False
        found = connection.execute(self._dialect.statement(queries.FORMAT)).fetchone()
        return check_format(found, self.shown)

    def _lock_schema(self, connection: _Connection) -> bool:
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
        except psycopg.Error as error:
            raise self._read_error(error, connection) from error
        except UNWRITABLE as error:
            raise self.refused(error) from error
        finally:
            if not connection.is_idle:
                pooled.invalidate()
            pooled.close()

    def _run(self, connection: _Connection, work: Work[T], write: bool) -> T:
        if not write:
            questions = _Questions(self._dialect)
            finish = work(questions)
            questions.ask(connection)
            return finish()
        with _pipeline(connection):
            if self._is_shared:
                connection.execute(_LOCAL_SETTINGS)
            transaction = _Transaction(connection, self._dialect)
            finish = work(transaction)
            transaction.send_gathered()
        return finish()

    def _checkout(self) -> tuple[PoolProxiedConnection, _Connection]:
        try:
            while True:
                pooled = self._pool.connect()
                connection = pooled.driver_connection
                assert isinstance(connection, _Connection)
                if connection.generation == self._generation and connection.is_idle:
                    return pooled, connection
                pooled.invalidate()
                pooled.close()
        except PoolExhausted as error:
            raise Conflict("all connections of this process are in use") from error
        except psycopg.Error as error:
            raise self._read_error(error, None) from error

    def _read_error(self, error: BaseException, connection: _Connection | None) -> Exception:
        error = _first_error(error)
        state = getattr(error, "sqlstate", None) or ""
        if state in _CONFLICTS:
            return Conflict(str(error))
        if _is_loss(error, state):
            if connection is not None and connection.generation == self._generation:
                self._generation += 1  # its neighbours in the pool are hardly better
            return ConnectionLost(str(error))
        if state.startswith(_TOO_LARGE):
            return PayloadTooLarge(f"PostgreSQL does not take the value: {str(error).splitlines()[0]}")
        # Without a state it is psycopg's own word, about what it was given.
        if state.startswith(_REFUSALS) or (not state and isinstance(error, psycopg.DataError)):
            return self.refused(error)
        return self.unavailable("does not work", error)


@contextmanager
def _pipeline(connection: _Connection) -> Iterator[None]:
    """Carry out a transaction; nothing of it is committed, and the connection is closed, if something goes wrong."""
    failure: BaseException | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - raised again below
                # The end of the pipeline would commit what was sent, after waiting for what the server is busy with.
                connection.close()
                failure = error  # past the pipeline, which would log what follows from it
    except psycopg.Error:
        if failure is None:
            raise
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # its traceback leads to this frame, and would keep the connection


def _is_loss(error: BaseException, state: str) -> bool:
    if state.startswith(_LOSSES):
        return True
    if not state:  # libpq's or our own word, not the server's
        return isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError
    return isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def _first_error(error: BaseException) -> BaseException:
    """Return the error that stopped the pipeline, not one of a later statement that was skipped for it."""
    while isinstance(error, psycopg.errors.PipelineAborted) and error.__context__ is not None:
        error = error.__context__
    return error
