"""Puts the orchestrator into a Celery app: its tasks, its scheduler in every worker, its wrapper around existing tasks.

All of it is done when the orchestrator is made, which must not read the app's configuration: that is often half loaded
by then, and may be changed still. So whatever needs a store or a setting asks the owner for it when it is at work.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from multiprocessing.sharedctypes import RawValue
from typing import Any, ClassVar, Protocol

from celery import Celery, Task, bootsteps, signals
from celery.utils.imports import symbol_by_name

from orchestrator.canvas.deployment import refuse_lost_steps
from orchestrator.canvas.listeners import Listeners
from orchestrator.canvas.messages import STEP_TASK, envelope_of, has_envelope, is_about
from orchestrator.canvas.monitoring import Monitor, end_task, monitor_task, show_attempts
from orchestrator.canvas.queues import Queues
from orchestrator.canvas.task_carrier import SETTLE_FAILED_TASK, SETTLE_TASK, failed
from orchestrator.definitions import Workflow
from orchestrator.engine.calling import WorkerLost
from orchestrator.engine.executions import UnknownGraph, end_sending
from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_abandoned_attempt
from orchestrator.engine.registry import Registry
from orchestrator.engine.scheduler import Scheduler
from orchestrator.errors import StoreUnavailable
from orchestrator.ports import Store, TaskEnd
from orchestrator.tasks.deliveries import Deliveries, delivery_id
from orchestrator.tasks.existing import wrap_task
from orchestrator.tasks.request import request_class
from orchestrator.tasks.revokes import Revokes
from orchestrator.tasks.starting import Launcher, on_finalized, register_workflow_task

log = logging.getLogger("orchestrator")


class Owner(Launcher, Protocol):
    """The orchestrator of an app, as its tasks see it."""

    @property
    def store(self) -> Store:
        """The store of the runs."""
        ...

    @property
    def executor(self) -> Executor:
        """The executor of activations."""
        ...

    @property
    def registry(self) -> Registry:
        """The registered workflows, by id."""
        ...


# Weak on both sides: the owner holds its app, and the app's tasks hold the owner.
_installed: weakref.WeakKeyDictionary[Any, weakref.ref[Owner]] = weakref.WeakKeyDictionary()


class CeleryParts:
    """The parts of an orchestrator in its app: a monitor, the deliveries, and the state of this process's worker."""

    def __init__(self, app: Any, owner: Owner) -> None:
        self.monitor = Monitor(app, lambda: owner.store.workers(owner.settings.namespace))
        self.deliveries = Deliveries(lambda: owner.executor, self.is_stopping)
        self._app = app
        self._owner = owner
        self._has_limits = False
        self._queues: tuple[str, ...] | None = None
        self._stopping = RawValue("b", 0)  # shared with the children of a prefork pool, which hear of no shutdown

    def register(self, workflow: Workflow) -> None:
        """Make the workflow a task itself, and steps of the existing tasks in it. Idempotent."""
        app, owner = self._app, self._owner
        register_workflow_task(app, owner, workflow)
        names = {node.route.task for node in workflow.compiled.walk() if node.route.task is not None}

        def wrap_all() -> None:
            for name in names:
                wrap_task(app, owner, name)
                _settle_task(app, self.deliveries, name)
                monitor_task(app, name)

        if names:
            on_finalized(app, wrap_all)

    def runs_on_workers(self) -> bool:
        """Return False in eager mode. Reads the configuration, and raises ValueError where it is not complete."""
        return self._owner.executor.runtime.is_shared

    def note_limits(self, limits: Iterable[float | None]) -> None:
        """Note whether the worker has time limits for all of its tasks."""
        self._has_limits = any(limits)

    def goes_on_inline(self) -> bool:
        """Another step may go on in this message: the worker does not stop, and the message has no time limit."""
        task, conf = self._app.tasks.get(STEP_TASK), self._app.conf
        limits = (
            conf.task_time_limit,
            conf.task_soft_time_limit,
            task and task.time_limit,
            task and task.soft_time_limit,
        )
        return not (self._has_limits or any(limits) or self.is_stopping())

    def make_revokes(self) -> Revokes:
        """Make the part that cancels runs which are revoked like tasks."""
        return Revokes(lambda: self._owner.executor)

    def on_revoked(
        self, sender: Any = None, request: Any = None, expired: bool = False, terminated: bool = False, **_: Any
    ) -> None:
        """End the step of a task that was revoked before it began, or whose message has expired."""
        if getattr(sender, "app", None) is not self._app or terminated or not has_envelope(request):
            return
        envelope = envelope_of(request)
        if envelope is not None and envelope.sending:
            self.deliveries.revoke(envelope, str(request.id), "expired" if expired else "revoked")

    def require_routes(self) -> None:
        """Raise `Misconfigured` where a step of the registered workflows has no queue to go to."""
        refuse_lost_steps(self._app, self._owner.registry.all())

    def note_queues(self, names: Iterable[str]) -> None:
        """Note the queues that the worker of this process listens on."""
        self._queues = tuple(names)

    def queues(self) -> tuple[str, ...]:
        """Return the queues that the worker of this process listens on; while it starts, those that it is to."""
        return self._queues if self._queues is not None else tuple(self._app.amqp.queues.consume_from)

    def is_stopping(self) -> bool:
        """Return True if the worker is about to stop: then no further step runs inline."""
        return bool(self._stopping.value)

    def set_stopping(self, stopping: bool) -> None:
        """Note that the worker is about to stop, or has started."""
        self._stopping.value = stopping


