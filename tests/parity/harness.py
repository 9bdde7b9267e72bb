"""The operations of parity tests on a runtime: every one on a fresh application, over the same store.

A test sees a `Harness` and nothing of the runtime behind it. Each operation builds a new Celery app and a new
`Orchestrator`, does one thing and closes both, as another process would: whatever a run needs afterwards comes from the
store. It must not know what the workflows do.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from types import FrameType
from typing import Any, NamedTuple

import pytest
from celery import Celery

from orchestrator import Event, Orchestrator, Run, RunPage, RunRecord, RunResult, RunStream, Workflow
from tests.parity.flows import all_workflows

ABSENT: Any = object()
TIMEOUT = 30.0
TIMES: dict[str, float] = {"lease_seconds": 2, "tick_seconds": 0.2, "republish_seconds": 1}


@dataclass(frozen=True)
class Place:
    """The place where the runs of one runtime live; without a broker they run in this process."""

    name: str
    store: str
    broker: str | None = None
    backend: str | None = None
    eager: bool = False

    def app(self) -> Celery | None:
        """Build a new Celery app; `local` has one only for the tests that need the application's own tasks."""
        if self.eager:
            return make_app("memory://", "cache+memory://", task_always_eager=True)
        return make_app(self.broker, self.backend) if self.broker else None


class Seen(NamedTuple):
    """An event whose payload went through JSON."""

    type: str
    payload: dict[str, Any]
    run_id: str
    source: str
    at: datetime
    id: str


class Streamed(NamedTuple):
    """All events of one stream, and how it ended."""

    events: list[Seen]
    result: RunResult

    def of_type(self, *types: str) -> list[Seen]:
        """Return the events of these types."""
        return [event for event in self.events if event.type in types]


@dataclass(frozen=True)
class Harness:
    """One runtime, as a test uses it."""

    place: Place

    @property
    def name(self) -> str:
        """The runtime's id: `local`, `celery-redis`, …; for what is not to be the same on all, which is little."""
        return self.place.name

    @property
    def runs(self) -> Runs:
        """`orchestrator.runs`, each call on a fresh application."""
        return Runs(self)

    def with_app(self) -> Harness:
        """Return the runtime with the application's own Celery tasks: on `local` an app in eager mode."""
        return self if self.place.broker else Harness(replace(self.place, eager=True))

    @contextmanager
    def open(self, timeout: float = TIMEOUT) -> Iterator[Orchestrator]:
        """Give a fresh `Orchestrator` for any operation; what takes longer than the timeout fails the test."""
        app = self.place.app()
        with _deadline(timeout):
            try:
                with Orchestrator(app, store=self.place.store, workflows=all_workflows(), **TIMES) as orchestrator:
                    yield orchestrator
            finally:
                if app is not None:
                    app.close()

    def execute(self, workflow: Workflow, input: Any = None, **options: Any) -> RunResult:
        """Create a run, start it through the streaming API, drain all events and return the result.

        Options: `run_id`, `resource_id`, `request_context`, `state`, `per_step`, `close_on_suspend`, `timeout`.
        """
        return self.stream(workflow, input, **options).result

    def stream(
        self,
        workflow: Workflow,
        input: Any = None,
        *,
        run_id: str | None = None,
        resource_id: str | None = None,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> Streamed:
        """Do the same and return the events too."""
        with self.open(timeout) as orchestrator:
            run = orchestrator.create_run(workflow, run_id=run_id, resource_id=resource_id)
            return drain(run.stream(input, **options))

    def start(
        self,
        workflow: Workflow,
        input: Any = None,
        *,
        run_id: str | None = None,
        resource_id: str | None = None,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> RunResult:
        """Create a run, start it without a stream and return the result."""
        with self.open(timeout) as orchestrator:
            run = orchestrator.create_run(workflow, run_id=run_id, resource_id=resource_id)
            return run.start(input, **options)

    def resume(
        self, workflow: Workflow, run_id: str, data: Any = ABSENT, *, timeout: float = TIMEOUT, **options: Any
    ) -> RunResult:
        """Resume a stored run and return the result; options: `step`, `label`, `index`, `request_context`, `per_step`.

        Nothing but the run's id is handed over: the rest has to come back from the store.
        """
        with self.open(timeout) as orchestrator:
            return _stored(orchestrator, workflow, run_id).resume(**_given(data), **options)

    def resume_stream(
        self, workflow: Workflow, run_id: str, data: Any = ABSENT, *, timeout: float = TIMEOUT, **options: Any
    ) -> Streamed:
        """Do the same through the streaming API."""
        with self.open(timeout) as orchestrator:
            return drain(_stored(orchestrator, workflow, run_id).resume_stream(**_given(data), **options))


@dataclass(frozen=True)
class Runs:
    """`orchestrator.runs` of a fresh application for every call."""

    harness: Harness

    def list(self, **filters: Any) -> RunPage:
        """List the stored runs."""
        with self.harness.open() as orchestrator:
            return orchestrator.runs.list(**filters)

    def get(self, run_id: str, **options: Any) -> RunRecord | None:
        """Look a run up."""
        with self.harness.open() as orchestrator:
            return orchestrator.runs.get(run_id, **options)

    def delete(self, run_id: str) -> Any:
        """Remove a run."""
        with self.harness.open() as orchestrator:
            return orchestrator.runs.delete(run_id)

    def purge(self, **filters: Any) -> Any:
        """Remove the runs that the filters name."""
        with self.harness.open() as orchestrator:
            return orchestrator.runs.purge(**filters)


def make_app(broker: str | None, backend: str | None, **settings: Any) -> Celery:
    """Build a Celery app as client and worker have it; the tasks of `tests.parity.app_tasks` are in every one."""
    import tests.parity.app_tasks  # noqa: F401

    app = Celery("parity", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        **settings,
    )
    if broker and broker.startswith("memory:"):
        app.conf.broker_transport_options = {"polling_interval": 0.01}
    return app


def seen(event: Event) -> Seen:
    """Take an event through JSON."""
    payload = json.loads(json.dumps(event.payload))
    return Seen(event.type, payload, event.run_id, event.source, event.at, event.id)


def drain(stream: RunStream) -> Streamed:
    """Read a stream to its end, which it has to find by itself, then ask for the result."""
    events = [seen(event) for event in stream]
    return Streamed(events, stream.result())


def _stored(orchestrator: Orchestrator, workflow: Workflow, run_id: str) -> Run:
    run = orchestrator.get_run(run_id)
    assert run.workflow_id == workflow.id
    return run


def _given(data: Any) -> dict[str, Any]:
    """Return the argument `data`, unless it is absent, which is not the same as None."""
    return {} if data is ABSENT else {"data": data}


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Fail the test when what is inside hangs: no product timeout is trusted with that."""

    def strike(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"nothing came back within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, strike)
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining)
        signal.signal(signal.SIGALRM, before)
