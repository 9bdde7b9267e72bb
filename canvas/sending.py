"""Messages that nobody may wait for: a thread of each process sends what gathers, and drops what cannot be sent."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from celery import Celery, signals

from orchestrator.host import monotonic

log = logging.getLogger("orchestrator")

LAST_WORDS = 2.0  # seconds that the end of a process may wait for what is unsent
ONCE_MORE = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}  # a retry policy of kombu's

_T = TypeVar("_T")
_WAITING = 10_000  # items that may wait for the broker; more are dropped
_BATCH = 100

_senders: weakref.WeakSet[Sender[Any]] = weakref.WeakSet()


def _last_words(**_: Any) -> None:
    """The process is about to end."""
    for sender in list(_senders):
        sender.flush(LAST_WORDS)


atexit.register(_last_words)
signals.worker_process_shutdown.connect(_last_words)  # the children of a prefork pool leave without `atexit`


class Sender(Generic[_T]):
    """Hands items to `send(producer, items)`, from a thread that begins with the first, so never across a fork.

    `what` names the items in the log.
    """

    def __init__(self, app: Celery, what: str, send: Callable[[Any, Sequence[_T]], None]) -> None:
        self._app = app
        self._what = what
        self._send = send
        self._own()
        _senders.add(self)

    def _own(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.Queue[_T] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._dropped = 0

    def put(self, items: Iterable[_T]) -> None:
        """Have these sent, in this order. Never waits, never raises."""
        if self._pid != os.getpid():
            self._own()
        try:
            for item in items:
                self._queue.put_nowait(item)
        except queue.Full:
            self._dropped += 1
        except Exception:  # whatever it is, the step that has just been committed is none of its business
            log.exception("%s are not published", self._what)
        if self._thread is None and not self._queue.empty():
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchestrator-sender", daemon=True)
                self._thread.start()

    def flush(self, seconds: float = LAST_WORDS) -> None:
        """Wait until everything is sent or dropped, for so many seconds at most."""
        if self._pid != os.getpid() or self._thread is None:
            return
        end = monotonic() + seconds
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks and (left := end - monotonic()) > 0:
                self._queue.all_tasks_done.wait(left)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                with self._app.producer_or_acquire() as producer:
                    self._send(producer, batch)
            except Exception:  # a broker that is away has many faces
                log.warning("%d %s are not published", len(batch), self._what, exc_info=True)
            finally:
                for _ in batch:
                    self._queue.task_done()
            self._tell_of_drops()

    def _tell_of_drops(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("%s were dropped %d time(s): the broker takes them too slowly", self._what, dropped)