def install(app: Any, owner: Owner) -> CeleryParts:
    """Register the step task, and the parts that every worker of the app starts: a scheduler and a monitor.

    Raises ValueError where another orchestrator has the app. Only in eager mode may it have several: then the first
    one has what workers start.
    """
    parts = CeleryParts(app, owner)
    known = orchestrator_of(app)
    if known is None:
        _installed[app] = weakref.ref(owner)
        _install(app, owner, parts)
    elif not app.conf.task_always_eager:
        raise ValueError(f"this Celery app already has an orchestrator: {known!r}. Use that one, one per app")
    return parts


def _install(app: Any, owner: Owner, parts: CeleryParts) -> None:
    deliveries = parts.deliveries
    options = {"name": STEP_TASK, "Request": show_attempts(request_class(deliveries)), "shared": False}

    @app.task(bind=True, ignore_result=True, acks_late=False, serializer="json", **options)  # type: ignore[untyped-decorator]
    def run_step(self: Task, run_id: str, path: str, seq: int) -> str | None:
        """Run one activation. A message of a newer release is left to the workers of that release."""
        envelope = envelope_of(self.request)
        if envelope is None or not is_about(envelope, (run_id, path, seq)):
            return None
        try:
            delivery = delivery_id(self.request.id, self.request.hostname, os.getpid())
            return end_task(run_id, lambda: owner.executor.execute(run_id, path, seq, delivery=delivery))
        except WorkerLost as error:
            log_abandoned_attempt(run_id, error)
            return None

    _install_settling(app, owner)
    signals.task_revoked.connect(parts.on_revoked, weak=False)
    app.steps["worker"].add(_closing_step(parts))
    app.steps["worker"].add(_scheduler_step(app, owner, parts))
    app.steps["worker"].add(_monitor_step(parts))
    app.steps["consumer"].add(_consumer_step(parts))


def _install_settling(app: Any, owner: Owner) -> None:
    """Register the tasks that the links of a sent task call."""
    # Acknowledged late: where no result is stored, this message is the only word of the end.
    late = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True, "shared": False}

    @app.task(name=SETTLE_TASK, serializer="json", max_retries=None, **late)  # type: ignore[untyped-decorator]
    def settle(*value: Any, run: str, path: str, sending: int, task: str) -> None:
        """End the step whose task has ended with this value; without one it is looked up."""

        def find_end() -> TaskEnd:
            found = None if value else owner.executor.runtime.tasks.find_end(task)  # type: ignore[union-attr]
            return found or TaskEnd(value[0] if value else None)

        _end_sending(settle, owner, run, path, sending, task, find_end)

    @app.task(name=SETTLE_FAILED_TASK, serializer="json", max_retries=None, **late)  # type: ignore[untyped-decorator]
    def settle_failed(failed_id: str, *, run: str, path: str, sending: int, task: str) -> None:
        """End the step whose task has failed. Celery gives the id of what has failed, which may be of a replacement."""

        def find_end() -> TaskEnd:
            carrier = owner.executor.runtime.tasks
            found = carrier and (carrier.find_end(task) or carrier.find_end(failed_id))
            return found or TaskEnd(error=failed(task))

        _end_sending(settle_failed, owner, run, path, sending, task, find_end)


def _end_sending(
    word: Task, owner: Owner, run: str, path: str, sending: int, task: str, find_end: Callable[[], TaskEnd]
) -> None:
    try:
        end_sending(owner.executor, run, path, sending, task, find_end)
    except (UnknownGraph, StoreUnavailable) as error:
        log.info("the end of task %s of run %s is told again later: %s", task, run, error, extra={"run_id": run})
        raise word.retry(countdown=min(300, 5 * 2**word.request.retries), exc=error) from error


