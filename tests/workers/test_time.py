"""Time on real workers: sleeps, timeouts, retries, leases, lost messages, a broker that is away.

Everything is counted from outside. Where a test has to wait for something it waits for that, and not for a time;
upper bounds are generous, since the machine may have other things to do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Orchestrator, Run, RunStatus
from orchestrator.testing import VirtualClock
from tests.parity import calls
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import time_app

Starter = Callable[..., WorkerNode]
SOON = 20.0


@dataclass
class Place:
    """A broker and a store of the test's own, and how to start workers there."""

    broker: str
    store: str
    env: dict[str, str]
    start: Starter
    folder: Path

    def worker(self, pool: str = "threads", **options: Any) -> WorkerNode:
        """Start a worker and wait until it is ready."""
        return self.start("tests.workers.time_app:app", env=self.env, cwd=self.folder, pool=pool, **options)

    @contextmanager
    def caller(self, **settings: Any) -> Iterator[Orchestrator]:
        """An orchestrator as a caller has it."""
        app, orchestrator = time_app.make(self.broker, self.store, **settings)
        try:
            with orchestrator:
                yield orchestrator
        finally:
            app.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis for the tests of this module."""
    server = LocalRedis(tmp_path_factory.mktemp("time-redis")).start()
    yield server
    server.teardown()


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder in which this test's calls are noted."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv(calls.FOLDER, str(folder))
    return folder


@pytest.fixture
def place(server: LocalRedis, worker_factory: Starter, noted: Path, tmp_path: Path) -> Place:
    """Both on one Redis, emptied for each test."""
    with server.client as client:
        client.flushall()
    return at(server.database(0), server.database(1), worker_factory, noted, tmp_path)


def at(broker: str, store: str, start: Starter, noted: Path, folder: Path, **settings: Any) -> Place:
    """A place on these servers."""
    env = {"TIME_BROKER": broker, "TIME_STORE": store, calls.FOLDER: str(noted), "TIME_SETTINGS": json.dumps(settings)}
    return Place(broker, store, env, start, folder)


def times(run: Run, name: str) -> list[float]:
    """When a step of the run was called, in order."""
    return [call["at"] for call in calls.calls(run.run_id, name)]


def ended(run: Run, seconds: float = SOON) -> RunStatus:
    """Wait for the run's end by its status alone, as a caller without events does."""
    wait_until(run.ready, seconds)
    return run.status


# --- timers -----------------------------------------------------------------------------------------------------------


def test_a_sleep_longer_than_the_visibility_timeout_goes_on_once(
    server: LocalRedis, worker_factory: Starter, noted: Path, tmp_path: Path
) -> None:
    """No worker has an unacknowledged message meanwhile, so Redis has none to give to somebody else."""
    settings = {"broker_transport_options": {"visibility_timeout": 2}}
    place = at(server.database(2), server.database(3), worker_factory, noted, tmp_path, **settings)
    place.worker()
    place.worker()
    with place.caller(**settings) as caller:
        began = time.time()
        run = caller.create_run(time_app.napping)
        assert run.start(7, timeout=30).result == 7
        assert times(run, "after")[0] - began >= 5
        time.sleep(2.5)  # one visibility timeout more: a second delivery would come now
        assert calls.count(run.run_id, "after") == 1


def test_an_overdue_timer_fires_at_once_when_workers_come_up_late(place: Place) -> None:
    """The moment passes while no worker lives."""
    with place.caller() as caller:
        run = caller.create_run(time_app.dozing).submit(1)
        time.sleep(1.2)  # the timer's moment passes
        assert calls.count(run.run_id, "after") == 0
        place.worker()
        ready = time.time()
        assert ended(run) == "success"
        assert times(run, "after")[0] - ready < 3


