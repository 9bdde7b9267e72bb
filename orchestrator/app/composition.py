"""The composition root: the one place that chooses a store and a runtime, and builds the application on them.

Each part is built once everything that it needs is complete: the store, its wake-up channel, its wrapper, the runtime,
the engine, the client. Nothing is changed afterwards, so all parts have the same store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from orchestrator.tasks import CeleryParts


def join_app(app: CeleryApp, owner: Any) -> CeleryParts:
    """Put what workers start of `owner`, an `Orchestrator`, into its app, whose configuration is not read for it.

    Raises ValueError where another orchestrator has the app.
    """
    from orchestrator.tasks import install

    return install(app, owner)


def compose(
    app: CeleryApp | None,
    store: str | Store,
    settings: Settings,
    owner: Any,
    registry: Registry,
    parts: CeleryParts | None,
) -> Client:
    """Build the application of `owner`, an `Orchestrator`: in this process, or on an app's workers.

    `parts` are those that the owner has in its app. Raises ValueError for a store's URL of an unknown kind.
    """
    # An app in eager mode wants no messages: Celery runs its tasks where they are called, and so does this.
    is_local = app is None or parts is None or app.conf.task_always_eager
    if not is_local:
        _refuse_misconfigured(app, settings)
    opened = open_store(store) if isinstance(store, str) else store
    owns_store = isinstance(store, str)
    if app is None or parts is None or is_local:
        runtime = LocalRuntime(opened, settings, _clock_of(opened), in_caller_thread=app is not None)
        client = _build_client(opened, settings, owner, owns_store, runtime, _signs_here(), registry)
        runtime.bind(client.executor.execute)
    else:
        client = _compose_on_celery(app, parts, opened, settings, owner, owns_store, registry)
    for workflow in registry.all():
        client.runtime.register_workflow(workflow)
    return client


def _refuse_misconfigured(app: Any, settings: Settings) -> None:
    from orchestrator.canvas.deployment import refuse_misconfigured

    refuse_misconfigured(app, publishes_events=settings.publish_events)


def _compose_on_celery(
    app: CeleryApp,
    parts: CeleryParts,
    store: Store,
    settings: Settings,
    owner: Any,
    owns_store: bool,
    registry: Registry,
) -> Client:
    # Imported here, since they import Celery: an application in one process does without it.
    from orchestrator.canvas.processes import dying_of
    from orchestrator.canvas.publication import publish_events_of
    from orchestrator.canvas.runtime import CeleryRuntime
    from orchestrator.canvas.waking import BrokerWakeups

    if isinstance(store, WantsWakeups):
        store.attach_wakeups(BrokerWakeups(app))
    if settings.publish_events:
        store = publish_events_of(store, app)
    runtime = CeleryRuntime(app, settings, parts.monitor)
    signs = ProcessSigns(dying_of)
    return _build_client(
        store, settings, owner, owns_store, runtime, signs, registry, lambda: not parts.goes_on_inline()
    )


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
    registry: Registry,
    stopping: Callable[[], bool] = lambda: False,
) -> Client:
    services = Services(store, settings, _clock_of(store), Contexts(settings), owner, signs)
    executor = Executor(services, registry, runtime, stopping=stopping)
    return Client(store, settings, registry, executor, runtime, owner=owner, owns_store=owns_store)


def _clock_of(store: Store) -> Clock:
    """Return the clock of a store in this process, which a test may move on; else this process's own."""
    return getattr(store, "clock", None) or SystemClock()
