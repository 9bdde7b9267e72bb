"""Workers on gevent and eventlet: hundreds of steps in one thread, and one that stops the others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from orchestrator import Orchestrator
from tests.parity import calls
from tests.servers import PostgresServer, RabbitMQServer
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import green_app

Starter = Callable[..., WorkerNode]
SOON = 60.0  # seconds


@dataclass(frozen=True)
class Place:
    """A broker and a store of the test's own, and how to start workers of one pool there."""

    pool: str
    broker: str
    store: str
    start: Starter
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def worker(self, concurrency: int = 600, **options: Any) -> WorkerNode:
        """Start a worker and wait until it is ready."""
        env = {
            "GREEN_BROKER": self.broker,
            "GREEN_STORE": self.store,
            "GREEN_SETTINGS": json.dumps(self.settings),
            "GREEN_OPTIONS": json.dumps(options),
            calls.FOLDER: os.environ[calls.FOLDER],
        }
        app = "tests.workers.green_app:app"
        return self.start(app, env=env, cwd=self.folder, pool=self.pool, concurrency=concurrency)

    @contextmanager
    def caller(self) -> Iterator[Orchestrator]:
        """An orchestrator as a caller has it."""
        app, orchestrator = green_app.make(self.broker, self.store, self.settings)
        try:
            with orchestrator:
                yield orchestrator
        finally:
            app.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis for the tests of this module."""
    server = LocalRedis(tmp_path_factory.mktemp("green-redis")).start()
    yield server
    server.teardown()


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Note this test's calls in its folder, and give that."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv(calls.FOLDER, str(folder))
    return tmp_path


@pytest.fixture(params=["gevent", "eventlet"])
def pool(request: pytest.FixtureRequest) -> str:
    """Each of the two, where it is installed."""
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture
def place(pool: str, server: LocalRedis, worker_factory: Starter, noted: Path) -> Place:
    """One Redis for both, emptied for each test."""
    with server.client as client:
        client.flushall()
    return Place(pool, server.database(0), server.database(1), worker_factory, noted)


@pytest.fixture
def far_place(
    pool: str,
    rabbitmq_server: RabbitMQServer,
    postgres_server: PostgresServer,
    worker_factory: Starter,
    noted: Path,
) -> Place:
    """RabbitMQ and PostgreSQL."""
    settings = {"task_default_queue": f"{rabbitmq_server.prefix}-{noted.name}"}
    return Place(pool, rabbitmq_server.url(), postgres_server.new_schema(), worker_factory, noted, settings)


def test_async_steps_run_side_by_side(place: Place) -> None:
    """Each has an event loop, though all greenlets share a thread."""
    place.worker()
    with place.caller() as caller:
        began = time.monotonic()
        run = caller.create_run("async-many").submit([1.0] * 50)
        assert run.get(timeout=SOON) == [1.0] * 50
        assert time.monotonic() - began < 25  # one after the other would be 50


def test_hundreds_of_steps_wait_in_one_worker(place: Place) -> None:
    """500 at once, and each of them once."""
    place.worker()
    with place.caller() as caller:
        run = caller.create_run("many").submit([4.0] * 500)
        assert len(run.get(timeout=2 * SOON)) == 500
        assert calls.count(run.run_id, "wait") == 500


@pytest.mark.parametrize("flow, seconds", [("long", 3 * green_app.LEASE), ("computing", 3 * green_app.LEASE)])
def test_a_step_keeps_its_lease(place: Place, flow: str, seconds: float) -> None:
    """Whether it waits, or stops all greenlets of its worker for longer than its lease, beside a worker that looks."""
    for _ in range(2):
        place.worker(concurrency=20)
    with place.caller() as caller:
        run = caller.create_run(flow).submit(seconds)
        assert run.get(timeout=SOON) == seconds
        assert calls.count(run.run_id, {"long": "wait", "computing": "compute"}[flow]) == 1


def test_on_rabbitmq_and_postgresql_too(far_place: Place) -> None:
    """Where waiting for the database is our own."""
    far_place.worker(concurrency=50)
    with far_place.caller() as caller:
        run = caller.create_run("many").submit([0.5] * 40)
        assert run.get(timeout=SOON) == [0.5] * 40
        computing = caller.create_run("computing").submit(3 * green_app.LEASE)
        assert computing.get(timeout=SOON) == 3 * green_app.LEASE
        assert calls.count(computing.run_id, "compute") == 1


def test_a_step_hears_of_a_cancel(place: Place) -> None:
    """By its signal, which greenlets wait for."""
    place.worker(concurrency=20)
    with place.caller() as caller:
        run = caller.create_run("watching").submit(1)
        assert wait_until(lambda: calls.count(run.run_id, "watch") == 1, SOON)
        began = time.monotonic()
        run.cancel()
        assert wait_until(lambda: run.status == "canceled", SOON)
        assert wait_until(lambda: calls.count(run.run_id, "heard") == 1, SOON)
        assert time.monotonic() - began < 20  # it would wait for 30 s


def test_what_is_unsent_goes_out_before_the_process_ends(far_place: Place) -> None:
    """Published events of a step that ends just before its worker does."""
    worker = far_place.worker(concurrency=20, publish_events=True)
    queue = Queue(f"{far_place.settings['task_default_queue']}-events", Exchange("orchestrator.events", "topic"), "#")
    with far_place.caller() as caller, Connection(far_place.broker) as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        run = caller.create_run("writing").submit(1)
        assert run.get(timeout=SOON) == 1
        worker.terminate()
        kinds = []
        while (message := bound.get(no_ack=True)) is not None:
            kinds.append(message.payload["type"])
        bound.delete()
    assert "workflow-finish" in kinds
    assert b"Traceback" not in worker.process.logs(), worker.process.logs().decode()[-6000:]