def test_timers_fire_once_with_several_schedulers(place: Place) -> None:
    """Each worker has a scheduler; each timer is one of theirs, once."""
    for _ in range(3):
        place.worker()
    with place.caller() as caller:
        runs = [caller.create_run(time_app.dozing).submit(number) for number in range(25)]
        assert [ended(run) for run in runs] == ["success"] * 25
        assert [calls.count(run.run_id, "after") for run in runs] == [1] * 25


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_wait_that_runs_out_of_time_goes_on_on_workers(place: Place, pool: str) -> None:
    """Without an entry for that it fails the run, else that entry's output is the wait's."""
    place.worker(pool)
    with place.caller() as caller:
        failing, going_on = caller.create_run(time_app.waiting), caller.create_run(time_app.patient)
        assert failing.start(1, timeout=SOON).status == "suspended"
        going_on.submit(1)
        assert (ended(failing), ended(going_on)) == ("failed", "success")
        assert "no event 'paid'" in str(failing.result().error)
        assert going_on.result().result == "too late"
        assert calls.count(failing.run_id, "after") == 0
        assert calls.count(going_on.run_id, "too_late") == 1


def test_an_event_in_time_leaves_the_timeout_without_effect(place: Place) -> None:
    """The timer was there, and has no effect."""
    place.worker()
    with place.caller() as caller:
        run = caller.create_run(time_app.patient)
        assert run.start(1, timeout=SOON).status == "suspended"
        run.send_event("paid", "in time")
        assert ended(run) == "success"
        time.sleep(1.0)  # the timeout's moment passes
        assert run.result().result == "in time"
        assert calls.count(run.run_id, "too_late") == 0


# --- timeouts on the default runtime ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def local_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store for runs of this process."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.mark.usefixtures("noted")
def test_a_wait_that_runs_out_of_time_goes_on_in_this_process(local_store: str) -> None:
    """The blocking call has come back long before; the process lives on."""
    with Orchestrator(store=local_store, workflows=time_app.ALL) as orchestrator:
        failing, going_on = orchestrator.create_run("waiting"), orchestrator.create_run("patient")
        assert (failing.start(1).status, going_on.start(1).status) == ("suspended", "suspended")
        assert (ended(failing), ended(going_on)) == ("failed", "success")
        assert "no event 'paid'" in str(failing.result().error)
        assert going_on.result().result == "too late"
        assert calls.count(going_on.run_id, "after") == 1


@pytest.mark.usefixtures("noted")
def test_an_event_in_time_comes_before_the_timeout_in_this_process(local_store: str) -> None:
    """Afterwards the timer finds no wait."""
    with Orchestrator(store=local_store, workflows=time_app.ALL) as orchestrator:
        run = orchestrator.create_run("patient")
        run.start(1)
        run.send_event("paid", "in time")
        assert ended(run) == "success"
        time.sleep(0.8)  # the timeout's moment passes
        assert run.result().result == "in time"
        assert calls.count(run.run_id, "too_late") == 0


@pytest.mark.usefixtures("noted")
def test_another_process_sees_to_the_timeouts_of_one_that_died(tmp_path: Path) -> None:
    """`restart_active` at its boot is enough."""
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with Orchestrator(store=store, workflows=time_app.ALL) as before:
        run_id = before.create_run("patient").start(1).run_id
    time.sleep(0.7)  # the timeout's moment passes while nobody is there
    with Orchestrator(store=store, workflows=time_app.ALL) as orchestrator:
        run = orchestrator.get_run(run_id)
        assert run.status == "suspended"
        assert orchestrator.restart_active() == []
        assert ended(run) == "success"


@pytest.mark.usefixtures("noted")
def test_a_timeout_goes_by_the_clock_of_the_store() -> None:
    """A clock that stands still stops it, and the timer never moves the clock on by itself."""
    from orchestrator.stores import MemoryStore

    clock = VirtualClock()
    with Orchestrator(store=MemoryStore(clock), workflows=time_app.ALL) as orchestrator:
        run = orchestrator.create_run("patient")
        before = clock.now()
        run.start(1)
        time.sleep(0.8)  # by this clock the timeout would be over
        assert (run.status, clock.now()) == ("suspended", before)
        clock.advance(1)
        assert ended(run) == "success"


