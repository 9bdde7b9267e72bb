"""One psycopg connection in libpq's pipeline mode: statements go out together, and only asking for rows waits.

psycopg's cursors can do this too, but look at every parameter's type, send each statement by itself and wait without
end for a server that has frozen. The store's statements are few and known, their parameters texts and whole numbers.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from orchestrator.host import monotonic

_BYTE_ORDER = "utf-8"
_NUMBERS = frozenset({20, 21, 23})  # bigint, smallint, integer
_BOOLEAN = 16


class Failed(Exception):
    """The server refused a statement, or the connection is broken (`sqlstate` is then empty)."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Connection(psycopg.Connection[Any]):
    """A connection that remembers what it has prepared."""

    generation = 0
    prepared: set[bytes]

    @property
    def idle(self) -> bool:
        """Whether nothing is going on."""
        in_pipeline = self.pgconn.pipeline_status != PipelineStatus.OFF
        return not self.closed and not in_pipeline and self.pgconn.transaction_status == TransactionStatus.IDLE


class Pending:
    """The answer of a statement that has been sent."""

    def __init__(self, pipe: Pipe, prepares: bytes = b"") -> None:
        self.prepares = prepares
        self.result: PGresult | None = None
        self._pipe = pipe

    def fetchall(self) -> list[Any]:
        """The rows; waits for them unless they are there."""
        if self.result is None:
            self._pipe.receive(self)
        result = self.result
        if result is None:
            raise Failed("the statement was not answered")
        readers = [_reader(result.ftype(column)) for column in range(result.nfields)]
        get = result.get_value
        return [
            tuple([reader(get(row, column)) for column, reader in enumerate(readers)]) for row in range(result.ntuples)
        ]


def _reader(oid: int) -> Callable[[bytes | None], Any]:
    if oid in _NUMBERS:
        return _number
    return _truth if oid == _BOOLEAN else _text


def _number(cell: bytes | None) -> int | None:
    return None if cell is None else int(cell)


def _truth(cell: bytes | None) -> bool:
    return cell == b"t"


def _text(cell: bytes | None) -> str | None:
    return None if cell is None else bytes(cell).decode(_BYTE_ORDER)


class Pipe:
    """One batch of statements. `patience` (s) bounds every wait for the server."""

    def __init__(self, connection: Connection, patience: float) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._patience = patience
        self._waiting: deque[Pending | None] = deque()  # None stands for a synchronisation
        self._failed: Failed | None = None
        self._pg.enter_pipeline_mode()

    def send(self, statement: bytes, parameters: Sequence[Any] = (), name: bytes = b"") -> Pending:
        """Queue a statement; under a name it is prepared at its first use."""
        values = [encoded(value) for value in parameters]
        if name and name not in self._connection.prepared:
            self._pg.send_prepare(name, statement)
            self._waiting.append(Pending(self, name))
            self._connection.prepared.add(name)  # taken out again if that fails
        answer = Pending(self)
        if name:
            self._pg.send_query_prepared(name, values)
        else:
            self._pg.send_query_params(statement, values)
        self._waiting.append(answer)
        return answer

    def receive(self, wanted: Pending) -> None:
        """Wait for an answer, and so for those before it."""
        self._pg.send_flush_request()
        self._flush()
        while self._waiting and wanted.result is None:
            self._next()
            if self._failed is not None:
                raise self._failed

    def end(self) -> None:
        """Wait for everything and leave pipeline mode; raises the first failure."""
        if self._pg.pipeline_status == PipelineStatus.OFF:
            return
        self._pg.pipeline_sync()
        self._waiting.append(None)
        self._flush()
        while self._waiting:
            self._next()
        self._pg.exit_pipeline_mode()
        if self._failed is not None:
            raise self._failed

    def _next(self) -> None:
        pending = self._waiting.popleft()
        while (result := self._result()) is not None:
            if result.status == ExecStatus.PIPELINE_SYNC:
                return
            if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
                if pending is not None:
                    pending.result = result
            else:
                self._note(result, pending)

    def _note(self, result: PGresult, pending: Pending | None) -> None:
        if pending is not None and pending.prepares:
            self._connection.prepared.discard(pending.prepares)
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_message or b"aborted").decode(_BYTE_ORDER, "replace").strip()
        if self._failed is None:
            self._failed = Failed(message, state)
        if self._pg.status == ConnStatus.BAD:
            self._waiting.clear()
            raise self._failed

    def _result(self) -> PGresult | None:
        end = monotonic() + self._patience
        while self._pg.is_busy():
            self._poll(select.POLLIN, end)
            self._pg.consume_input()
        return self._pg.get_result()

    def _flush(self) -> None:
        end = monotonic() + self._patience
        while self._pg.flush():
            self._poll(select.POLLIN | select.POLLOUT, end)
            self._pg.consume_input()

    def _poll(self, events: int, end: float) -> None:
        poller = select.poll()
        poller.register(self._pg.socket, events)
        if not poller.poll(max(0.0, end - monotonic()) * 1000):
            self._connection.close()
            raise Failed(f"no answer within {self._patience:.0f} s")


def encoded(value: Any) -> bytes | None:
    """A parameter as PostgreSQL writes it in text."""
    match value:
        case str():
            return value.encode(_BYTE_ORDER)
        case int():
            return b"%d" % value
        case None:
            return None
        case _:
            return array(value).encode(_BYTE_ORDER)


def array(values: Sequence[Any]) -> str:
    """A list of texts or numbers as PostgreSQL writes arrays."""
    if values and isinstance(values[0], int):
        return "{" + ",".join(map(str, values)) + "}"
    if not values:
        return "{}"
    escaped = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(escaped) + '"}'
