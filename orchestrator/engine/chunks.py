"""Chunks: a step's own events for its run's stream, gathered so that many of them cost one round trip.

The first chunk of an attempt starts a thread that sends the gathered chunks, at most every 50 ms. Chunks that are left
when the attempt ends go with its outcome, in the same commit and before the outcome's own events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from orchestrator.engine.retry import retry_while_unavailable
from orchestrator.errors import StoreUnavailable
from orchestrator.ports import Clock
from orchestrator.rules.change import Committed, Doc, Refused

log = logging.getLogger("orchestrator")

_FLUSH_SECONDS = 0.05  # long enough for many chunks to gather, soon enough for a reader
_MAX_CHUNKS = 500
_MAX_TEXT = 256 * 1024  # characters

Flush = tuple[int, tuple[Doc, ...]]  # its number, 1, 2, …, and its events


class Chunks:
    """The chunks of one claim. Safe to use from several threads of its step.

    `send` commits a flush. Flushes are numbered, so that a flush is not written twice when its answer did not arrive. A
    refusal means that the lease is gone or that the run has ended: from then on nothing is sent, and `on_refused` is
    called once, with the reason. A step that finds the buffer full sends it before it goes on, and waits at most
    `patience` seconds for a store that is away. That is all the back-pressure there is.
    """

    def __init__(
        self,
        send: Callable[[Flush], Committed | Refused],
        on_refused: Callable[[str], None],
        clock: Clock,
        patience: float,
        log_context: dict[str, str],
    ) -> None:
        self._send = send
        self._on_refused = on_refused
        self._clock = clock
        self._patience = patience
        self.log_context = log_context
        self._lock = threading.Lock()  # of the gathered chunks; held for moments only
        self._sending = threading.Lock()  # held while a flush is on its way, so that flushes keep their order
        self._gathered: list[Doc] = []
        self._text = 0
        self._number = 0
        self._unconfirmed: Flush | None = None  # on its way, or sent without an answer
        self._is_closed = False
        self._flusher: _Flusher | None = None

    def add(self, event: Doc, size: int) -> None:
        """Gather a chunk. Raises `StoreUnavailable` where the buffer is full and the store is away for too long."""
        with self._lock:
            if self._is_closed:
                return
            # No round trip here: a step that yields tokens must not wait for one for each of them.
            self._gathered.append(event)
            self._text += size
            full = len(self._gathered) >= _MAX_CHUNKS or self._text >= _MAX_TEXT
            if self._flusher is None:
                self._flusher = _Flusher(self)
            self._flusher.wake()
        # The step itself sends a full buffer, so it can never be further ahead of the store than one buffer.
        if full:
            self._flush_or_wait()

    def flush(self) -> None:
        """Send the gathered chunks, in one round trip."""
        with self._sending:
            # Under its old number: the store writes the flush if it has not yet, and else ignores it.
            if self._unconfirmed is not None:
                self._send_flush(self._unconfirmed)
            if (flush := self._next_flush()) is not None:
                self._send_flush(flush)

    def close(self) -> tuple[Doc, ...]:
        """Take no more chunks. Returns those that have not been sent, for the outcome's commit. Idempotent."""
        self.stop()
        with self._sending:
            is_unconfirmed = self._unconfirmed is not None
        # The other chunks go with the outcome. They have to come after a flush that may or may not have arrived.
        if is_unconfirmed:
            self._flush_or_wait()
        return tuple(self._gathered)

    def stop(self) -> None:
        """Take no more chunks, and send nothing more."""
        with self._lock:
            self._is_closed = True
        if self._flusher is not None:
            self._flusher.end()

    def drop(self) -> None:
        """Stop, and forget the chunks that have not been sent."""
        self.stop()
        # The lease is gone: the worker that has the activation now streams the step from its beginning.
        self._gathered, self._unconfirmed = [], None

    def _next_flush(self) -> Flush | None:
        with self._lock:
            if not self._gathered or self._is_closed:
                return None
            self._number += 1
            self._unconfirmed = self._number, tuple(self._gathered)
            self._gathered, self._text = [], 0
            return self._unconfirmed

    def _send_flush(self, flush: Flush) -> None:
        answer = self._send(flush)
        self._unconfirmed = None
        if isinstance(answer, Refused):
            self.drop()
            self._on_refused(answer.reason)

    def _flush_or_wait(self) -> None:
        # Only an unavailable store is worth another try. An error of another kind is the caller's to see.
        retry_while_unavailable(self.flush, self._clock, self._patience, interruptions=0)


class _Flusher:
    """The thread that flushes while there is something to flush."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._has_chunks = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="orchestrator-chunks", daemon=True).start()

    def wake(self) -> None:
        """Flush soon."""
        self._has_chunks.set()

    def end(self) -> None:
        """End the thread without another flush."""
        self._ended.set()
        self._has_chunks.set()

    def _run(self) -> None:
        # The thread sleeps while the step writes nothing. After the first chunk it lets others gather.
        while self._has_chunks.wait() and not self._ended.wait(_FLUSH_SECONDS):
            self._has_chunks.clear()
            try:
                self._chunks.flush()
            except StoreUnavailable as error:
                log.debug("chunks are kept until the store answers again: %s", error, extra=self._chunks.log_context)
                self._has_chunks.set()
            except Exception:  # the thread's boundary: the step goes on, whatever has gone wrong here
                text = "chunks of a step could not be written; it goes on without them"
                log.exception(text, extra=self._chunks.log_context)
                self._chunks.drop()
