"""The vendor of local processes does what pytest-celery's containers do: start, kill, restart, tell of itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from pytest_celery import CeleryTestSetup

from tests.servers import PostgresServer, RabbitMQServer, RedisServer
from tests.vendor import LocalRedis, WorkerNode, wait_until

APP = """
import os
import time

from celery import Celery

app = Celery("trivial", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.broker_connection_retry_on_startup = True


@app.task(name="pid")
def pid():
    return os.getpid()


@app.task(name="stuck")
def stuck(path):
    open(path, "w").close()
    time.sleep(60)
"""

Factory = Callable[..., WorkerNode]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's project: one module with an app, imported from the working directory."""
    (tmp_path / "trivial.py").write_text(APP)
    return tmp_path


def client(broker: str, backend: str) -> Celery:
    """Make an app as a caller has it."""
    return Celery("caller", broker=broker, backend=backend, set_as_current=False)


@pytest.fixture
def environment(redis_server: RedisServer) -> dict[str, str]:
    """The worker's settings."""
    return {"BROKER": redis_server.url(0), "BACKEND": redis_server.url(1)}


def test_a_killed_worker_is_really_gone_and_its_successor_works(
    worker_factory: Factory, folder: Path, environment: dict[str, str]
) -> None:
    """Kill a prefork worker in the middle of a task: no process of it is left, and it can be started again."""
    worker = worker_factory("trivial:app", env=environment, cwd=folder, concurrency=2)
    with client(environment["BROKER"], environment["BACKEND"]) as app:
        first = app.send_task("pid").get(timeout=20)
        children = worker.child_pids()
        assert first in children
        started = folder / "started"
        app.send_task("stuck", [str(started)])
        assert wait_until(started.exists, 20)

        worker.kill()

        assert not worker.running
        assert worker.process.returncode == -9
        assert wait_until(lambda: not any(alive(pid) for pid in children), 10)
        worker.restart()
        assert worker.ready()
        second = app.send_task("pid").get(timeout=20)
    assert second in worker.child_pids()
    assert second not in children
    worker.assert_log_exists("Task pid")
    worker.assert_log_does_not_exist("never logged", timeout=1)


def alive(pid: int) -> bool:
    """Tell whether the process runs; one that has ended and waits to be reaped does not."""
    try:
        return f"{pid} (" in (stat := Path(f"/proc/{pid}/stat").read_text()) and ") Z " not in stat
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_sigterm_shuts_a_worker_down_warmly(
    worker_factory: Factory, folder: Path, environment: dict[str, str], pool: str
) -> None:
    """A warm shutdown ends with exit code 0, on the pools without children too."""
    worker = worker_factory("trivial:app", env=environment, cwd=folder, pool=pool, queues=[f"only-{pool}"])
    with client(environment["BROKER"], environment["BACKEND"]) as app:
        assert app.send_task("pid", queue=f"only-{pool}").get(timeout=20) == worker.pid
    worker.terminate()
    assert worker.process.returncode == 0


def test_a_worker_that_cannot_start_says_why_at_once(worker_factory: Factory, tmp_path: Path) -> None:
    """The error carries the end of the log."""
    with pytest.raises(Exception, match="without having logged|already exited"):
        worker_factory("nowhere:app", env={}, cwd=tmp_path)


def test_a_worker_runs_on_rabbitmq(
    worker_factory: Factory, folder: Path, rabbitmq_server: RabbitMQServer, redis_server: RedisServer
) -> None:
    """The virtual host made for this session takes a worker and its messages."""
    env = {"BROKER": rabbitmq_server.url(), "BACKEND": redis_server.url(2)}
    # The suite's own worker listens to the default queue of this virtual host.
    worker = worker_factory("trivial:app", env=env, cwd=folder, pool="threads", queues=["only-rabbitmq"])
    with client(env["BROKER"], env["BACKEND"]) as app:
        assert app.send_task("pid", queue="only-rabbitmq").get(timeout=20) == worker.pid


def test_postgresql_gives_schemas_of_their_own(postgres_server: PostgresServer) -> None:
    """Two schemas of one database do not see each other's tables."""
    import sqlalchemy

    one, other = (sqlalchemy.create_engine(postgres_server.new_schema()) for _ in range(2))
    try:
        with one.begin() as connection:
            connection.execute(sqlalchemy.text("create table things (id int)"))
        assert sqlalchemy.inspect(one).get_table_names() == ["things"]
        assert sqlalchemy.inspect(other).get_table_names() == []
    finally:
        one.dispose()
        other.dispose()


def test_a_redis_of_the_tests_own_keeps_its_data_over_a_kill(redis_factory: Callable[[], LocalRedis]) -> None:
    """Data acknowledged a second ago survives: the server writes an append-only file."""
    import time

    server = redis_factory()
    with server.client as redis:
        redis.set("key", "value")
    time.sleep(1.5)  # appendfsync everysec: there is no event to wait for
    server.kill("SIGKILL")
    assert server.status == "exited"
    server.restart()
    with server.client as redis:
        assert redis.get("key") == "value"


def test_celery_setup_works_on_local_processes(celery_setup: CeleryTestSetup) -> None:
    """pytest-celery's own entry point, with ping, control and a killed worker, needs no Docker here."""
    assert celery_setup.ready(ping=True, control=True)
    worker = celery_setup.worker
    assert worker is not None
    processes = worker.get_running_processes_info(["pid", "name"])
    assert os.getpid() in {process["pid"] for process in processes}
    worker.kill()
    worker.restart()
    assert celery_setup.ready(ping=True)
