"""Helpers of several robustness tests: a host of their own, a store with a fault, callers that come at once.

The workers of the session stay out of such a host's way: it has a namespace and a queue of its own. It must not know
what the workflows do.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from celery import Celery
from celery.bootsteps import CLOSE
from celery.contrib.testing.worker import TestWorkController

from orchestrator import Orchestrator, RunRecord, RunResult, Workflow
from orchestrator.stores import open_store
from orchestrator.testing import FailingStore, WorkerLost
from tests.parity.calls import count
from tests.parity.flows import all_workflows
from tests.parity.harness import Harness, make_app

PATIENCE = 15.0
LOST = "lost"
BRIEF: dict[str, float] = {"lease_seconds": 0.4, "tick_seconds": 0.1, "republish_seconds": 1}


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)


def stored(runtime: Harness, run_id: str) -> RunRecord:
    """Look a run up with all its steps."""
    record = runtime.runs.get(run_id)
    assert record is not None
    return record


def statuses(runtime: Harness, run_id: str) -> dict[str, str]:
    """Return the stored status of every step, nested ones included."""
    return {name: str(step.status) for name, step in (stored(runtime, run_id).steps or {}).items()}


def lose(runtime: Harness, workflow: Workflow, input: Any = None) -> str:
    """Start a run, wait until the worker of one of its steps is lost, and return the run's id."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(workflow).submit({} if input is None else input)
        eventually(lambda: count(run.run_id, LOST))
        return run.run_id


def restart(runtime: Harness, run_id: str) -> RunResult:
    """Restart a stored run on a fresh host, by its id alone."""
    with runtime.open() as orchestrator:
        return orchestrator.get_run(run_id).restart()


def at_once(*asked: Callable[[], Any]) -> tuple[list[Any], list[Exception]]:
    """Make the calls at the same time, each in a thread of its own; return the results, and what was raised."""
    results: list[Any] = []
    errors: list[Exception] = []

    def ask(call: Callable[[], Any]) -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - a thread's border: the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(call,)) for call in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return results, errors


class HookedStore:
    """A store that calls `before` ahead of each commit, with the run's id and the change."""

    def __init__(self, store: Any, before: Callable[[str, Any], None]) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, run_id: str, change: Any) -> Any:
        """Commit, afterwards."""
        self._before(run_id, change)
        return self._store.commit(run_id, change)


def meeting(gate: threading.Barrier) -> Callable[[Any], HookedStore]:
    """Wrap stores so that the first commits through all of them happen at the same time."""

    def wrap(store: Any) -> HookedStore:
        met: list[bool] = []

        def meet(run_id: str, change: Any) -> None:
            if not met:
                met.append(True)
                gate.wait(PATIENCE)

        return HookedStore(store, meet)

    return wrap


@contextmanager
def over(runtime: Harness, wrap: Callable[[Any], Any]) -> Iterator[Orchestrator]:
    """Give a fresh `Orchestrator` of the runtime over its store in a wrapper; its workers have the store as it is."""
    store = open_store(runtime.place.store)
    try:
        with Harness(replace(runtime.place, store=wrap(store))).open() as orchestrator:
            yield orchestrator
    finally:
        store.close()


@dataclass(frozen=True)
class Own:
    """An application of a test's own on the servers of a runtime: it has the workers that the test starts."""

    runtime: Harness
    wrap: Callable[[Any], Any] = lambda store: store
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"robust-{uuid.uuid4().hex[:8]}")

    def _app(self) -> Celery | None:
        place = self.runtime.place
        return make_app(place.broker, place.backend, task_default_queue=self.name) if place.broker else None

    @contextmanager
    def client(self, *more: Workflow) -> Iterator[Orchestrator]:
        """Give a host that knows every workflow of the suite, and these."""
        store, app = open_store(self.runtime.place.store), self._app()
        options = {**BRIEF, "namespace": self.name, **self.settings}
        try:
            workflows = [*all_workflows(), *more]
            with Orchestrator(app, store=self.wrap(store), workflows=workflows, **options) as orchestrator:
                yield orchestrator
        finally:
            store.close()
            if app is not None:
                app.close()

    @contextmanager
    def host(self, *more: Workflow) -> Iterator[Orchestrator]:
        """Do the same, with a worker where the runtime has workers."""
        with self.client(*more) as orchestrator:
            app: Any = orchestrator.app
            with working(app) if app is not None else nullcontext():
                yield orchestrator


@contextmanager
def working(app: Celery) -> Iterator[None]:
    """Run a worker of this application in a thread.

    Celery runs what a worker in this process has received in the app that is current in the thread, whosever message
    it was. A solo worker has one thread, and in that one this app is current.
    """
    app.finalize()
    worker = TestWorkController(
        app=app,
        hostname=f"worker-{uuid.uuid4().hex[:8]}@robust",
        pool="solo",
        loglevel="error",
        use_eventloop=False,
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
    )

    def work() -> None:
        app.set_current()
        try:
            worker.start()
        finally:
            worker.stop()  # not from another thread: this one may be waiting on the connection that is to be closed

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    worker.ensure_started()
    try:
        yield
    finally:
        worker.consumer.blueprint.state = CLOSE
        thread.join(10)
    assert not thread.is_alive()


def strand(runtime: Harness, workflow: Workflow, input: Any, run_id: str | None = None) -> str:
    """Start a run in a process that dies before anything of the run is claimed; return the run's id."""

    def dying(store: Any) -> Any:
        return FailingStore(store, "claim", times=None, error=WorkerLost())

    with Own(runtime, dying).client() as orchestrator:
        return orchestrator.create_run(workflow, run_id=run_id).submit(input).run_id