def _settle_task(app: Celery, deliveries: Deliveries, name: str) -> None:
    """Have what an existing task had claimed as a step given back, should its process be gone."""
    task = app.tasks.get(name)
    if task is not None:
        task.Request = request_class(deliveries, symbol_by_name(task.Request))


def orchestrator_of(app: Any) -> Owner | None:
    """Return the orchestrator of a Celery app, in eager mode the first one; None where it has none."""
    found = _installed.get(app)
    return found() if found is not None else None


def _scheduler_step(app: Celery, owner: Owner, parts: CeleryParts) -> type[bootsteps.StartStopStep]:
    class OrchestratorScheduler(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """The scheduler's thread in the worker's main process."""

        requires: ClassVar[set[str]] = {"celery.worker.components:Pool"}

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            self.scheduler: Scheduler | None = None
            self.hostname = parent.hostname

        def include_if(self, parent: Any) -> bool:
            return parts.runs_on_workers()

        def on_shutdown(self, sender: Any = None, **_: Any) -> None:
            """Note that the worker is about to stop."""
            if sender == self.hostname:
                parts.set_stopping(True)

        def start(self, parent: Any) -> None:
            parts.set_stopping(False)
            signals.worker_shutting_down.connect(self.on_shutdown)
            settings = owner.settings
            queues = Queues(app, settings, Listeners(owner.store, settings))
            runtime = owner.executor.runtime
            self.scheduler = Scheduler(owner.store, runtime, settings, parent.hostname, queues, parts.queues)
            self.scheduler.begin()  # so that the store knows of the worker before it says that it is ready
            self.thread = threading.Thread(target=self.scheduler.run, name="orchestrator-scheduler", daemon=True)
            self.thread.start()

        def stop(self, parent: Any) -> None:
            signals.worker_shutting_down.disconnect(self.on_shutdown)
            if self.scheduler is not None:
                self.scheduler.stop()
                self.thread.join(timeout=5)

        terminate = stop

    return OrchestratorScheduler


def _closing_step(parts: CeleryParts) -> type[bootsteps.Step]:
    class OrchestratorClosing(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
        """Gives back what is left when all else has stopped: before that the pool's children may be at work."""

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            # The worker's first part of ours: what is wrong with the configuration is told before it takes a message,
            # and the pool's children inherit what is composed of it.
            if not parts.runs_on_workers():
                return
            parts.require_routes()
            blueprint = parent.blueprint
            stopped = blueprint.on_stopped

            def on_stopped() -> None:
                parts.deliveries.close()
                if stopped is not None:
                    stopped()

            # No step of our own is stopped later than the pool: a step may ask to start after another, not before.
            blueprint.on_stopped = on_stopped

    return OrchestratorClosing


def _monitor_step(parts: CeleryParts) -> type[bootsteps.Step]:
    class OrchestratorMonitor(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
        """Tells what the pool's children have to know of their worker, before they are forked."""

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            parts.monitor.attend(parent.hostname)
            parts.note_limits(getattr(parent, name, None) for name in ("time_limit", "soft_time_limit"))

    return OrchestratorMonitor


def _consumer_step(parts: CeleryParts) -> type[bootsteps.StartStopStep]:
    class OrchestratorConsumer(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """Looks once a second if the worker sends task events, on which queues it listens, and what it is to revoke.

        Remote commands change all three, and signal nothing.
        """

        requires: ClassVar[set[str]] = {
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.tasks:Tasks",
        }
        timer: Any = None  # a connection that breaks while the consumer starts brings a stop without a start
        revokes: Revokes | None = None

        def start(self, parent: Any) -> None:
            self.revokes = self.revokes or parts.make_revokes()
            self.look(parent)
            self.timer = parent.timer.call_repeatedly(1.0, self.look, (parent,))

        def stop(self, parent: Any) -> None:
            timer, self.timer = self.timer, None
            if timer is not None:
                timer.cancel()

        def look(self, parent: Any) -> None:
            dispatcher = parent.event_dispatcher
            on = dispatcher is not None and dispatcher.enabled
            parts.monitor.switch(on and (not dispatcher.groups or "task" in dispatcher.groups))
            if parent.task_consumer is not None:
                parts.note_queues(queue.name for queue in parent.task_consumer.queues)
            if self.revokes is not None:
                self.revokes.look()

    return OrchestratorConsumer
