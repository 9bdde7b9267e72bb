"""Messages for which no step may wait: a thread of each process sends them, and drops those that cannot be sent."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from celery import Celery, signals

from orchestrator.background import ForkAwareThread, on_fork
from orchestrator.host import monotonic

log = logging.getLogger("orchestrator")

FLUSH_SECONDS = 2.0  # for which the end of a process may wait for unsent messages
RETRY_ONCE = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}  # a retry policy of kombu's

_T = TypeVar("_T")
_MAX_WAITING = 10_000  # items that may wait for the broker; more are dropped
_BATCH = 100

_publishers: weakref.WeakSet[BackgroundPublisher[Any]] = weakref.WeakSet()


def _flush_all(**_: Any) -> None:
    """Send the unsent messages of a process that is about to end."""
    for publisher in list(_publishers):
        publisher.flush(FLUSH_SECONDS)


atexit.register(_flush_all)
signals.worker_process_shutdown.connect(_flush_all)  # the children of a prefork pool leave without `atexit`


class BackgroundPublisher(Generic[_T]):
    """Hands items to `send(producer, items)`, from a thread that starts with the first item.

    `what` names the items in the log.
    """

    def __init__(self, app: Celery, what: str, send: Callable[[Any, Sequence[_T]], None]) -> None:
        self._app = app
        self._what = what
        self._send = send
        self._thread = ForkAwareThread(self._run, "orchestrator-publisher")
        self.reset_after_fork()
        on_fork(self)
        _publishers.add(self)

    def reset_after_fork(self) -> None:
        """Leave the parent's items to the parent."""
        # Sent by both processes, they would come twice.
        self._queue: queue.Queue[_T] = queue.Queue(_MAX_WAITING)
        self._dropped = 0
        self._all_sent = threading.Condition()
        self._unsent = 0  # items that were put and are neither sent nor dropped

    def put(self, items: Iterable[_T]) -> None:
        """Send these in the background, in this order. Never waits, never raises."""
        try:
            for item in items:
                self._count(1)
                try:
                    self._queue.put_nowait(item)
                except BaseException:
                    self._count(-1)
                    raise
        except queue.Full:
            self._dropped += 1
        except Exception:  # the step that has just been committed must not fail by any error here
            log.exception("%s are not published", self._what)
        if not self._queue.empty():
            self._thread.ensure_started()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is sent or dropped, for so many seconds at most."""
        if not self._thread.is_started:
            return
        end = monotonic() + seconds
        # Counted here: what a queue knows of it is its own affair, and gevent's knows it by other names.
        with self._all_sent:
            while self._unsent and (left := end - monotonic()) > 0:
                self._all_sent.wait(left)

    def _count(self, items: int) -> None:
        with self._all_sent:
            self._unsent += items
            if not self._unsent:
                self._all_sent.notify_all()

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                with self._app.producer_or_acquire() as producer:
                    self._send(producer, batch)
            except Exception:  # a broker that is away raises many kinds of errors
                log.warning("%d %s are not published", len(batch), self._what, exc_info=True)
            finally:
                self._count(-len(batch))
            self._report_drops()

    def _report_drops(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("%s were dropped %d time(s): the broker takes them too slowly", self._what, dropped)
