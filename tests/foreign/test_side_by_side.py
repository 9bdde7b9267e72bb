"""Each task of the project by a plain `delay`, and as a step: what is recorded of the two is equal."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from orchestrator import Orchestrator, Run
from orchestrator.engine.task_steps import task_id_of
from tests.foreign import flows, recording
from tests.vendor import LocalRedis, WorkerNode, wait_until

SOON = 40.0

# What differs, and why. A task that ends without a value has nothing that could follow in a run.
ENDS: dict[str, tuple[str, Any]] = {
    "ignored": ("failed", "TaskIgnored"),
    "rejected": ("failed", "TaskRejected"),
}


@dataclass(frozen=True)
class Side:
    """An app, and where the things that happen to its tasks are recorded."""

    app: Celery
    folder: Path

    def recorded(self, label: str) -> list[dict[str, Any]]:
        """All that was recorded of one run."""
        path = self.folder / f"{label}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis for brokers, result backends and the store."""
    server = LocalRedis(tmp_path_factory.mktemp("foreign-redis")).start()
    yield server
    server.teardown()


def start(
    factory: Callable[..., WorkerNode], side: str, broker: str, store: str, folder: Path, **options: Any
) -> WorkerNode:
    """Start a worker of the project, with the library or without."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {
        "FOREIGN_WITH": "1" if side == "steps" else "0",
        "FOREIGN_BROKER": broker,
        "FOREIGN_STORE": store,
        recording.FOLDER: str(folder),
    }
    return factory("tests.foreign.project:app", env=env, cwd=folder, log=folder / "worker.log", **options)


@pytest.fixture(scope="module")
def plain(
    servers: LocalRedis, session_worker_factory: Callable[..., WorkerNode], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Side]:
    """The project as it is: its worker cannot import the library."""
    folder = tmp_path_factory.mktemp("plain")
    broker = servers.database(0)
    start(session_worker_factory, "plain", broker, "", folder, concurrency=3)
    with Celery("project", broker=broker, backend=broker, set_as_current=False) as app:
        yield Side(app, folder)


@pytest.fixture(scope="module")
def steps(
    servers: LocalRedis, session_worker_factory: Callable[..., WorkerNode], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Side, Orchestrator]]:
    """The project with the library."""
    folder = tmp_path_factory.mktemp("steps")
    broker, store = servers.database(2), servers.database(3)
    start(session_worker_factory, "steps", broker, store, folder, concurrency=3)
    with (
        Celery("project", broker=broker, backend=broker, set_as_current=False) as app,
        flows.make(app, store) as orchestrator,
    ):
        yield Side(app, folder), orchestrator


def settled(run: Run) -> str:
    """Wait for the end of the run."""
    wait_until(lambda: run.status not in ("pending", "running"), SOON, every=0.1)
    return str(run.status)


def complete(side: Side, label: str, count: int) -> list[dict[str, Any]]:
    """The record once it has so many entries, or no more come."""
    wait_until(lambda: len(side.recorded(label)) >= count, 5)
    return side.recorded(label)


def by_task(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The records of each execution, in their order; what several do at once has none."""
    found: dict[str, list[Any]] = defaultdict(list)
    for one in records:
        about = {name: value for name, value in one.items() if name != "id"}
        found[f"{one.get('task', one['what'])}, {one.get('turn')}"].append(about)
    return dict(found)


def stored(side: Side, task_id: str) -> dict[str, Any]:
    """What the result backend has under this id."""
    meta = AsyncResult(task_id, app=side.app)._get_task_meta()
    about = {name: meta.get(name) for name in ("status", "name", "args", "kwargs", "retries", "queue")}
    # Of a task that has only begun it is the worker.
    result = "" if meta["status"] == "STARTED" else recording.shown(meta.get("result"))
    return {**about, "result": result}


CALLS = [call for call in flows.CALLS if call not in ("slow", "over")]


