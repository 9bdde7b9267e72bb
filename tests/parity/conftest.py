"""The fixture `runtime`: the same tests on every runtime.

`local` runs in this process over a memory store; `celery-memory` on a Celery worker in a thread, with an in-memory
broker and SQLite; `celery-redis` on a worker process, with Redis as broker and store; `celery-rabbitmq` on a worker
process, with RabbitMQ and PostgreSQL. Workers live as long as the session.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.contrib.testing.worker import start_worker

from orchestrator import Orchestrator
from tests.parity import calls
from tests.parity.flows import all_workflows
from tests.parity.harness import TIMES, Harness, Place
from tests.servers import PostgresServer, RabbitMQServer, RedisServer
from tests.vendor import WorkerNode

RUNTIMES = ["local", "celery-memory", "celery-redis", "celery-rabbitmq"]
SLOTS = 4


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, calls_folder: Path) -> Harness:
    """Give one runtime after the other."""
    place: Place = request.getfixturevalue("place_" + request.param.replace("-", "_"))
    monkeypatch.setenv(calls.FOLDER, str(_calls_of(calls_folder, place.name)))
    return Harness(place)


@pytest.fixture(scope="session")
def calls_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the call counters, one folder for each runtime inside."""
    return tmp_path_factory.mktemp("parity-calls")


def _calls_of(folder: Path, runtime: str) -> Path:
    path = folder / runtime
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def place_local() -> Place:
    """No broker, and one memory store for all of this session's runs."""
    return Place("local", f"memory://parity-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def place_celery_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A real worker in a thread of this process, with an app of its own."""
    store = f"sqlite:///{tmp_path_factory.mktemp('parity-sqlite') / 'runs.db'}"
    place = Place("celery-memory", store, "memory://", "cache+memory://")
    app = place.app()
    with (
        Orchestrator(app, store=store, workflows=all_workflows(), **TIMES),
        start_worker(app, pool="threads", concurrency=SLOTS, perform_ping_check=False),
    ):
        yield place


@pytest.fixture(scope="session")
def place_celery_redis(
    redis_server: RedisServer,
    session_worker_factory: Callable[..., WorkerNode],
    calls_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    """A prefork worker process on Redis, in databases that other tests' workers do not use."""
    place = Place("celery-redis", redis_server.url(5), redis_server.url(4), redis_server.url(6))
    return _with_worker(place, session_worker_factory, calls_folder, tmp_path_factory)


@pytest.fixture(scope="session")
def place_celery_rabbitmq(
    rabbitmq_server: RabbitMQServer,
    postgres_server: PostgresServer,
    session_worker_factory: Callable[..., WorkerNode],
    calls_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    """A prefork worker process on RabbitMQ and PostgreSQL."""
    store = postgres_server.new_schema()
    backend = "db+" + postgres_server.new_schema()
    place = Place("celery-rabbitmq", store, rabbitmq_server.url(), backend)
    return _with_worker(place, session_worker_factory, calls_folder, tmp_path_factory)


def _with_worker(
    place: Place, start: Callable[..., WorkerNode], calls_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """Start the worker process of a place."""
    env = {
        "BROKER_URL": str(place.broker),
        "RESULT_BACKEND": str(place.backend),
        "ORCHESTRATOR_STORE": place.store,
        calls.FOLDER: str(_calls_of(calls_folder, place.name)),
    }
    folder = tmp_path_factory.mktemp(f"worker-{place.name}")
    start("tests.parity.worker_app:app", env=env, cwd=folder, pool="prefork", concurrency=SLOTS)
    return place
