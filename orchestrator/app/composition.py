"""The composition root: the one place that chooses a store and a runtime, and builds the application on them.

Each part is built once everything that it needs is complete: the store, its wake-up channel, its wrapper, the runtime,
the engine, the client. Nothing is changed afterwards, so all parts have the same store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from orchestrator.app.client import Client
from orchestrator.app.configuration import CeleryApp
from orchestrator.engine.calling import ProcessSigns
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.executor import Executor
from orchestrator.engine.registry import Registry
from orchestrator.engine.services import Services
from orchestrator.engine.settings import Settings
from orchestrator.host import SystemClock
from orchestrator.local import LocalRuntime
from orchestrator.ports import Clock, Runtime, Store, WantsWakeups
from orchestrator.stores import open_store


def compose(app: CeleryApp | None, store: str | Store, settings: Settings, owner: Any) -> Client:
    """Build the application of `owner`, an `Orchestrator`: in this process, or on an app's workers.

    Raises ValueError for a store's URL of an unknown kind, and where another orchestrator has the app.
    """
    opened = open_store(store) if isinstance(store, str) else store
    owns_store = isinstance(store, str)
    # An app in eager mode wants no messages: Celery runs its tasks where they are called, and so does this.
    if app is None or app.conf.task_always_eager:
        return _compose_local(app, opened, settings, owner, owns_store)
    return _compose_on_celery(app, opened, settings, owner, owns_store)


def _compose_local(app: CeleryApp | None, store: Store, settings: Settings, owner: Any, owns_store: bool) -> Client:
    def register_task(workflow: Any) -> None:
        if app is not None:  # eager mode: a task by its id, as on workers
            from orchestrator.tasks.starting import register_workflow_task

            register_workflow_task(app, owner, workflow)

    clock, in_caller_thread = _clock_of(store), app is not None
    runtime = LocalRuntime(store, settings, clock, in_caller_thread=in_caller_thread, on_register=register_task)
    client = _build_client(store, settings, owner, owns_store, runtime, _signs_here())
    runtime.bind(client.executor.execute)
    return client


def _compose_on_celery(app: CeleryApp, store: Store, settings: Settings, owner: Any, owns_store: bool) -> Client:
    # Imported here, since they import Celery: an application in one process does without it.
    from orchestrator.canvas.processes import dying_of
    from orchestrator.canvas.publication import publish_events_of
    from orchestrator.canvas.waking import BrokerWakeups
    from orchestrator.tasks import CeleryParts, install

    if isinstance(store, WantsWakeups):
        store.attach_wakeups(BrokerWakeups(app))
    if settings.publish_events:
        store = publish_events_of(store, app)
    parts = CeleryParts(app, owner, store, settings)
    signs = ProcessSigns(dying_of)
    client = _build_client(store, settings, owner, owns_store, parts.runtime, signs, lambda: not parts.goes_on_inline())
    install(app, client.executor, parts)
    return client


def _signs_here() -> ProcessSigns:
    """Return the signs of this process, which may be one of a worker's: a task may start a run where it is called."""
    own = ProcessSigns()

    def dying_of(error: BaseException | None) -> BaseException | None:
        if "billiard.common" not in sys.modules:
            return own.dying_of(error)
        from orchestrator.canvas import processes

        return processes.dying_of(error) or own.dying_of(error)

    return ProcessSigns(dying_of)


def _build_client(
    store: Store,
    settings: Settings,
    owner: Any,
    owns_store: bool,
    runtime: Runtime,
    signs: ProcessSigns,
    stopping: Callable[[], bool] = lambda: False,
) -> Client:
    registry = Registry()
    services = Services(store, settings, _clock_of(store), Contexts(settings), owner, signs)
    executor = Executor(services, registry, runtime, stopping=stopping)
    return Client(store, settings, registry, executor, runtime, owner=owner, owns_store=owns_store)


def _clock_of(store: Store) -> Clock:
    """Return the clock of a store in this process, which a test may move on; else this process's own."""
    return getattr(store, "clock", None) or SystemClock()
