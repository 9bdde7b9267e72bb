"""Hooks and the result backend, on real workers: whose hooks are called when a worker dies, a run is canceled, …"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from orchestrator import Orchestrator
from tests.parity import calls
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import hooks_app

Starter = Callable[..., WorkerNode]
SOON = 25.0


@dataclass(frozen=True)
class Place:
    """A broker, a result backend and a store."""

    broker: str
    backend: str | None
    store: str
    settings: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=lambda: {"lease_seconds": 2, "tick_seconds": 0.2})

    @contextmanager
    def caller(self, *, knows: bool = True) -> Iterator[Orchestrator]:
        """An orchestrator as a caller has it, who knows the workflows or not."""
        app, orchestrator = hooks_app.make(asdict(self), knows=knows)
        try:
            with orchestrator:
                yield orchestrator
        finally:
            app.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis for the tests of this module."""
    server = LocalRedis(tmp_path_factory.mktemp("hooks-redis")).start()
    yield server
    server.teardown()


@pytest.fixture
def place(server: LocalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """One Redis for all three, emptied for each test; calls are noted in the test's folder."""
    (tmp_path / "calls").mkdir()
    monkeypatch.setenv(calls.FOLDER, str(tmp_path / "calls"))
    with server.client as client:
        client.flushall()
    return Place(server.database(0), server.database(2), server.database(1))


@pytest.fixture
def start(worker_factory: Starter, tmp_path: Path) -> Callable[..., WorkerNode]:
    """Start a worker of a place."""

    def started(place: Place, pool: str = "prefork", **options: Any) -> WorkerNode:
        env = {"HOOKS_PLACE": json.dumps(asdict(place)), calls.FOLDER: os.environ[calls.FOLDER]}
        return worker_factory("tests.workers.hooks_app:app", env=env, cwd=tmp_path, pool=pool, **options)

    return started


def hooks(run_id: str) -> list[str]:
    """Return the statuses with which the hook was called."""
    return [str(status) for status in calls.calls(run_id, "hook")]


def test_a_hook_whose_worker_is_killed_is_called_again(place: Place, start: Starter) -> None:
    """The run has ended all the same, and the child's parent sees to it at once."""
    start(place, concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("kills-once")
        assert run.start(1, timeout=SOON).result == 2
        assert wait_until(lambda: hooks(run.run_id) == ["success"] * 2, SOON)
        assert wait_until(lambda: not run.header().calling, SOON)


def test_a_hook_that_kills_its_workers_is_given_up_after_the_third(place: Place, start: Starter) -> None:
    """No more than that are lost, and the log of the run says it."""
    start(place, concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("kills").submit(1)
        told = "workflow-report-failed"
        assert wait_until(lambda: run.ready() and told in [event.type for event in run.events()], 2 * SOON)
        assert (run.status, hooks(run.run_id)) == ("success", ["success"] * 3)
        assert AsyncResult(run.run_id, app=caller.app).get(timeout=SOON) == 2


def test_a_hook_that_raises_is_called_again_on_a_worker(place: Place, start: Starter) -> None:
    """With growing pauses, while the run is over."""
    start(place, "threads", concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("raises")
        assert run.start(1, timeout=SOON).result == 2
        assert hooks(run.run_id) == ["success"]
        assert wait_until(lambda: hooks(run.run_id) == ["success"] * 3, SOON)


def test_a_hook_that_waits_for_a_run_does_not_hold_its_only_worker(place: Place, start: Starter) -> None:
    """It is refused, as in a step."""
    start(place, "solo")
    with place.caller() as caller:
        run = caller.create_run("waits")
        assert run.start(1, timeout=SOON).result == 2
        assert calls.count(run.run_id, "refused") == 1
        assert caller.create_run("plain").start(1, timeout=SOON).result == 2


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery, in the caller's process here
def test_a_cancel_without_the_workflow_sends_its_hook_to_a_worker(place: Place, start: Starter) -> None:
    """And the result backend is told at once."""
    start(place, "threads", concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("asks")
        assert run.start(1, timeout=SOON).status == "suspended"
    with place.caller(knows=False) as stranger:
        report = stranger.get_run(run.run_id).cancel()
        assert (report.status, report.failed) == ("canceled", [])
        assert AsyncResult(run.run_id, app=stranger.app).state == "REVOKED"
    assert wait_until(lambda: hooks(run.run_id) == ["suspended", "canceled"], SOON)


def test_a_cancel_that_comes_while_the_hook_is_called_comes_too_late(place: Place, start: Starter) -> None:
    """Store, result backend and hook say the same."""
    start(place, "threads", concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("slow").submit(1)
        assert wait_until(lambda: bool(hooks(run.run_id)), SOON)
        assert run.status == "success"
        assert run.cancel().status == "success"
        assert AsyncResult(run.run_id, app=caller.app).get(timeout=SOON) == 2
        assert hooks(run.run_id) == ["success"]


def test_a_hook_does_not_share_a_limit_for_all_tasks_with_the_last_step(place: Place, start: Starter) -> None:
    """Of two seconds each of them takes more than half."""
    place = replace(place, settings={"task_time_limit": 2})
    worker = start(place, concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("limited")
        assert run.start(1, timeout=SOON).result == 1
        assert wait_until(lambda: hooks(run.run_id) == ["success"], SOON)
        assert "TimeLimitExceeded" not in worker.process.logs_since_start()


@pytest.mark.parametrize("limit", ["task_time_limit", "task_soft_time_limit"])
def test_a_time_limit_that_strikes_in_a_hook_is_a_failed_call(place: Place, start: Starter, limit: str) -> None:
    """The hook is called again after a pause, as if it had raised; the run has ended."""
    place = replace(place, settings={limit: 2}, times={"lease_seconds": 60, "tick_seconds": 0.2})
    worker = start(place, concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("stalls").submit(1)
        assert wait_until(lambda: hooks(run.run_id) == ["success"] * 2, SOON), worker.process.tail()
        assert wait_until(lambda: not run.header().calling, SOON)
        assert run.get(timeout=SOON) == 2
        log = worker.process.logs_since_start()
        assert f"on_finish of run {run.run_id} raised (attempt 1)" in log
        assert "TimeLimitExceeded" in log


def test_a_result_backend_that_is_away_keeps_no_run_from_its_end(place: Place, start: Starter, tmp_path: Path) -> None:
    """The hook is called once, no worker is lost, and the result is delivered once the backend is there."""
    backend = LocalRedis(tmp_path / "backend")  # not started yet
    retries = {"result_backend_transport_options": {"retry_policy": {"max_retries": 1}}}
    place = replace(place, backend=backend.database(0), settings=retries)
    worker = start(place, concurrency=2)
    with place.caller() as caller:
        began = time.monotonic()
        run = caller.create_run("told")
        assert run.start(1, timeout=SOON).result == 2
        assert time.monotonic() - began < 10
        told = "could not be delivered"
        assert wait_until(lambda: told in worker.process.logs_since_start(), 2 * SOON)
        assert run.status == "success"
        backend.start()
        try:
            assert AsyncResult(run.run_id, app=caller.app).get(timeout=2 * SOON) == 2
        finally:
            backend.teardown()
        assert hooks(run.run_id) == ["success"]
        assert "lost" not in worker.process.logs_since_start()