@pytest.mark.parametrize("call", CALLS)
def test_a_task_is_the_same_as_a_step(plain: Side, steps: tuple[Side, Orchestrator], call: str) -> None:
    """Its hooks, signals, arguments, headers and stored result; and the run ends as the task has ended."""
    side, orchestrator = steps
    label = "links" if call == "links" else "errbacks" if call == "errbacks" else call
    signature = plain.app.signature(dict(flows.CALLS[call])).clone((label,))
    result = signature.apply_async()
    run = orchestrator.create_run(flows.name_of(call)).submit(label)
    ends = settled(run)

    is_over = wait_until(result.ready, 5 if call in ENDS else SOON)
    native = complete(plain, label, len(side.recorded(label)))
    as_step = complete(side, label, len(native))
    assert by_task(as_step) == by_task(native)
    own_id = next(one["id"] for one in as_step if one.get("id"))
    assert own_id != result.id
    assert stored(side, own_id) == stored(plain, result.id)
    if call in ENDS:
        assert not is_over or result.state != "SUCCESS"
        assert (ends, run.result().error.code) == (ENDS[call][0], _code(ENDS[call][1]))  # type: ignore[union-attr]
    elif result.state == "SUCCESS":
        assert (ends, run.result().result) == ("success", result.get(timeout=SOON))
    else:
        found: Any = run.result().error
        native_error: Any = result.get(timeout=SOON, propagate=False)
        assert (ends, str(found)) == ("failed", str(native_error))
        assert getattr(found, "name", type(found).__name__).rsplit(".", 1)[-1] == type(native_error).__name__


def _code(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).strip("_").upper()


def begun(side: Side, label: str, what: str, times: int = 1) -> bool:
    """Wait until the task has come to this so often."""
    return wait_until(lambda: [one["what"] for one in side.recorded(label)].count(what) >= times, SOON)


def test_a_hard_limit_ends_the_step_at_once(steps: tuple[Side, Orchestrator]) -> None:
    """As it ends the task; Celery's errbacks, which come twice, change nothing."""
    _, orchestrator = steps
    run = orchestrator.create_run(flows.name_of("over")).submit("over")
    assert settled(run) == "failed"
    assert "TimeLimitExceeded" in repr(run.result().error)


def test_a_task_whose_process_is_killed_is_sent_anew(steps: tuple[Side, Orchestrator]) -> None:
    """Under another id, so that nothing that Celery tells of the lost one is taken for its end."""
    side, orchestrator = steps
    run = orchestrator.create_run(flows.name_of("slow")).submit("killed")
    assert begun(side, "killed", "slow")
    os.kill(side.recorded("killed")[-1]["pid"], signal.SIGKILL)
    assert begun(side, "killed", "slow", 2)
    ids = {one["id"] for one in side.recorded("killed") if one.get("id")}
    assert len(ids) == 2
    run.cancel()


@pytest.mark.parametrize("terminate", [False, True])
def test_a_task_that_is_revoked_ends_its_step(steps: tuple[Side, Orchestrator], terminate: bool) -> None:
    """Before it has begun, and while it is at work; no other attempt follows."""
    side, orchestrator = steps
    label = f"revoked-{terminate}"
    call = "slow" if terminate else "countdown"
    run = orchestrator.create_run(flows.name_of(call)).submit(label)
    if terminate:
        assert begun(side, label, "slow")
        task_id = next(one["id"] for one in side.recorded(label) if one.get("id"))
    else:
        (record,) = (one for one in orchestrator.store.load(run.run_id) if one.path == "0")
        header = orchestrator.store.header(run.run_id)
        assert header is not None
        task_id = task_id_of(header, record)
    side.app.control.revoke(task_id, terminate=terminate, signal="SIGKILL")
    assert settled(run) == "failed"
    assert run.result().error.code == "TASK_REVOKED"  # type: ignore[union-attr]


def test_a_cancel_lets_no_task_begin(steps: tuple[Side, Orchestrator]) -> None:
    """One that waits for its moment is revoked."""
    side, orchestrator = steps
    run = orchestrator.create_run(flows.name_of("countdown")).submit("canceled")
    run.cancel()
    assert settled(run) == "canceled"
    assert not wait_until(lambda: "add" in [one["what"] for one in side.recorded("canceled")], 3)
