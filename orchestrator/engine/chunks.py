"""Chunks: a step's own events for its run's stream, gathered so that many of them cost one round trip.

The first chunk of an activation starts a thread that sends what has gathered, at most every 50 ms; what is left when
the activation ends goes with its outcome, in the same commit and before the outcome's own events.
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

_EVERY = 0.05  # seconds
_MAX_CHUNKS = 500
_MAX_TEXT = 256 * 1024  # characters

Part = tuple[int, tuple[Doc, ...]]  # its number, 1, 2, …, and its events


class Chunks:
    """The chunks of one claim. Safe to use from several threads of its step.

    `send` commits a part. Parts are numbered, so that one whose answer was lost is not written twice. One that is
    refused means that the claim is no longer ours or that the run has ended: from then on nothing is sent, and
    `on_refused` is called once, with the reason. A writer who finds the buffer full sends it before going on, and waits
    for the store, for at most `patience` seconds if it is away: that is all the back-pressure there is. `about` is the
    `extra` of log records.
    """

    def __init__(
        self,
        send: Callable[[Part], Committed | Refused],
        on_refused: Callable[[str], None],
        clock: Clock,
        patience: float,
        about: dict[str, str],
    ) -> None:
        self._send = send
        self._on_refused = on_refused
        self._clock = clock
        self._patience = patience
        self.log_context = about
        self._lock = threading.Lock()  # of what has gathered; held for moments only
        self._sending = threading.Lock()  # held while a part is on its way, so that parts keep their order
        self._gathered: list[Doc] = []
        self._text = 0
        self._number = 0
        self._sent: Part | None = None  # on its way, or sent without an answer
        self._over = False
        self._flusher: _Flusher | None = None

    def add(self, event: Doc, size: int) -> None:
        """Gather a chunk; raises `StoreUnavailable` where the buffer is full and the store is away for too long."""
        with self._lock:
            if self._over:
                return
            # Only noted: a step that yields tokens must not wait for a round trip for each of them.
            self._gathered.append(event)
            self._text += size
            full = len(self._gathered) >= _MAX_CHUNKS or self._text >= _MAX_TEXT
            if self._flusher is None:
                self._flusher = _Flusher(self)
            self._flusher.wake()
        # The writer itself sends what is too much, so a step can never be further ahead of the store than one buffer.
        if full:
            self._flush_or_wait()

    def flush(self) -> None:
        """Send what has gathered, in one round trip."""
        with self._sending:
            # Its answer was lost. Sent again under its number, it is written if it was not, and left alone if it was.
            if self._sent is not None:
                self._deliver(self._sent)
            if (part := self._next_part()) is not None:
                self._deliver(part)

    def close(self) -> tuple[Doc, ...]:
        """Take no more chunks. Returns what has not been sent, for the outcome's commit; asked again, the same."""
        self.stop()
        with self._sending:
            unknown = self._sent is not None
        # What is left goes with the outcome, and has to come after a part of which nobody knows whether it arrived.
        if unknown:
            self._flush_or_wait()
        return tuple(self._gathered)

    def stop(self) -> None:
        """Take no more chunks, and send nothing more."""
        with self._lock:
            self._over = True
        if self._flusher is not None:
            self._flusher.end()

    def drop(self) -> None:
        """Stop, and forget what has not been sent."""
        self.stop()
        # The claim is lost: whoever has the activation now streams the same step from its beginning.
        self._gathered, self._sent = [], None

    def _next_part(self) -> Part | None:
        with self._lock:
            if not self._gathered or self._over:
                return None
            self._number += 1
            self._sent = self._number, tuple(self._gathered)
            self._gathered, self._text = [], 0
            return self._sent

    def _deliver(self, part: Part) -> None:
        answer = self._send(part)
        self._sent = None
        if isinstance(answer, Refused):
            self.drop()
            self._on_refused(answer.reason)

    def _flush_or_wait(self) -> None:
        # Nothing strikes here that another attempt would help against: what the store refuses, it refuses again.
        retry_while_unavailable(self.flush, self._clock, self._patience, interruptions=0)


class _Flusher:
    """The thread that flushes while there is something to flush."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._some = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="orchestrator-chunks", daemon=True).start()

    def wake(self) -> None:
        """Let it flush soon."""
        self._some.set()

    def end(self) -> None:
        """Let the thread end; it does not flush again."""
        self._ended.set()
        self._some.set()

    def _run(self) -> None:
        # Asleep while nothing is written; then late enough for many chunks to gather, and soon enough for a reader.
        while self._some.wait() and not self._ended.wait(_EVERY):
            self._some.clear()
            try:
                self._chunks.flush()
            except StoreUnavailable as error:
                log.debug("chunks are kept until the store answers again: %s", error, extra=self._chunks.log_context)
                self._some.set()
            except Exception:  # a thread's border
                text = "chunks of a step could not be written; it goes on without them"
                log.exception(text, extra=self._chunks.log_context)
                self._chunks.drop()
