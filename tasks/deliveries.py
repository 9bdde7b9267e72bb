"""The messages that a worker has taken, as its main process knows them: none is left behind by a child that has ended.

The pool tells of a child's end late (it looks for dead ones every few seconds, and for their results some seconds
more), and at a shutdown not at all. So a thread looks by itself, for as long as children are at work. All that is done
about an end talks to the store, in threads of their own: the main process has a broker to listen to.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.canvas.messages import Envelope, envelope_of_message
from orchestrator.canvas.processes import has_ended, wait_until_ended
from orchestrator.canvas.task_carrier import revoked
from orchestrator.engine.abandoned import Delivery, fail_by_limit, give_back
from orchestrator.engine.executions import UnknownGraph, end_sending
from orchestrator.engine.executor import Executor
from orchestrator.errors import StoreUnavailable
from orchestrator.green import is_green

log = logging.getLogger("orchestrator")

_LOOK = 0.25  # seconds between two looks at the children that are at work
_DYING = 5.0  # seconds that a child which is being killed has for it; then its claim is ended all the same
_CLOSING = 5.0  # seconds that a worker which stops waits for what is being given back


def delivery_id(message_id: str, hostname: str | None, pid: int) -> str:
    """Return the id of a delivery. A message may come twice: who works on one copy has nothing to do with the other."""
    return f"{message_id}@{hostname}:{pid}"


@dataclass(frozen=True, slots=True)
class _Held:
    """A delivery, and who is at work on it."""

    delivery: Delivery
    pid: int
    # the thread that has taken it, which is the one at work where the pool has none of its own
    thread: int

    @property
    def is_child(self) -> bool:
        return self.pid != os.getpid()


class Deliveries:
    """The deliveries of this app's steps that its workers in this process, or their children, have not ended.

    `executor` returns the one of the app, which is there by the time that a delivery is.
    """

    def __init__(self, executor: Callable[[], Executor], is_stopping: Callable[[], bool]) -> None:
        self._executor = executor
        self._is_stopping = is_stopping
        self._lock = threading.Lock()
        # By the request of each delivery, not by the message's id: of two copies in this worker one ends, the other
        # is at work.
        self._held: dict[Any, _Held] = {}
        self._has_children = threading.Event()
        self._watcher: threading.Thread | None = None
        self._threads: list[threading.Thread] = []

    def begin(self, request: Any, pid: int) -> None:
        """Note that a process has taken this message."""
        envelope = envelope_of_message(request)
        if envelope is None:
            return
        # Pools of greenlets have no processes, and give the number of the greenlet.
        pid = os.getpid() if is_green() else pid
        name = delivery_id(request.id, request.hostname, pid)
        held = _Held(Delivery(envelope.run_id, envelope.path, name), pid, threading.get_ident())
        with self._lock:
            self._held[request] = held
            if held.is_child:
                self._has_children.set()
                if self._watcher is None:
                    self._watcher = threading.Thread(target=self._watch, name="orchestrator-watcher", daemon=True)
                    self._watcher.start()

    def end(self, request: Any) -> None:
        """Note that the message's work has ended, or its attempt, by the process that did it."""
        self._take(request)

    def lose(self, request: Any) -> None:
        """Give back what a dead process had claimed. Where the worker stops it, no attempt counts as abandoned."""
        self._give_back(request, is_abandoned=not self._is_stopping())

    def limit(self, request: Any, error: Exception) -> None:
        """End the attempt of a process that is killed for its time limit, once it is dead."""
        held = self._take(request)
        if held is None:
            return
        if held.is_child and has_ended(held.pid):
            # It had ended before: nobody has outrun anything.
            self._start(held.delivery.run_id, lambda: give_back(self._executor(), held.delivery))
            return

        def fail() -> None:
            # Until then it might still be at work beside the attempt that follows.
            wait_until_ended(held.pid, _DYING)
            fail_by_limit(self._executor(), held.delivery, error)

        self._start(held.delivery.run_id, fail)

    def terminate(self, request: Any) -> None:
        """End the step of an existing task whose process somebody kills. A step of ours runs again."""
        envelope = envelope_of_message(request)
        if envelope is not None and envelope.sending:
            self.revoke(envelope, str(request.id), "terminated", self._take(request))

    def revoke(self, envelope: Envelope, task_id: str, why: str, held: _Held | None = None) -> None:
        """End the step of an existing task that somebody has revoked."""

        def end() -> None:
            if held is not None:
                wait_until_ended(held.pid, _DYING)
            run_id, path, number = envelope.run_id, envelope.path, envelope.sending
            with suppress(UnknownGraph):  # who looks after it finds that it was revoked
                end_sending(self._executor(), run_id, path, number, task_id, lambda: revoked(task_id, why))

        self._start(envelope.run_id, end)

    def close(self) -> None:
        """Give back what is left now that the pool has stopped, and wait for all that is being given back."""
        with self._lock:
            left = dict(self._held)
        for request, held in left.items():
            # Threads go on until they have ended, whatever becomes of their pool.
            is_gone = has_ended(held.pid) is not False if held.is_child else held.thread == threading.get_ident()
            if is_gone:
                self._give_back(request, is_abandoned=False)
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_CLOSING)

    def _give_back(self, request: Any, *, is_abandoned: bool) -> None:
        held = self._take(request)
        if held is not None:
            self._start(
                held.delivery.run_id, lambda: give_back(self._executor(), held.delivery, is_abandoned=is_abandoned)
            )

    def _take(self, request: Any) -> _Held | None:
        with self._lock:
            return self._held.pop(request, None)

    def _watch(self) -> None:
        pause = threading.Event()
        while self._has_children.wait():
            with self._lock:
                children = {request: held.pid for request, held in self._held.items() if held.is_child}
                if not children:
                    self._has_children.clear()
            for request, pid in children.items():
                # A child that has ended well tells first: what is given back then is nothing.
                if has_ended(pid):
                    self.lose(request)
            pause.wait(_LOOK)

    def _start(self, run_id: str, work: Callable[[], None]) -> None:
        def work_and_log() -> None:
            try:
                work()
            except StoreUnavailable as error:
                text = "what a dead process had claimed of run %s goes on when its lease is over: %s"
                log.warning(text, run_id, error, extra={"run_id": run_id})
            except Exception:  # the end of a thread; the lease brings back what this could not
                text = "what a dead process had claimed of run %s was not given back"
                log.exception(text, run_id, extra={"run_id": run_id})

        thread = threading.Thread(target=work_and_log, name="orchestrator-abandon", daemon=True)
        with self._lock:
            self._threads = [*(known for known in self._threads if known.is_alive()), thread]
            thread.start()
