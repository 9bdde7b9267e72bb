"""Steps that are tasks of another code base: known by name, executed by a worker that cannot import the library."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Orchestrator, Run
from tests.foreign import shop
from tests.vendor import LocalRedis, WorkerNode, wait_until

SOON = 40.0


@dataclass(frozen=True)
class Place:
    """A shop whose steps are tasks of another service."""

    orchestrator: Orchestrator
    billing: Callable[[], WorkerNode]
    folder: Path
    has_backend: bool

    def calls(self, label: str) -> int:
        """How often a task of the other service was called with this label."""
        path = self.folder / label
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture(params=["with a result backend", "without"])
def place(request: pytest.FixtureRequest, tmp_path: Path, worker_factory: Callable[..., WorkerNode]) -> Iterator[Place]:
    """Both services on one broker; with a result backend that they share, or without any."""
    server = LocalRedis(tmp_path / "redis").start()
    backend = server.database(1) if request.param.startswith("with a") else ""
    env = {
        "FOREIGN_BROKER": server.database(0),
        "FOREIGN_BACKEND": backend,
        "FOREIGN_STORE": server.database(2),
        "FOREIGN_RECORDINGS": str(tmp_path),
    }
    worker_factory("tests.foreign.shop_worker:app", env=env, cwd=tmp_path, concurrency=2)

    def billing() -> WorkerNode:
        return worker_factory("tests.foreign.billing:app", env=env, cwd=tmp_path, concurrency=2)

    app, orchestrator = shop.make(server.database(0), backend, server.database(2))
    with orchestrator:
        yield Place(orchestrator, billing, tmp_path, bool(backend))
    app.close()
    server.teardown()


def ended(run: Run) -> str:
    """Wait for the end of the run."""
    wait_until(lambda: run.status not in ("pending", "running"), SOON, every=0.1)
    return str(run.status)


def code_of(run: Run) -> str:
    """The code of the error that the run has failed with."""
    error: Any = run.result().error
    return str(error.code)


def test_the_value_of_a_task_is_the_output_of_its_step(place: Place) -> None:
    """And the step after it gets it."""
    place.billing()
    run = place.orchestrator.create_run("pays").submit("a")
    assert (ended(run), run.result().result) == ("success", {"charged": 1, "seen": True})
    assert place.calls("a") == 1


def test_a_failure_is_the_step_s(place: Place) -> None:
    """With its error, where a result backend has it."""
    place.billing()
    run = place.orchestrator.create_run("cannot-pay").submit("b")
    assert ended(run) == "failed"
    assert place.calls("b") == 2  # the step has one retry
    error = run.result().error
    assert (
        str(error) == "no such account" if place.orchestrator.app.conf.result_backend else error.code == "TASK_FAILED"
    )  # type: ignore[union-attr]


def test_a_task_that_nobody_takes_ends_by_its_timeout(place: Place) -> None:
    """No worker listens."""
    run = place.orchestrator.create_run("in-time").submit("c")
    assert ended(run) == "failed"
    assert code_of(run) == "TASK_TIMEOUT"


@pytest.mark.parametrize("flow", ["unknown", "ignored"])
def test_a_task_that_ends_without_a_word_ends_by_its_timeout(place: Place, flow: str) -> None:
    """Its name is not known there, or it raises `Ignore`."""
    place.billing()
    run = place.orchestrator.create_run(flow).submit("d")
    assert ended(run) == "failed"
    error: Any = run.result().error
    if flow == "unknown" and place.has_backend:  # there Celery stores an error
        assert "billing.nothing" in str(error)
    else:
        assert error.code == "TASK_TIMEOUT"


def test_a_killed_worker_of_another_code_base(place: Place) -> None:
    """Nobody knows what its task has done: the step fails by its timeout, and no copy runs."""
    worker = place.billing()
    run = place.orchestrator.create_run("slow").submit("e")
    assert wait_until(lambda: place.calls("e") == 1, SOON)
    os.killpg(worker.pid, signal.SIGKILL)
    assert ended(run) == "failed"
    assert code_of(run) == "TASK_TIMEOUT"
    assert place.calls("e") == 1
