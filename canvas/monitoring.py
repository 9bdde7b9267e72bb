"""Runs in monitors such as Flower: Celery's own task events, sent under the run's id.

Steps are tasks and have events anyway. A run is none: its row is made here, by the process that runs its steps or
ends it, under the name of the running worker, since any other name would add a worker to what monitors show. Nothing is
sent, and nothing is read, unless the worker's task events are enabled. An event that cannot be sent is dropped.

Monitors keep the highest state of a task that they have seen, so a run could never leave SUSPENDED or FAILURE again.
Only after `task-retried` do they take the next state as it comes. So that event goes ahead where a run leaves such a
state.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery import Celery
from celery.exceptions import Ignore
from celery.utils.imports import symbol_by_name
from celery.utils.saferepr import saferepr
from celery.worker.request import Request

from orchestrator.engine.logs import log_context
from orchestrator.engine.outcome import AttemptOutcome
from orchestrator.errors import StoreUnavailable
from orchestrator.host import SystemClock, monotonic
from orchestrator.rules.model import ActivationStatus, RunHeader, StoredStatus

log = logging.getLogger("orchestrator")

_OWN_MODULES = "orchestrator."
_MAX_TEXT = 1024  # characters of a result or an error, as of any Celery task
_MAX_TRACE = 8192  # characters of a stack, its end
_MUTE_SECONDS = 30.0  # seconds without events once the broker did not take one: a step waits for it no more often
_MAX_REMEMBERED = 10_000  # runs whose row this process knows to be there
_RETRY_ONCE = {"max_retries": 1, "interval_start": 0, "interval_max": 0}  # for a connection that the broker has closed


class Monitor:
    """Keeps one row per run. `workers` returns the names of live workers, for a process that is none (a caller's)."""

    def __init__(self, app: Celery, workers: Callable[[], Sequence[str]]) -> None:
        self._app = app
        self._workers = workers
        self._on = RawValue("b", 0)  # shared with the children of a prefork pool
        self._hostname = ""
        self._shown: dict[tuple[str, int, int], None] = {}
        self._mute_until = 0.0

    def attend(self, hostname: str) -> None:
        """Take this process for a worker, or for one that will be forked from it."""
        self._hostname = hostname

    def switch(self, on: bool) -> None:
        """Note that the worker's task events have been enabled or disabled."""
        self._on.value = on

    @property
    def is_enabled(self) -> bool:
        """True if events are sent. In a process that is no worker the app's setting decides."""
        on = self._on.value if self._hostname else self._app.conf.worker_send_task_events
        return bool(on) and monotonic() >= self._mute_until

    def on_progress(self, header: RunHeader) -> None:
        """Show a run that goes on here, or has settled without ending."""
        if not self.is_enabled:
            return
        match header.status:
            case StoredStatus.RUNNING:
                self._send_running(header)
            case StoredStatus.SUSPENDED | StoredStatus.PAUSED:
                self._send(header, ("task-suspended", {"result": _waiting_counts(header)}))
            case _:
                pass

    def _send_running(self, header: RunHeader) -> None:
        """Emit once per (run, generation, settle count) and process; idempotent for monitors."""
        stretch = (header.run_id, header.generation, header.settle_count)
        if stretch in self._shown:
            return
        if len(self._shown) >= _MAX_REMEMBERED:
            self._shown.clear()
        self._shown[stretch] = None
        fresh = {"result": None, "exception": None, "traceback": None, "runtime": None, "retried": None}
        times = {"received": header.created_at / 1000, "started": header.started_at / 1000}
        retried: list[tuple[str, dict[str, Any]]] = (
            [("task-retried", {})] if header.generation or header.settle_count else []
        )
        self._send(header, *retried, ("task-received", times), ("task-started", {**times, **fresh}))

    def on_end(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Show a run that has ended, or whose end is about to be committed."""
        if not self.is_enabled:
            return
        match header.status:
            case StoredStatus.SUCCESS:
                event = ("task-succeeded", {"result": saferepr(result(), _MAX_TEXT), "runtime": _seconds(header)})
                self._send(header, event)
            case StoredStatus.CANCELED:
                revoked = {"terminated": False, "signum": None, "expired": False, "retried": None, "result": None}
                self._send(header, ("task-retried", {}), ("task-revoked", revoked))
            case _:
                failure = {"exception": saferepr(error(), _MAX_TEXT), "traceback": None, "runtime": _seconds(header)}
                self._send(header, ("task-failed", failure))

    def _send(self, header: RunHeader, *events: tuple[str, dict[str, Any]]) -> None:
        common = {
            "uuid": header.run_id,
            "name": header.workflow_id,
            "args": "()",
            "kwargs": f"{{'run': '{header.run_id}'}}",  # what monitors search
            "root_id": header.run_id,
            "parent_id": None,
            "retries": header.generation,
        }
        try:
            hostname = self._hostname or next(iter(self._workers()), "")
            if not hostname:
                return
            with self._app.events.default_dispatcher(hostname=hostname) as dispatcher:
                for kind, fields in events:
                    dispatcher.send(kind, retry=True, retry_policy=_RETRY_ONCE, **common, **fields)
        except Exception:  # a broker that is away raises many kinds of errors
            self._mute_until = monotonic() + _MUTE_SECONDS
            text = "run %s is not shown in monitors, and no run is for the next %d s"
            log.warning(text, header.run_id, _MUTE_SECONDS, exc_info=True, extra=log_context(header))


def _waiting_counts(header: RunHeader) -> str:
    counts = {"suspended": header.suspended, "waiting for an event": header.waiting, "paused": header.paused}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _seconds(header: RunHeader) -> float:
    return max(0.0, (SystemClock().now() - header.started_at) / 1000)


# --- the tasks of steps ----------------------------------------------------------------------------------------------


class AttemptEnded(Ignore):  # type: ignore[misc]  # Celery has no types
    """Ends the task of a step whose attempt has failed, so that monitors show the failure.

    For Celery the task has not failed, because its outcome is committed: no result is stored, no errback called.
    """

    def __init__(self, event: str, exception: str, stack: str) -> None:
        super().__init__(event, exception, stack)
        self.event = event
        self.exception = exception
        self.stack = stack


def end_task(run_id: str, execute: Callable[[], AttemptOutcome | None]) -> str | None:
    """Return the status that the step's task ends with; None where its message was dropped.

    Raises `AttemptEnded`, and Celery's `Ignore` where the store was away for too long. By then the activation is
    another delivery's: its timer brings it back, so that for Celery nothing has failed, or is left to do.
    """
    try:
        outcome = execute()
    except StoreUnavailable as error:
        text = "a step of run %s is given up here, and goes on when its lease is over: %s"
        log.warning(text, run_id, error, extra={"run_id": run_id})
        raise Ignore(str(error)) from error
    if outcome is None:
        return None
    match outcome.status:
        case ActivationStatus.FAILED:
            event = "task-failed"
        case ActivationStatus.RETRYING:
            event = "task-retried"
        case status:
            return status
    if outcome.error is None:
        raise AttemptEnded(event, "to be retried", "")
    raise AttemptEnded(event, saferepr(outcome.error, _MAX_TEXT), _stack(outcome.error))


def _stack(error: BaseException) -> str:
    """Return the stack from the user's first frame on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next and trace.tb_frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))[-_MAX_TRACE:]


def show_attempts(base: type[Request]) -> type[Request]:
    """Derive a class of requests whose failed attempts show as such. The worker's main process sends their events."""
    if getattr(base, "shows_attempts", False):
        return base

    class MonitoredRequest(base):  # type: ignore[misc]  # Celery has no types
        """A step's message in the worker's main process."""

        shows_attempts = True

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
            if isinstance(error, AttemptEnded):
                self.send_event(error.event, exception=error.exception, traceback=error.stack or None)
            return super().on_failure(exc_info, send_failed_event, return_ok)

    return MonitoredRequest


def monitor_task(app: Celery, name: str) -> None:
    """Let the attempts of an existing task show as such. Doing it again changes nothing."""
    task = app.tasks.get(name)
    if task is not None:
        task.Request = show_attempts(symbol_by_name(task.Request))
