"""Puts the orchestrator into a Celery app: its tasks, its ticker in every worker, its wrapper around existing tasks."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue
from typing import Any, ClassVar, NamedTuple, Protocol

from celery import Celery, Task, bootsteps, signals

from orchestrator.canvas.messages import STEP_TASK, is_readable
from orchestrator.canvas.monitoring import Monitor, conclude, monitor_task, monitored
from orchestrator.canvas.publication import Publisher, announcing
from orchestrator.canvas.queues import Queues
from orchestrator.canvas.runtime import CeleryRuntime
from orchestrator.canvas.waking import BrokerBell
from orchestrator.definitions import Workflow
from orchestrator.engine.calling import WorkerLost
from orchestrator.engine.delivery import Engine
from orchestrator.engine.settings import Settings
from orchestrator.engine.ticker import Ticker
from orchestrator.ports import Runtime, Store
from orchestrator.tasks.existing import adopt
from orchestrator.tasks.request import request_class
from orchestrator.tasks.starting import Launcher, open_door, when_final


class Owner(Launcher, Protocol):
    """What an app's tasks need of its orchestrator."""

    engine: Engine
    store: Store
    settings: Settings


# Weak on both sides: the owner holds its app, and the app's tasks hold the owner.
_installed: weakref.WeakKeyDictionary[Any, weakref.ref[Owner]] = weakref.WeakKeyDictionary()


class Installed(NamedTuple):
    """The parts of an app's engine that its workers have a say in."""

    # publishes to the app's broker
    runtime: Runtime
    # the owner's store, which publishes events where the settings say so
    store: Store
    # says that the worker is about to end
    is_stopping: Callable[[], bool]


def install(app: Any, owner: Owner) -> Installed:
    """Register the tasks and the ticker in `app`, for an owner that has yet to make its engine.

    Raises ValueError where another orchestrator has done so before.
    """
    before = orchestrator_of(app)
    if before is not None and before is not owner:
        raise ValueError(f"this Celery app already has an orchestrator: {before!r}. Use that one, one per app")
    _installed[app] = weakref.ref(owner)
    monitor = Monitor(app, lambda: owner.store.workers(owner.settings.namespace))
    runtime = CeleryRuntime(app, owner.settings, lambda workflow: _adopt(app, owner, workflow), monitor)
    stopping = RawValue("b", 0)  # shared with the children of a prefork pool, which hear of no shutdown

    options = {"name": STEP_TASK, "Request": monitored(request_class(lambda: owner.engine)), "shared": False}

    @app.task(bind=True, ignore_result=True, acks_late=False, serializer="json", **options)  # type: ignore[untyped-decorator]
    def run_step(self: Task, run_id: str, path: str, seq: int) -> str | None:
        """Run one activation. A message of a newer release is left to the workers of that release."""
        if not is_readable(self.request):
            return None
        try:
            return conclude(owner.engine.deliver(run_id, path, seq))
        except WorkerLost as error:
            owner.engine.log_lost(run_id, error)
            return None

    store = announcing(owner.store, Publisher(app)) if owner.settings.publish_events else owner.store
    if getattr(owner.store, "bell", False) is None:
        owner.store.bell = BrokerBell(app)  # type: ignore[attr-defined]  # a store that can do with one
    app.steps["worker"].add(_ticker_step(app, owner, runtime, stopping))
    app.steps["worker"].add(_monitor_step(monitor))
    app.steps["consumer"].add(_event_step(monitor))
    return Installed(runtime, store, lambda: bool(stopping.value))


def _adopt(app: Celery, owner: Owner, workflow: Workflow) -> None:
    """A workflow has been registered: it becomes a task itself, and the existing tasks in it learn to be steps."""
    open_door(app, owner, workflow)
    names = {node.route.task for node in workflow.compiled.walk() if node.route.task is not None}

    def adopt_all() -> None:
        for name in names:
            adopt(app, owner.engine, name)
            monitor_task(app, name)

    if names:
        when_final(app, adopt_all)


def orchestrator_of(app: Any) -> Owner | None:
    """The orchestrator of a Celery app, or None. An app in eager mode has none: its runs do without workers."""
    found = _installed.get(app)
    return found() if found is not None else None


def _ticker_step(app: Celery, owner: Owner, runtime: Runtime, stopping: Any) -> type[bootsteps.StartStopStep]:
    class OrchestratorTicker(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """The ticker's thread in the worker's main process."""

        requires: ClassVar[set[str]] = {"celery.worker.components:Pool"}

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            self.ticker: Ticker | None = None
            self.hostname = parent.hostname

        def shutting_down(self, sender: Any = None, **_: Any) -> None:
            """The worker is about to stop: nothing goes on inline any more."""
            if sender == self.hostname:
                stopping.value = 1

        def start(self, parent: Any) -> None:
            stopping.value = 0
            signals.worker_shutting_down.connect(self.shutting_down)
            queues = Queues(app, owner.settings)
            self.ticker = Ticker(owner.store, runtime, owner.settings, parent.hostname, queues.is_short)
            self.ticker.begin()  # before the worker says that it is ready, the store knows of it
            self.thread = threading.Thread(target=self.ticker.run, name="orchestrator-ticker", daemon=True)
            self.thread.start()

        def stop(self, parent: Any) -> None:
            signals.worker_shutting_down.disconnect(self.shutting_down)
            if self.ticker is not None:
                self.ticker.stop()
                self.thread.join(timeout=5)

        terminate = stop

    return OrchestratorTicker


def _monitor_step(monitor: Monitor) -> type[bootsteps.Step]:
    class OrchestratorMonitor(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
        """Tells the monitor the worker's name, before the pool's children are forked."""

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            monitor.attend(parent.hostname)

    return OrchestratorMonitor


def _event_step(monitor: Monitor) -> type[bootsteps.StartStopStep]:
    class OrchestratorEvents(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """Looks once a second whether the worker sends task events: a remote command changes that, and tells nobody."""

        requires: ClassVar[set[str]] = {"celery.worker.consumer.events:Events"}

        def start(self, parent: Any) -> None:
            self.look(parent)
            self.timer = parent.timer.call_repeatedly(1.0, self.look, (parent,))

        def stop(self, parent: Any) -> None:
            self.timer.cancel()

        def look(self, parent: Any) -> None:
            dispatcher = parent.event_dispatcher
            on = dispatcher is not None and dispatcher.enabled
            monitor.switch(on and (not dispatcher.groups or "task" in dispatcher.groups))

    return OrchestratorEvents
