"""Runs in Flower: asked over HTTP, on real processes; and the rules by which Celery's monitors keep a task's state."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from celery import Celery
from celery.events.state import State

from orchestrator import Orchestrator, Run, RunStatus
from orchestrator.canvas.monitoring import Monitor
from orchestrator.rules.model import RunHeader
from tests.vendor import REPOSITORY, LocalProcess, LocalRedis, WorkerNode, free_port, local_worker, wait_until
from tests.workers import flower_app

pytest.importorskip("flower")
SOON = 30.0
APP = "tests.workers.flower_app:app"


@dataclass
class Place:
    """A broker, a store and a Flower that listens to the broker."""

    redis: LocalRedis
    port: int

    def ask(self, path: str) -> Any:
        """Return the answer of Flower's HTTP interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/{path}", timeout=10) as answer:
            return json.load(answer)

    def listens(self) -> bool:
        """Return True once Flower answers and has heard of a worker."""
        try:
            return bool(self.ask("workers?refresh=1"))
        except (OSError, URLError):
            return False

    def rows(self, run: Run) -> list[dict[str, Any]]:
        """All that Flower knows of the run.

        Its own row and those of its steps, found by the run's id as a user would.
        """
        found = self.ask(f"tasks?search=kwargs:{run.run_id}")
        return sorted(found.values(), key=lambda row: (row["received"] or 0, row["name"] or ""))

    def row(self, run: Run) -> dict[str, Any]:
        """The run's own row; empty while there is none."""
        try:
            found: dict[str, Any] = self.ask(f"task/info/{run.run_id}")
        except URLError:
            return {}
        return found

    def steps(self, run: Run) -> list[tuple[str, str]]:
        """Name and state of the rows below the run."""
        return sorted((row["name"], row["state"]) for row in self.rows(run) if row["uuid"] != run.run_id)

    def becomes(self, run: Run, state: str) -> dict[str, Any]:
        """The run's row, once it has this state."""
        assert wait_until(lambda: self.row(run).get("state") == state, SOON, every=0.1), (state, self.row(run))
        return self.row(run)


def flower(redis: LocalRedis, folder: Path, port: int) -> LocalProcess:
    """A Flower of the tests' own."""
    command = [sys.executable, "-m", "celery", "-A", APP, "flower", f"--port={port}", "--address=127.0.0.1"]
    servers = {"WATCHED_BROKER": redis.database(0), "WATCHED_STORE": redis.database(1)}
    env = {**os.environ, **servers, "FLOWER_UNAUTHENTICATED_API": "true", "PYTHONPATH": str(REPOSITORY)}
    return LocalProcess("flower", command, cwd=folder, env=env, log=folder / "flower.log")


