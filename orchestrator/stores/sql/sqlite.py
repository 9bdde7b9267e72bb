"""SQLite: one file, several processes.

A process has two connections, one that writes and one that reads, each used by one thread at a time: SQLite lets one
transaction write anyway, and in WAL mode readers never wait for it. Both are closed before the process forks: SQLite
keeps its locks by process and loses track of them when a child inherits an open file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import PayloadTooLarge
from orchestrator.host import SystemClock
from orchestrator.stores.sql import queries
from orchestrator.stores.sql.link import UNWRITABLE, Answer, Conflict, ConnectionLost, Connections, Row, T, Work
from orchestrator.stores.sql.schema import check_format, upgrade

BUSY = 5.0  # seconds that SQLite itself waits for another process
_CONFLICTS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_SCHEMA)
# The data or the statement is at fault.
_REFUSALS = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_MISUSE,
)
_OWNER_ONLY = 0o600


class SerialConnection:
    """One connection, used by one thread at a time and opened when it is needed."""

    def __init__(self, path: str) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Return the connection."""
        if self._connection is None:
            self._connection = connect(self._path)
        return self._connection

    def close(self) -> None:
        """Close the connection if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connect(path: str) -> sqlite3.Connection:
    """Open a connection on which no transaction begins or ends by itself."""
    _make_private(path)
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = NORMAL").fetchall()
        connection.execute("PRAGMA journal_size_limit = 67108864").fetchall()
        connection.create_function("orchestrator_now", 0, SystemClock().now)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: str) -> None:
    """Make a file that is not there yet for its owner alone: SQLite would let everybody read who may by the umask.

    SQLite gives the files beside it (`-wal`, `-shm`) the same mode. A file that is there keeps the mode it was given.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
    except OSError:
        return  # it is there, or SQLite says why it cannot be


class _Tx:
    """Statements are carried out as they are sent."""

    def __init__(self, connection: sqlite3.Connection, dialect: queries.Sqlite) -> None:
        self._connection = connection
        self._dialect = dialect

    def send(self, query: str, **parameters: Any) -> Answer:
        for name, value in parameters.items():
            if isinstance(value, list):
                parameters[name] = json.dumps(value)
        return _Rows(self._connection.execute(self._dialect.write(query), parameters).fetchall())

    def send_with_writes(self, query: str, **parameters: Any) -> Answer:
        return self.send(query, **parameters)

    def write(self, query: str, **parameters: Any) -> None:
        self.send(query, **parameters)

    def put(self, query: str, rows: Sequence[Row]) -> None:
        self._connection.executemany(self._dialect.write(query), rows)


class _Rows:
    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        return self._rows


class SqliteConnections(Connections):
    """The connections of one process to one file."""

    def __init__(self, url: URL, shown: str) -> None:
        if not url.database or url.database == ":memory:":
            raise ValueError("SQLite needs a file, as in sqlite:///path/to/file.db")
        if url.query:
            raise ValueError(f"a store in SQLite has no options in its URL: leave {', '.join(url.query)} away")
        super().__init__(shown)
        self._path = url.database
        self._dialect = queries.Sqlite()
        self._abandoned: list[SerialConnection] = []
        self._frozen: list[SerialConnection] = []
        self._open_connections()

    def _open_connections(self) -> None:
        self._writer, self._reader = SerialConnection(self._path), SerialConnection(self._path)

    def close(self) -> None:
        for one in (self._writer, self._reader):
            with one.lock:
                one.close()

    def before_fork(self) -> None:
        for one in (self._writer, self._reader):
            # Where another thread is in a long transaction, the connection stays open; the child will not touch it.
            if one.lock.acquire(timeout=2 * BUSY):
                self._frozen.append(one)
                one.close()

    def after_fork(self) -> None:
        frozen, self._frozen = self._frozen, []
        for one in frozen:
            one.lock.release()

    def _abandon(self) -> None:
        self._abandoned += [self._writer, self._reader]  # kept: to close them would be to use them
        self._frozen = []
        self._open_connections()

    def _prepare(self) -> None:
        try:
            connection = connect(self._path)
            try:
                if not self._is_current(connection):
                    upgrade("sqlite", connection, lambda: self._lock_schema(connection))
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._read_error(error) from error
        except DBAPIError as error:
            raise self._read_error(error.orig or error) from error

    def _is_current(self, connection: sqlite3.Connection) -> bool:
        try:
            found = connection.execute(self._dialect.write(queries.FORMAT)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return False
            raise
        return check_format(found, self.shown)

    def _lock_schema(self, connection: sqlite3.Connection) -> bool:
        connection.execute("BEGIN EXCLUSIVE")
        return not self._is_current(connection)  # another process may have been faster

    def _attempt(self, work: Work[T], write: bool) -> T:
        used = self._writer if write else self._reader
        with used.lock:
            try:
                connection = used.open()
                try:
                    return self._run(connection, work, write)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                used.close()  # its state is not known
                raise self._read_error(error) from error
            except UNWRITABLE as error:
                raise self.refused(error) from error

    def _run(self, connection: sqlite3.Connection, work: Work[T], write: bool) -> T:
        if connection.in_transaction:  # a time limit struck while the last one was being cleaned up
            connection.execute("ROLLBACK")
        if write:
            connection.execute("BEGIN IMMEDIATE")
        finish = work(_Tx(connection, self._dialect))
        if write:
            connection.execute("COMMIT")
        return finish()

    def _read_error(self, error: BaseException) -> Exception:
        text = str(error)
        # The last byte is the kind of the error, the others say more of it.
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _CONFLICTS:
            return Conflict(text)
        if code == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
            return PayloadTooLarge(f"SQLite does not take the value: {text}")
        if code == sqlite3.SQLITE_IOERR:
            return ConnectionLost(text)
        # Without a code it is Python's own word, about what it was given.
        if code in _REFUSALS or (not code and isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError)):
            return self.refused(error)
        return self.unavailable("does not work", error)


def has_table(path: Path, name: str) -> bool:
    """Return True if the file is a database with a table of this name. It is only read."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("select 1 from sqlite_master where name = ?", (name,)).fetchall())
    except sqlite3.Error:
        return False