# --- retries and leases -----------------------------------------------------------------------------------------------


def test_attempts_on_workers_are_as_far_apart_as_was_said(place: Place) -> None:
    """Once each, on any worker: after a fixed pause, and after one that doubles."""
    place.worker()
    place.worker()
    with place.caller() as caller:
        fixed, doubling = caller.create_run(time_app.retrying), caller.create_run(time_app.backing)
        doubling.submit(1)
        assert fixed.start(1, timeout=SOON).result == 2
        assert ended(doubling) == "success"
        first, second, third = times(fixed, "flaky")
        assert min(second - first, third - second) >= 0.49
        first, second, third = times(doubling, "backing_off")
        assert second - first >= 0.99
        assert third - second >= 1.99


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_another_worker_takes_over_from_one_that_is_killed(place: Place, pool: str) -> None:
    """After the lease, under the same key, and the step may know of it."""
    doomed = place.worker(pool)
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run(time_app.gated).submit(str(opened))
        assert wait_until(lambda: calls.count(run.run_id, "gate") == 1, SOON)
        doomed.kill()
        opened.touch()
        place.worker(pool)
        assert ended(run) == "success"
        first, second = calls.calls(run.run_id, "gate")
        assert (first["restarted"], second["restarted"]) == (False, True)
        assert first["key"] == second["key"]
        assert first["pid"] != second["pid"]
        assert calls.count(run.run_id, "after") == 1


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_warm_shutdown_ends_an_inline_chain_soon_and_another_worker_goes_on(place: Place, pool: str) -> None:
    """The step that runs is finished, the next one goes through the queue; nothing runs twice."""
    leaving = place.worker(pool)
    with place.caller() as caller:
        run = caller.create_run(time_app.chain).submit(1)
        begun = wait_until(lambda: calls.count(run.run_id, "link") >= 3, SOON)
        assert begun, (run.status, leaving.process.tail())
        before = calls.count(run.run_id, "link")
        leaving.terminate()
        assert calls.count(run.run_id, "link") <= before + 8, "it would have gone on for twenty"
        assert leaving.process.returncode == 0
        place.worker(pool)
        assert ended(run) == "success"
        noted = calls.calls(run.run_id, "link")
        assert len(noted) == time_app.LINKS
        assert len({call["pid"] for call in noted}) == 2


# --- messages ---------------------------------------------------------------------------------------------------------


def test_lost_messages_are_sent_again(place: Place) -> None:
    """The queue is emptied before a worker has read it."""
    with place.caller() as caller:
        runs = [caller.create_run(time_app.plain).submit(number) for number in range(5)]
        assert caller.app is not None
        with caller.app.connection_for_write() as connection:  # type: ignore[attr-defined]
            assert connection.default_channel.queue_purge("celery") == 5
        place.worker()
        assert [ended(run) for run in runs] == ["success"] * 5
        assert [calls.count(run.run_id, "after") for run in runs] == [1] * 5


def test_a_broker_that_is_away_when_a_step_ends_gets_the_message_later(
    redis_factory: Callable[[], LocalRedis], place: Place, noted: Path, tmp_path: Path
) -> None:
    """The result is committed; a scheduler publishes what follows once the broker is back."""
    broker = redis_factory()
    place = at(broker.url, place.store, place.start, noted, tmp_path)
    worker = place.worker()
    with place.caller() as caller:
        opened = place.folder / "open"
        run = caller.create_run(time_app.gated).submit(str(opened))
        assert wait_until(lambda: calls.count(run.run_id, "gate") == 1, SOON)
        broker.process.kill()
        opened.touch()
        done = wait_until(lambda: run.orchestrator.store.load(run.run_id, ["0"])[0].status == "success", SOON)
        assert done, worker.process.tail()
        assert calls.count(run.run_id, "after") == 0
        broker.process.start()
        broker.ready()
        assert ended(run, 60) == "success", worker.process.tail()
        assert calls.count(run.run_id, "gate") == 1
        assert calls.count(run.run_id, "after") == 1
