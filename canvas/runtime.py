"""The evented runtime: every dispatch becomes a message on the app's broker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from celery import Celery, states
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError
from kombu.exceptions import OperationalError

from orchestrator.background import TimerThread
from orchestrator.canvas.compat import BatchPublishError, send_together
from orchestrator.canvas.deployment import message_serializer
from orchestrator.canvas.messages import message
from orchestrator.canvas.monitoring import Monitor
from orchestrator.canvas.outbox import MESSAGE_ERRORS, Outbox, broker_error
from orchestrator.canvas.task_carrier import CeleryTasks
from orchestrator.codec import as_json
from orchestrator.engine.logs import log_context
from orchestrator.engine.observe.observer import use_run_span
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader, StoredStatus

log = logging.getLogger("orchestrator")

_BATCH = 50  # messages that go to the broker together, where its transport can


class CeleryRuntime:
    """Publishes dispatches. One whose moment is near gets a timer in this process; the scheduler sweeps the others."""

    name = "celery"
    is_shared = True

    def __init__(self, app: Celery, settings: Settings, monitor: Monitor) -> None:
        self._app = app
        self._monitor = monitor
        # A configuration by which no worker takes our messages is refused before this is made.
        self._serializer = message_serializer(app.conf) or "json"
        self._near = 2 * settings.tick_seconds * 1000
        self.tasks = CeleryTasks(app, self._serializer)
        self._outbox = Outbox(app, self._send_traced)
        # A timer that dies with its process does no harm: the stored one is still swept.
        self._timers: TimerThread[tuple[RunHeader, Dispatch]] = TimerThread(self._publish_due, "orchestrator-timers")

    @property
    def keeps_results(self) -> bool:
        """True if the app has a result backend."""
        try:
            return not isinstance(self._app.backend, DisabledBackend)
        except Exception:  # noqa: BLE001
            # One that cannot be made here, as a table of Django's before its setup: a worker can, by a later attempt.
            return True

    def discard_result(self, run_id: str) -> None:
        """Delete what the backend has under this id: most backends never replace a success."""
        if self.keeps_results:
            # Some keep no results that could be asked for later, and so have nothing to forget.
            with suppress(NotImplementedError):
                self._app.backend.forget(run_id)

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch], *, goes_on: bool = False) -> None:
        """Send a message for each dispatch whose moment has come. Raises `BrokerUnavailable`."""
        now = self._keep_timers(header, dispatches)
        if not now:
            return
        for is_last in (False, True):
            try:
                with use_run_span(header), self._app.producer_or_acquire() as producer:
                    self._send_all(producer, header, now)
                return
            except SoftTimeLimitExceeded:
                raise
            except Exception as error:
                # Transports raise whatever they come across, and whoever wanted to tell has to know that nobody was
                # told. A connection that breaks has many faces, so what is not plain is tried once more.
                is_away = isinstance(error, OperationalError | OSError)
                if is_last or is_away or isinstance(error, MESSAGE_ERRORS):
                    raise broker_error(error, header, is_refused=not is_away) from error
                log.debug("run %s: %r; its messages are sent once more", header.run_id, error)

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        """Send the messages of many runs together, on a connection on which no wait is long."""
        now = [(header, self._keep_timers(header, dispatches)) for header, dispatches in told]
        sent = iter(self._outbox.publish([one for one in now if one[1]]))
        return [next(sent) if dispatches else None for _, dispatches in now]

    def _keep_timers(self, header: RunHeader, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
        """Keep timers of those whose moment is near, and return those whose moment has come."""
        for dispatch in dispatches:
            if 0 < dispatch.delay <= self._near:
                self._timers.add(dispatch.delay, (header, dispatch))
        return [dispatch for dispatch in dispatches if not dispatch.delay]

    def _send_all(self, producer: Any, header: RunHeader, dispatches: Sequence[Dispatch]) -> None:
        if len(dispatches) > 1:
            try:
                with send_together(producer, _BATCH):  # small: the first are at work while the last are written
                    self._send(producer, header, dispatches)
                return
            except BatchPublishError as error:
                # How many have arrived is unknown, and a message too many is harmless.
                log.warning(
                    "run %s: %s; each message is sent by itself", header.run_id, error, extra=log_context(header)
                )
        self._send(producer, header, dispatches)

    def _send_traced(self, producer: Any, header: RunHeader, dispatches: Sequence[Dispatch]) -> None:
        """Send as the scheduler does it: it tries again by itself, so that the broker's client must not."""
        with use_run_span(header):
            self._send(producer, header, dispatches, retry=False)

    def _send(self, producer: Any, header: RunHeader, dispatches: Sequence[Dispatch], **options: Any) -> None:
        for dispatch in dispatches:
            made = message(self._app, header, dispatch, self._serializer)
            self._app.send_task(made.name, made.args, producer=producer, add_to_parent=False, **made.options, **options)

    def _publish_due(self, timer: tuple[RunHeader, Dispatch]) -> None:
        header, dispatch = timer
        try:
            self.publish(header, [Dispatch(dispatch.path, dispatch.seq, dispatch.route)])
        except BrokerUnavailable as error:
            log.warning("run %s: %s; the scheduler will publish it", header.run_id, error, extra=log_context(header))
        except Exception:  # the thread must outlive an error of a single timer
            log.exception("a timer of run %s failed", header.run_id, extra=log_context(header))

    def on_progress(self, header: RunHeader) -> None:
        """Show in monitors that the run goes on, or waits."""
        self._monitor.on_progress(header)

    def on_end(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Show the end of the run in monitors."""
        self._monitor.on_end(header, result, error)

    def deliver(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Write the end of the run into the app's result backend, under the run's id."""
        if not self.keeps_results:
            return
        # Whatever is there is of an earlier end: of a run that was deleted, or from before a time travel.
        self.discard_result(header.run_id)
        self._store_result(header, result, error)

    def _store_result(
        self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]
    ) -> None:
        backend = self._app.backend
        if isinstance(backend, DisabledBackend | RPCBackend):
            return  # told of when the application is composed
        match StoredStatus(header.status):
            case StoredStatus.SUCCESS:
                backend.store_result(header.run_id, as_json(result()), states.SUCCESS)
            case StoredStatus.CANCELED:
                backend.store_result(header.run_id, TaskRevokedError("canceled"), states.REVOKED)
            case _:
                failure = error() or RuntimeError(f"run {header.run_id} has failed")
                backend.store_result(header.run_id, failure, states.FAILURE)

    # --- no-ops: workers execute the runs, and the scheduler sweeps their timers -----------------------------------

    def register_workflow(self, workflow: Any) -> None:
        """Do nothing: the app's tasks are made when the orchestrator is, which may be long before this."""

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Do nothing: workers execute the run."""

    def drive_in_background(self, run_id: str) -> None:
        """Do nothing: workers execute the run."""

    def lend_thread(self, run_id: str, timeout: float | None = None) -> None:
        """Do nothing: workers execute the run."""

    def wake(self, run_id: str) -> None:
        """Do nothing: workers learn of the change when they renew their leases."""

    def failure_of(self, run_id: str) -> None:
        """Return None: where a worker dies, another goes on with the run."""
        return

    def arm_timeouts(self, run_id: str) -> None:
        """Do nothing: the scheduler ends waits whose time is over."""

    def close(self) -> None:
        """Close the scheduler's connection. Timers that are near still fire while the process lives."""
        self._outbox.close()
