"""The evented runtime: every dispatch becomes a message on the app's broker."""

from __future__ import annotations

import heapq
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from celery import Celery, states
from celery.backends.base import DisabledBackend
from celery.exceptions import TaskRevokedError
from kombu.exceptions import BatchPublishError, OperationalError

from orchestrator.canvas.messages import message
from orchestrator.canvas.monitoring import Monitor
from orchestrator.codec import as_json
from orchestrator.core.changes import Dispatch
from orchestrator.core.records import Header, RunState
from orchestrator.engine.logs import about
from orchestrator.engine.observe.observer import use_run_span
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable
from orchestrator.host import monotonic

log = logging.getLogger("orchestrator")

_BATCH = 50  # messages that go to the broker together, where its transport can


class CeleryRuntime:
    """Publishes dispatches. One whose moment is near gets a timer in this process; the ticker sees to the others."""

    name = "celery"

    def __init__(self, app: Celery, settings: Settings, adopt: Callable[[Any], None], monitor: Monitor) -> None:
        self._app = app
        self._monitor = monitor
        self._adopt = adopt
        self._near = 2 * settings.tick_seconds * 1000
        self._timers = Timers(self._later)

    def adopt(self, workflow: Any) -> None:
        """The workflow becomes a task of the app, and the app's tasks among its entries learn to be steps."""
        self._adopt(workflow)

    def forget(self, run_id: str) -> None:
        """Drop the result that the backend has of an earlier end: it would never be replaced."""
        if not isinstance(self._app.backend, DisabledBackend):
            self._app.backend.forget(run_id)

    def publish(self, header: Header, dispatches: Sequence[Dispatch]) -> None:
        """Send a message for each dispatch whose moment has come. Raises `BrokerUnavailable`."""
        now = [dispatch for dispatch in dispatches if not dispatch.delay]
        for dispatch in dispatches:
            if 0 < dispatch.delay <= self._near:
                self._timers.add(dispatch.delay / 1000, header, dispatch)
        if not now:
            return
        try:
            with use_run_span(header), self._app.producer_or_acquire() as producer:
                self._send_all(producer, header, now)
        except (OperationalError, OSError) as error:
            text = f"the broker does not answer: {error}"
            raise BrokerUnavailable(text, run_id=header.run_id, workflow_id=header.workflow_id) from error

    def _send_all(self, producer: Any, header: Header, dispatches: Sequence[Dispatch]) -> None:
        if len(dispatches) > 1:
            try:
                with producer.batch(_BATCH):  # small: the first are at work while the last are written
                    self._send(producer, header, dispatches)
                return
            except BatchPublishError as error:
                # How many have arrived is unknown, and a message too many is harmless.
                log.warning("run %s: %s; each message is sent by itself", header.run_id, error, extra=about(header))
        self._send(producer, header, dispatches)

    def _send(self, producer: Any, header: Header, dispatches: Sequence[Dispatch]) -> None:
        for dispatch in dispatches:
            made = message(self._app, header, dispatch)
            self._app.send_task(made.name, made.args, producer=producer, add_to_parent=False, **made.options)

    def _later(self, header: Header, dispatch: Dispatch) -> None:
        try:
            self.publish(header, [Dispatch(dispatch.path, dispatch.seq, dispatch.route)])
        except BrokerUnavailable as error:
            log.warning("run %s: %s; the ticker will publish it", header.run_id, error, extra=about(header))

    def seen(self, header: Header) -> None:
        """Show in monitors that the run goes on, or waits."""
        self._monitor.seen(header)

    def ended(self, header: Header, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Write the end of the run into the app's result backend, under the run's id, and show it in monitors."""
        result = cache(result)
        self._deliver(header, result, error)
        self._monitor.ended(header, result, error)

    def _deliver(self, header: Header, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        backend = self._app.backend
        if isinstance(backend, DisabledBackend):
            return
        match RunState(header.status):
            case RunState.SUCCESS:
                backend.store_result(header.run_id, as_json(result()), states.SUCCESS)
            case RunState.CANCELED:
                backend.store_result(header.run_id, TaskRevokedError("canceled"), states.REVOKED)
            case _:
                failure = error() or RuntimeError(f"run {header.run_id} has failed")
                backend.store_result(header.run_id, failure, states.FAILURE)


class Timers:
    """One thread per process that calls back when a moment has come; begun with the first, never across a fork."""

    def __init__(self, call: Callable[[Header, Dispatch], None]) -> None:
        self._call = call
        self._own()

    def _own(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Header, Dispatch]] = []
        self._count = 0
        self._thread: threading.Thread | None = None

    def add(self, seconds: float, header: Header, dispatch: Dispatch) -> None:
        """Call back in so many seconds."""
        if self._pid != os.getpid():
            self._own()
        with self._changed:
            self._count += 1
            heapq.heappush(self._heap, (monotonic() + seconds, self._count, header, dispatch))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchestrator-timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > monotonic():
                    self._changed.wait(self._heap[0][0] - monotonic() if self._heap else None)
                _, _, header, dispatch = heapq.heappop(self._heap)
            try:
                self._call(header, dispatch)
            except Exception:  # the thread must outlive whatever one timer finds
                log.exception("a timer of run %s failed", header.run_id, extra=about(header))
