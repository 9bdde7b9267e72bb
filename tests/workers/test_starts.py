"""Starts on real brokers: while the broker is away, and by name, with faults between the message and the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestrator import Orchestrator, RunFailed
from tests.servers import RabbitMQServer
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import starts_app
from tests.workers.test_scheduler import gone

Starter = Callable[..., WorkerNode]
SOON = 30.0  # far below the redelivery delay of these tests


class Place:
    """Servers of its own, an app on them here, and workers that are begun when a test wants them."""

    def __init__(self, broker: str, store: LocalRedis, start: Starter, cwd: Path) -> None:
        self.store = store
        urls = {"broker": broker, "store": store.database(0), "backend": store.database(1)}
        self._env = {f"STARTS_{name.upper()}": url for name, url in urls.items()}
        self._start, self._cwd, self.folder = start, cwd, cwd
        made: tuple[Celery, Orchestrator] = starts_app.make(**urls)
        self.app, self.orchestrator = made

    def worker(self, pool: str = "threads", **env: str) -> WorkerNode:
        """Begin a worker."""
        return self._start("tests.workers.starts_app:app", env={**self._env, **env}, cwd=self._cwd, pool=pool)

    def close(self) -> None:
        """Close the app here."""
        self.orchestrator.close()
        self.app.close()


@pytest.fixture
def on_rabbitmq(
    rabbitmq_server: RabbitMQServer, redis_factory: Callable[[], LocalRedis], worker_factory: Starter, tmp_path: Path
) -> Iterator[Place]:
    """A place on RabbitMQ."""
    place = Place(rabbitmq_server.url(), redis_factory(), worker_factory, tmp_path)
    yield place
    place.close()


@pytest.mark.parametrize("how", ["submit", "delay", "resume"])
def test_what_is_accepted_while_the_broker_is_away_goes_on_when_it_is_back(
    redis_factory: Callable[[], LocalRedis], worker_factory: Starter, tmp_path: Path, how: str
) -> None:
    """Within two ticks, and not after a redelivery delay."""
    broker = redis_factory()
    place = Place(broker.database(0), redis_factory(), worker_factory, tmp_path)
    place.app.conf.update(task_publish_retry=False, broker_transport_options={"max_retries": 0})
    worker = place.worker()
    run = place.orchestrator.create_run("asking" if how == "resume" else "plain")
    if how == "resume":
        assert run.start(1, timeout=SOON).status == "suspended"
    with gone(broker, "killed"):
        match how:
            case "delay":
                run = starts_app.plain.delay(4)
            case "resume":
                run.submit_resume(4)
            case _:
                run.submit(4)
        assert run.status == "running"
    began = time.monotonic()
    assert run.result(SOON).result == 8, worker.process.tail()
    assert time.monotonic() - began < SOON
    place.close()


def test_a_start_by_name_waits_for_a_store_that_is_away(on_rabbitmq: Place) -> None:
    """As a step does."""
    worker = on_rabbitmq.worker()
    assert on_rabbitmq.app.send_task("plain", [1]).get(SOON) == 2
    with gone(on_rabbitmq.store, "stopped"):
        result = on_rabbitmq.app.send_task("plain", [2])
        time.sleep(4)
    assert result.get(SOON) == 4, worker.process.tail()


def test_a_start_by_name_outlives_the_child_that_was_killed_in_it(on_rabbitmq: Place) -> None:
    """The run is in the message alone, so that comes again."""
    worker = on_rabbitmq.worker("prefork", STARTS_KILL="child")
    result = on_rabbitmq.app.send_task("struck", [3])
    assert result.get(SOON) == 6, worker.process.tail()


def test_a_start_by_name_outlives_the_worker_that_was_killed_in_it(on_rabbitmq: Place) -> None:
    """Between the creation of the run and its start, too: another worker starts it."""
    worker = on_rabbitmq.worker("prefork", STARTS_KILL="worker")
    result = on_rabbitmq.app.send_task("struck", [4])
    assert wait_until(lambda: worker.process.returncode is not None, SOON)
    assert on_rabbitmq.orchestrator.get_run(result.id).status == "pending"
    other = on_rabbitmq.worker()
    assert result.get(SOON) == 8, other.process.tail()


def test_a_message_that_comes_twice_starts_one_run(on_rabbitmq: Place) -> None:
    """Its id is the run's."""
    worker = on_rabbitmq.worker()
    result: Any = on_rabbitmq.app.send_task("plain", [5])
    on_rabbitmq.app.send_task("plain", [5], task_id=result.id)
    assert result.get(SOON) == 10, worker.process.tail()
    text = "has been started before: this message is a repetition"
    assert wait_until(lambda: text in worker.process.tail(200), SOON), worker.process.tail()


@pytest.mark.parametrize("killed", ["child", "worker"])
def test_an_on_start_that_kills_its_process_is_given_up_after_the_third(on_rabbitmq: Place, killed: str) -> None:
    """Else its message would take down one process after the other, for ever."""
    started = [on_rabbitmq.worker("prefork", STARTS_KILL=killed)]
    result = on_rabbitmq.app.send_task("deadly", [3])
    while killed == "worker" and len(started) < 4:
        worker = started[-1]
        assert wait_until(lambda: worker.process.returncode is not None, SOON)  # noqa: B023
        started.append(on_rabbitmq.worker("prefork", STARTS_KILL=killed))
    with pytest.raises(RunFailed, match="3 processes were lost while they started the run"):
        result.get(3 * SOON)
    assert len(Path(on_rabbitmq.folder, f"struck-{result.id}").read_text()) == 3
    assert on_rabbitmq.orchestrator.runs.get(result.id) is None
    assert on_rabbitmq.app.send_task("plain", [1]).get(SOON) == 2, started[-1].process.tail()


def test_a_worker_that_does_not_know_the_workflow_drops_its_message_and_parks_its_run(on_rabbitmq: Place) -> None:
    """Celery drops what it does not know; a run that is in the store waits for a worker that does."""
    few = on_rabbitmq.worker(STARTS_FEW="1")
    dropped = on_rabbitmq.app.send_task("plain", [1])
    text = "Received unregistered task of type 'plain'"
    assert wait_until(lambda: text in few.process.logs_since_start(), SOON), few.process.tail()
    run = on_rabbitmq.orchestrator.create_run("plain").submit(2)
    assert wait_until(lambda: "is parked" in few.process.logs_since_start(), SOON), few.process.tail()
    few.terminate()
    other = on_rabbitmq.worker()
    assert run.get(timeout=SOON) == 4, other.process.tail()
    assert on_rabbitmq.orchestrator.runs.get(dropped.id) is None