def worker(redis: LocalRedis, folder: Path, **options: Any) -> WorkerNode:
    """A worker of the tests' own."""
    env = {"WATCHED_BROKER": redis.database(0), "WATCHED_STORE": redis.database(1)}
    return local_worker(APP, env=env, cwd=folder, concurrency=2, log=folder / f"worker-{free_port()}.log", **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Redis, a worker that sends events, and Flower."""
    folder = tmp_path_factory.mktemp("flower")
    redis = LocalRedis(folder / "redis").start()
    place = Place(redis, free_port())
    process = flower(redis, folder, place.port)
    sending = worker(redis, folder, extra_args=["-E"])
    try:
        process.start()
        assert wait_until(place.listens, SOON, every=0.2), process.tail()
        yield place
    finally:
        process.remove()
        sending.teardown()
        redis.teardown()


@pytest.fixture
def caller(place: Place) -> Iterator[Orchestrator]:
    """An orchestrator as a caller has it."""
    settings = {"worker_send_task_events": True}
    app, orchestrator = flower_app.make(place.redis.database(0), place.redis.database(1), **settings)
    with orchestrator:
        yield orchestrator
    app.close()


def test_a_run_is_one_row_that_waits_goes_on_and_ends(place: Place, caller: Orchestrator) -> None:
    """Its steps stand below it by their own names, and nothing else does."""
    run = caller.create_run("checkout")
    assert run.start({}, timeout=SOON).status == RunStatus.SUSPENDED

    row = place.becomes(run, "SUSPENDED")
    assert (row["name"], row["result"], row["parent_id"]) == ("checkout", "1 suspended", None)
    doubled = [("checkout.double", "SUCCESS")] * 3
    before = [("checkout.approve", "SUCCESS"), ("checkout.collect", "SUCCESS"), *doubled]
    assert wait_until(lambda: place.steps(run) == before, SOON, every=0.1), place.steps(run)

    assert run.resume(data=True, timeout=SOON).status == RunStatus.SUCCESS
    row = place.becomes(run, "SUCCESS")
    after = [
        ("checkout.approve", "SUCCESS"),  # once until it waited, once with the answer
        ("checkout.approve", "SUCCESS"),
        ("checkout.charge", "RETRY"),
        ("checkout.charge", "SUCCESS"),
        ("checkout.collect", "SUCCESS"),
        *doubled,
    ]
    assert wait_until(lambda: place.steps(run) == after, SOON, every=0.1), place.steps(run)
    assert row["result"] == "'charged'"
    assert row["retried"] is None
    assert row["runtime"] > 0
    rows = place.rows(run)
    assert {row["root_id"] for row in rows} == {run.run_id}
    assert {row["parent_id"] for row in rows} == {None, run.run_id}
    assert set(place.row(run)["children"]) == {row["uuid"] for row in rows} - {run.run_id}
    assert len(place.ask("workers")) == 1, "an event under another name made up a worker"


def test_a_failed_step_and_its_run_show_as_failed(place: Place, caller: Orchestrator) -> None:
    """The step's row has the error and its stack; for Celery the task itself has not failed."""
    run = caller.create_run("failing")
    assert run.start(1, timeout=SOON).status == RunStatus.FAILED

    row = place.becomes(run, "FAILURE")
    assert row["exception"] == "ValueError('not this one')"
    wanted = [("failing.refuse", "FAILURE"), ("failing.same", "SUCCESS")]
    assert wait_until(lambda: place.steps(run) == wanted, SOON, every=0.1), place.steps(run)
    [failed] = [row for row in place.rows(run) if row["name"] == "failing.refuse"]
    assert failed["exception"] == "ValueError('not this one')"
    assert 'raise ValueError("not this one")' in failed["traceback"]


def test_an_existing_task_shows_under_its_own_name(place: Place, caller: Orchestrator) -> None:
    """With its own arguments; it is a child of its run, and fails as such. The message that sends it is a step's."""
    run = caller.create_run("stamping")
    assert run.start("bad", timeout=SOON).status == RunStatus.FAILED

    def of_task() -> list[tuple[str, str, str]]:
        found = place.ask("tasks?taskname=shop.stamp").values()
        return [(row["state"], row["args"], row["kwargs"]) for row in found if row["root_id"] == run.run_id]

    assert wait_until(lambda: of_task() == [("FAILURE", "['bad']", "{}")], SOON, every=0.1), of_task()
    assert ("stamping.stamp", "SUCCESS") in place.steps(run)
    place.becomes(run, "FAILURE")


def test_a_canceled_run_shows_as_revoked_though_no_worker_hears_of_it(place: Place, caller: Orchestrator) -> None:
    """A caller sends the event in the name of a worker that lives."""
    run = caller.create_run("checkout")
    run.start({}, timeout=SOON)
    place.becomes(run, "SUSPENDED")
    run.cancel()
    place.becomes(run, "REVOKED")
    assert len(place.ask("workers")) == 1


def test_rows_come_once_flower_has_enabled_events(place: Place, caller: Orchestrator, tmp_path: Path) -> None:
    """A worker without -E pays for nothing until Flower's remote command reaches it."""
    redis = LocalRedis(tmp_path / "redis").start()
    quiet = Place(redis, free_port())
    process, silent = flower(redis, tmp_path, quiet.port), worker(redis, tmp_path, pool="threads")
    app, orchestrator = flower_app.make(redis.database(0), redis.database(1))
    try:
        with orchestrator:
            unseen = orchestrator.create_run("stamping")
            assert unseen.start("good", timeout=SOON).status == RunStatus.SUCCESS
            process.start()

            def shown() -> bool:
                run = orchestrator.create_run("stamping")
                assert run.start("good", timeout=SOON).status == RunStatus.SUCCESS
                return wait_until(lambda: quiet.row(run).get("state") == "SUCCESS", 0.5, every=0.1)

            assert wait_until(quiet.listens, SOON, every=0.2), process.tail()
            assert wait_until(shown, SOON)
            assert quiet.row(unseen) == {}
    finally:
        app.close()
        process.remove()
        silent.teardown()
        redis.teardown()


# --- the rules of the state that monitors keep ------------------------------------------------------------------------


class Heard:
    """A monitor and what Celery's own state makes of its events, over a broker in this process."""

    def __init__(self) -> None:
        self.app = Celery("heard", broker="memory://localhost/", set_as_current=False)
        self.monitor = Monitor(self.app, lambda: ["somebody@here"])
        self.state = State()
        self.types: list[str] = []
        self.given = self.app.connection_for_read()
        self.consuming = self.app.events.Receiver(self.given, handlers={"*": self.hear}).consumer_context()
        self.connection, *_ = self.consuming.__enter__()

    def hear(self, event: dict[str, Any]) -> None:
        self.types.append(event["type"])
        self.state.event(event)

    def close(self) -> None:
        self.consuming.__exit__(None, None, None)
        self.given.close()
        self.app.close()

    def after(self, call: Callable[[], None]) -> str | None:
        """The run's state once the monitor has spoken; None where it has no row."""
        call()
        with suppress(TimeoutError):
            while True:
                self.connection.drain_events(timeout=0.05)
        row = self.state.tasks.get("r1")
        return None if row is None else str(row.state)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """As a worker's process has it, with events enabled."""
    heard = Heard()
    heard.monitor.attend("worker@here")
    heard.monitor.switch(True)
    yield heard
    heard.close()


RUNNING = RunHeader(run_id="r1", workflow_id="flow", status="running", created_at=1_000, started_at=2_000)


def test_a_run_can_leave_every_state_again(heard: Heard) -> None:
    """Monitors keep the highest state they heard of; a resume, a restart and a cancel come through all the same."""
    monitor = heard.monitor

    def now(header: RunHeader) -> str | None:
        return heard.after(lambda: monitor.on_progress(header))

    def end(header: RunHeader, error: BaseException | None = None) -> str | None:
        return heard.after(lambda: monitor.on_end(header, lambda: "done", lambda: error))

    assert now(RUNNING) == "STARTED"
    assert now(replace(RUNNING, status="suspended", suspended=1, settle_count=1)) == "SUSPENDED"
    assert now(replace(RUNNING, settle_count=1)) == "STARTED"
    assert now(replace(RUNNING, status="paused", paused=1, settle_count=2)) == "SUSPENDED"
    assert now(replace(RUNNING, settle_count=2)) == "STARTED"
    assert end(replace(RUNNING, status="failed", settle_count=2), ValueError("no")) == "FAILURE"
    assert now(replace(RUNNING, settle_count=3, generation=1)) == "STARTED"
    assert heard.state.tasks["r1"].exception is None
    assert end(replace(RUNNING, status="success", settle_count=3, generation=1)) == "SUCCESS"
    assert now(replace(RUNNING, settle_count=4, generation=2)) == "STARTED"
    assert now(replace(RUNNING, status="suspended", waiting=1, settle_count=5, generation=2)) == "SUSPENDED"
    assert end(replace(RUNNING, status="canceled", settle_count=6, generation=2)) == "REVOKED"
    row = heard.state.tasks["r1"]
    assert (row.name, row.received, row.started, row.retries) == ("flow", 1.0, 2.0, 2)
    assert list(heard.state.workers) == ["worker@here"]


def test_a_stretch_is_told_once_per_process(heard: Heard) -> None:
    """However many steps a process runs between two settlings."""
    for _ in range(3):
        heard.after(lambda: heard.monitor.on_progress(RUNNING))
    assert heard.types == ["task-received", "task-started"]


def test_nothing_is_sent_while_events_are_disabled(heard: Heard) -> None:
    """Nor is the run's result read."""
    heard.monitor.switch(False)

    def ended() -> None:
        heard.monitor.on_end(replace(RUNNING, status="success"), lambda: pytest.fail("read"), lambda: None)

    assert heard.after(lambda: heard.monitor.on_progress(RUNNING)) is None
    assert heard.after(ended) is None


def test_a_broker_that_is_away_fails_no_step(caplog: pytest.LogCaptureFixture) -> None:
    """The events of a while are lost, so that not each of them waits for the broker, and the log says so."""
    app = Celery("deaf", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    monitor = Monitor(app, list)
    monitor.attend("worker@here")
    monitor.switch(True)
    for number in range(100):
        monitor.on_progress(replace(RUNNING, run_id=f"r{number}"))
    assert [record.getMessage() for record in caplog.records if record.name == "orchestrator"] == [
        "run r0 is not shown in monitors, and no run is for the next 30 s"
    ]
    app.close()
