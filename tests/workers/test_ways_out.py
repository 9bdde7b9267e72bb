"""Every way out of a function, and every way in which its process ends under it, on real workers of each pool.

The lease is a minute here: what goes on within seconds was given back by somebody who knew.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import celery
import pytest
import redis

from orchestrator import Orchestrator, Run
from tests.parity import calls
from tests.servers import PostgresServer, RabbitMQServer
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import ways, ways_app

Starter = Callable[..., WorkerNode]
SOON = 25.0
POOLS = ["prefork", "threads", "solo"]


@dataclass(frozen=True)
class Place:
    """A broker and a store of the test's own, and how to start workers there."""

    broker: str
    store: str
    start: Starter
    folder: Path
    settings: dict[str, Any]
    times: dict[str, float]

    def worker(self, pool: str = "prefork", env: dict[str, str] | None = None, **options: Any) -> WorkerNode:
        """Start a worker and wait until it is ready."""
        about = {
            "WAYS_BROKER": self.broker,
            "WAYS_STORE": self.store,
            "WAYS_SETTINGS": json.dumps(self.settings),
            "WAYS_TIMES": json.dumps(self.times),
            calls.FOLDER: os.environ[calls.FOLDER],
            **(env or {}),
        }
        return self.start("tests.workers.ways_app:app", env=about, cwd=self.folder, pool=pool, **options)

    @contextmanager
    def caller(self) -> Iterator[Orchestrator]:
        """An orchestrator as a caller has it."""
        app, orchestrator = ways_app.make(self.broker, self.store, self.settings, **self.times)
        try:
            with orchestrator:
                yield orchestrator
        finally:
            app.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis for the tests of this module."""
    server = LocalRedis(tmp_path_factory.mktemp("ways-redis")).start()
    yield server
    server.teardown()


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Note this test's calls in its folder, and give that."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv(calls.FOLDER, str(folder))
    return tmp_path


@pytest.fixture
def place(server: LocalRedis, worker_factory: Starter, noted: Path) -> Place:
    """One Redis for both, emptied for each test."""
    with server.client as client:
        client.flushall()
    return Place(server.database(0), server.database(1), worker_factory, noted, {}, {})


@pytest.fixture
def far_place(
    rabbitmq_server: RabbitMQServer, postgres_server: PostgresServer, worker_factory: Starter, noted: Path
) -> Place:
    """RabbitMQ, and a PostgreSQL, whose round trips are longer."""
    settings = {"task_default_queue": f"{rabbitmq_server.prefix}-{noted.name}"}
    return Place(rabbitmq_server.url(), postgres_server.new_schema(), worker_factory, noted, settings, {})


def ended(run: Run, seconds: float = SOON) -> str:
    """Wait until the run has ended, or waits."""
    wait_until(lambda: run.status not in ("pending", "running"), seconds, every=0.1)
    return str(run.status)


def at_work(run: Run, times: int = 1, name: str = "gate") -> None:
    """Wait until a step of the run has been called so often."""
    assert wait_until(lambda: calls.count(run.run_id, name) == times, SOON), run.status


def error_of(run: Run) -> str:
    """What a failed run has failed with."""
    error = run.result().error
    return f"{getattr(error, 'name', type(error).__name__).rsplit('.', 1)[-1]}: {error}"


# --- by itself --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_every_way_out_is_the_same_on_each_pool(place: Place, pool: str) -> None:
    """As the table says, which holds in the default runtime too; no worker ends by it."""
    worker = place.worker(pool, concurrency=4)
    own = {**ways.WAYS, "keyboard interrupt": ways.Way(ways.interrupt, "failed", "KeyboardInterrupt")}
    with place.caller() as caller:
        runs = {way: caller.create_run("leaving").submit(way) for way in own}
        found = {way: (ended(run), ways.found_in(run)) for way, run in runs.items()}
    wrong = {way: about for way, (_, about) in found.items() if replace(about, leave=own[way].leave) != own[way]}
    assert not wrong
    assert worker.running


# --- by a signal ------------------------------------------------------------------------------------------------------


def child_of(run: Run) -> int:
    """The process that is at work on the run."""
    return int(calls.calls(run.run_id, "gate")[-1]["pid"])


def _twice(worker: WorkerNode, number: int) -> None:
    os.kill(worker.pid, number)
    time.sleep(1)
    os.kill(worker.pid, number)


def _revoke(run: Run, caller: Orchestrator, name: str) -> None:
    found: list[str] = []

    def find() -> bool:
        active = caller.app.control.inspect(timeout=1).active() or {}  # type: ignore[union-attr]
        found[:] = [task["id"] for tasks in active.values() for task in tasks]
        return bool(found)

    assert wait_until(find, SOON)
    caller.app.control.revoke(found[0], terminate=True, signal=name)  # type: ignore[union-attr]


# What ends the process that is at work, and whether it takes its worker along.
ENDS: dict[str, tuple[Callable[[WorkerNode, Run, Orchestrator], object], bool]] = {
    "cold shutdown": (lambda worker, run, caller: os.kill(worker.pid, signal.SIGQUIT), True),
    "group": (lambda worker, run, caller: os.killpg(worker.pid, signal.SIGTERM), True),
    "Ctrl-C twice": (lambda worker, run, caller: _twice(worker, signal.SIGINT), True),
    "SIGTERM": (lambda worker, run, caller: os.kill(child_of(run), signal.SIGTERM), False),
    "SIGQUIT": (lambda worker, run, caller: os.kill(child_of(run), signal.SIGQUIT), False),
    "SIGKILL": (lambda worker, run, caller: os.kill(child_of(run), signal.SIGKILL), False),
    "revoked": (lambda worker, run, caller: _revoke(run, caller, "SIGTERM"), False),
    "revoked hard": (lambda worker, run, caller: _revoke(run, caller, "SIGKILL"), False),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_step_whose_process_is_ended_runs_again_at_once(place: Place, end: str) -> None:
    """Whoever ends it, and however: it has not failed, and nobody waits for its lease."""
    if end == "Ctrl-C twice" and celery.VERSION < (5, 5):
        pytest.skip("before 5.5 Celery waits for its tasks, however often it is interrupted")
    strike, takes_worker = ENDS[end]
    worker = place.worker(concurrency=2)
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run("gate").submit(str(opened))
        at_work(run)
        strike(worker, run, caller)
        if takes_worker:
            worker.process.wait_exit()
            place.worker(concurrency=2)
        at_work(run, 2)
        opened.touch()
        assert ended(run) == "success", (error_of(run), worker.process.tail())
        again = calls.calls(run.run_id, "gate")[1]
        assert (again["restarted"], again["attempt"]) == (True, 0)


@pytest.mark.parametrize("flow", ["swallowing", "cleaning", "awaiting", "inline-gate", "existing-gate"])
@pytest.mark.parametrize("end", ["SIGTERM", "group"])
def test_it_does_not_matter_what_the_function_makes_of_its_end(place: Place, flow: str, end: str) -> None:
    """It may swallow it, or fail while it cleans up; be a coroutine, go on inline, or be an existing task."""
    worker = place.worker(concurrency=1)
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run(flow, run_id="open").submit(str(opened))
        at_work(run)
        children = worker.child_pids()
        if end == "group":
            os.killpg(worker.pid, signal.SIGTERM)
            worker.process.wait_exit()
            place.worker(concurrency=1)
        else:
            os.kill(children[-1], signal.SIGTERM)
        at_work(run, 2)
        opened.touch()
        assert ended(run) == "success", (error_of(run), worker.process.tail())
        assert run.result().result == "through"


def test_a_remapped_sigterm_gives_back_after_the_soft_shutdown(place: Place) -> None:
    """As containers are stopped that ask for it."""
    settings = {"worker_soft_shutdown_timeout": 1.0}
    place = replace(place, settings=settings)
    worker = place.worker(concurrency=2, env={"REMAP_SIGTERM": "SIGQUIT"})
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run("gate").submit(str(opened))
        at_work(run)
        os.kill(worker.pid, signal.SIGTERM)
        worker.process.wait_exit()
        opened.touch()
        place.worker(concurrency=2)
        assert ended(run) == "success", (error_of(run), worker.process.tail())


def test_however_many_deployments_a_step_meets_it_does_not_fail(place: Place) -> None:
    """Only workers that are lost count, and not those that were told to stop."""
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run("gate").submit(str(opened))
        for deployment in range(4):
            worker = place.worker(concurrency=1)
            at_work(run, deployment + 1)
            os.killpg(worker.pid, signal.SIGTERM)
            worker.process.wait_exit()
        opened.touch()
        place.worker(concurrency=1)
        assert ended(run) == "success", error_of(run)


@pytest.mark.parametrize("pool", ["threads", "solo"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_where_steps_run_in_the_main_process_no_signal_fails_them(place: Place, pool: str, number: int) -> None:
    """They end there, or run again."""
    worker = place.worker(pool, concurrency=1)
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run("gate").submit(str(opened))
        at_work(run)
        os.kill(worker.pid, number)
        time.sleep(1)
        opened.touch()
        worker.process.wait_exit()
        place.worker(pool, concurrency=1)
        assert ended(run) == "success", (error_of(run), worker.process.tail())


# --- by a limit -------------------------------------------------------------------------------------------------------


def test_a_hard_limit_is_itself_and_retries_apply(place: Place) -> None:
    """Every time: the child that is killed has no say."""
    worker = place.worker(concurrency=4)
    with place.caller() as caller:
        failing = [caller.create_run("hang").submit(number) for number in range(6)]
        succeeding = [caller.create_run("hang-twice").submit(number) for number in range(4)]
        softly = caller.create_run("hang-softly").submit(1)
        existing = caller.create_run("existing-hang").submit(1)
        assert [ended(run, 60) for run in failing] == ["failed"] * 6
        assert {error_of(run).split(":")[0] for run in failing} == {"TimeLimitExceeded"}
        assert [calls.count(run.run_id, "hang") for run in failing] == [2] * 6
        assert [ended(run) for run in succeeding] == ["success"] * 4, worker.process.tail()
        assert [run.result().result for run in succeeding] == ["third attempt"] * 4
        assert (ended(softly), softly.result().result) == ("success", "second attempt")
        assert (ended(existing), error_of(existing).split(":")[0]) == ("failed", "TimeLimitExceeded")


def copy_messages(server: LocalRedis) -> None:
    """Put a copy behind each message that waits, as a broker does that has missed an acknowledgement."""
    with redis.Redis.from_url(server.database(0)) as broker:
        for text in broker.lrange("celery", 0, -1):
            message = json.loads(text)
            message["properties"]["delivery_tag"] += "-again"
            broker.lpush("celery", json.dumps(message))


def test_a_refused_copy_of_a_message_hides_neither_a_limit_nor_a_death(place: Place, server: LocalRedis) -> None:
    """Both copies come to one worker; that one has ended does not mean that the other has."""
    with place.caller() as caller:
        opened = place.folder / "open"
        hanging = caller.create_run("hang").submit(1)
        gated = caller.create_run("gate").submit(str(opened))
        copy_messages(server)
        worker = place.worker(concurrency=4)
        at_work(gated)
        assert wait_until(lambda: "succeeded" in worker.process.logs_since_start(), SOON)  # a copy, refused

        os.kill(child_of(gated), signal.SIGKILL)
        opened.touch()
        soon = ways_app.TIMES["lease_seconds"] - 10  # nobody waited for the end of a lease
        assert ended(gated, soon) == "success", worker.process.tail()
        assert calls.count(gated.run_id, "gate") == 2
        assert ended(hanging, soon) == "failed", worker.process.tail()
        assert error_of(hanging).startswith("TimeLimitExceeded")


def test_neither_a_limit_nor_a_stop_is_raced_on_slower_servers(far_place: Place) -> None:
    """The main process needs several round trips, and the child that dies takes none."""
    worker = far_place.worker(concurrency=4)
    with far_place.caller() as caller:
        failing = [caller.create_run("hang").submit(number) for number in range(6)]
        assert [ended(run, 60) for run in failing] == ["failed"] * 6, worker.process.tail()
        assert {error_of(run).split(":")[0] for run in failing} == {"TimeLimitExceeded"}
        assert [calls.count(run.run_id, "hang") for run in failing] == [2] * 6
        opened = far_place.folder / "open"
        stopped = [caller.create_run("gate").submit(str(opened)) for _ in range(4)]
        for run in stopped:
            at_work(run)
        os.killpg(worker.pid, signal.SIGTERM)
        worker.process.wait_exit()
        opened.touch()
        far_place.worker(concurrency=4)
        assert [ended(run) for run in stopped] == ["success"] * 4, [error_of(run) for run in stopped]
        assert [calls.count(run.run_id, "gate") for run in stopped] == [2] * 4


def test_a_child_that_dies_before_its_limit_is_a_loss_and_no_attempt(place: Place) -> None:
    """Whoever sees it first."""
    place.worker(concurrency=1)
    with place.caller() as caller:
        run = caller.create_run("dying").submit("x")
        assert ended(run) == "success", error_of(run)
        assert run.result().result == "attempt 0"


@pytest.mark.parametrize("flow", ["write-slowly", "read-slowly"])
def test_a_soft_limit_beside_the_function_is_a_failed_attempt(place: Place, flow: str) -> None:
    """While its input is read, or its output written."""
    place.worker(concurrency=1)
    with place.caller() as caller:
        flag = str(place.folder / "flag")
        run = caller.create_run(flow).submit(flag if flow == "write-slowly" else {"flag": flag})
        assert ended(run) == "success", error_of(run)
        assert Path(flag).exists()


@pytest.mark.parametrize("flow, settings", [
    ("soft-chain", {}), ("hard-chain", {}),
    ("bare-chain", {"task_soft_time_limit": 2}), ("bare-chain", {"task_time_limit": 2}),
])  # fmt: skip
def test_no_step_uses_up_the_limit_of_another(place: Place, flow: str, settings: dict[str, Any]) -> None:
    """Steps that would go on inline each get a message of their own, where there are limits."""
    place = replace(place, settings=settings)
    place.worker(concurrency=2)
    with place.caller() as caller:
        run = caller.create_run(flow).submit(1)
        assert ended(run) == "success", error_of(run)


def test_a_hook_does_not_run_under_the_limit_of_the_last_step(place: Place) -> None:
    """Nor does anything else."""
    place.worker(concurrency=1)
    with place.caller() as caller:
        run = caller.create_run("hooked").submit(1)
        assert ended(run) == "success"
        at_work(run, name="hook")  # it is called when the end is recorded


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_limit_that_the_step_heeds_is_no_cancel(place: Place, pool: str) -> None:
    """Where no pool ends it: its attempt has failed, and the next one is due."""
    place = replace(place, times={"lease_seconds": 1})
    place.worker(pool, concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("heeding").submit(1)
        assert ended(run) == "failed"
        assert error_of(run).startswith("TimeoutError")
        assert calls.count(run.run_id, "heeding") == 2


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_an_outcome_that_comes_too_late_is_not_recorded_and_told_so(place: Place, pool: str) -> None:
    """In the worker's log; it is no success there either."""
    place = replace(place, times={"lease_seconds": 1})
    worker = place.worker(pool, concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("late").submit(1)
        assert ended(run) == "failed"
        told = "its outcome is discarded"
        assert wait_until(lambda: told in worker.process.logs_since_start(), SOON), worker.process.tail()
        assert error_of(run).startswith("TimeoutError")


# --- by the lease -----------------------------------------------------------------------------------------------------


def test_a_step_that_holds_the_interpreters_lock_for_longer_than_its_lease_runs_twice(place: Place) -> None:
    """Its leases cannot be renewed. One outcome is recorded, and the other process is told so."""
    place = replace(place, times={"lease_seconds": 2})
    worker = place.worker(concurrency=2)
    with place.caller() as caller:
        run = caller.create_run("holding").submit()
        assert ended(run) == "success", worker.process.tail()
        assert run.get() == "second"
        assert [noted["restarted"] for noted in calls.calls(run.run_id, "holding")] == [False, True]
        text = "belongs to another worker by now"
        assert wait_until(lambda: text in worker.process.logs_since_start(), SOON), worker.process.tail()
        assert run.get() == "second"


def test_a_limit_whose_worker_dies_with_it_is_an_abandoned_attempt(place: Place) -> None:
    """The child is killed for its limit, and the process that would have ended the attempt as failed is, too."""
    place = replace(place, times={"lease_seconds": 2})
    worker = place.worker(concurrency=1)
    with place.caller() as caller:
        run = caller.create_run("hang").submit()
        at_work(run, name="hang")
        (child,) = {noted["pid"] for noted in calls.calls(run.run_id, "hang")}
        os.kill(worker.pid, signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        os.kill(worker.pid, signal.SIGKILL)
        other = place.worker(concurrency=1)
        assert ended(run) == "failed", other.process.tail()
        assert "TimeLimitExceeded" in error_of(run)
        noted = calls.calls(run.run_id, "hang")
        assert [(each["restarted"], each["attempt"]) for each in noted] == [(False, 0), (True, 0), (True, 1)]
