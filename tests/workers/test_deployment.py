"""Deployments that are configured otherwise, on real workers: runs go on, or the worker says at its start why not."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from orchestrator import Orchestrator, Run
from orchestrator.cli import exits
from orchestrator.host import new_run_id
from tests.vendor import REPOSITORY, LocalRedis, WorkerNode, wait_until
from tests.workers import deployment_app

Starter = Callable[..., WorkerNode]
APP = "tests.workers.deployment_app:app"
SOON = 20.0  # far below the lease of these tests


class Place:
    """A broker and a store of its own, and an app with these settings here and on workers."""

    def __init__(self, redis: LocalRedis, start: Starter, folder: Path, settings: dict[str, Any]) -> None:
        self._start = start
        if "result_backend" in settings and settings["result_backend"] != "rpc://":
            settings["result_backend"] = redis.database(2)
        self._env = {
            "DEPLOYMENT_BROKER": redis.database(0),
            "DEPLOYMENT_STORE": redis.database(1),
            "DEPLOYMENT_SETTINGS": json.dumps(settings),
        }
        self.broker, self.folder = redis.database(0), folder
        if "sign_with" in settings:
            return  # which would be for this whole process
        made: tuple[Celery, Orchestrator] = deployment_app.make(redis.database(0), redis.database(1), dict(settings))
        self.app, self.orchestrator = made

    def worker(self, pool: str = "threads", app: str = APP, **options: Any) -> WorkerNode:
        """Begin a worker."""
        return self._start(app, env=self._env, cwd=self.folder, pool=pool, **options)

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Celery's."""
        command = [sys.executable, "-m", "celery", "-A", APP, *arguments]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **self._env}
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, check=False, text=True, timeout=60
        )

    def examine(self) -> tuple[int, dict[str, dict[str, str]]]:
        """Return the exit code of `doctor`, and its findings by their names."""
        done = self.celery("workflow", "doctor", "--json")
        assert done.stdout, done.stderr
        return done.returncode, {each["name"]: each for each in json.loads(done.stdout)["findings"]}

    def close(self) -> None:
        """Close the app here."""
        if hasattr(self, "app"):
            self.orchestrator.close()
            self.app.close()


@pytest.fixture
def deploy(
    redis_factory: Callable[[], LocalRedis], worker_factory: Starter, tmp_path: Path
) -> Iterator[Callable[..., Place]]:
    """Make places with settings."""
    made: list[Place] = []

    def make(**settings: Any) -> Place:
        made.append(Place(redis_factory(), worker_factory, tmp_path, settings))
        return made[-1]

    yield make
    for place in made:
        place.close()


def answer(run: Run) -> Any:
    """Resume a run that asks, and return its result."""
    assert wait_until(lambda: run.status == "suspended", SOON), run.status
    run.submit_resume(5)
    return run.get(timeout=SOON)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"task_serializer": "jsonish", "accept_content": ["jsonish"]}, id="JSON by another name"),
        pytest.param({"accept_content": ["application/json"]}, id="JSON by its content type"),
        pytest.param({"task_protocol": 1}, id="the first protocol"),
        pytest.param({"enable_utc": False, "timezone": "Asia/Tokyo"}, id="local times"),
        pytest.param(
            {
                "task_acks_late": True,
                "task_track_started": True,
                "task_ignore_result": True,
                "worker_prefetch_multiplier": 8,
                "worker_enable_remote_control": False,
                "result_backend": "redis",
            },
            id="late, tracked, without results and control",
        ),
    ],
)
def test_runs_go_on_where_settings_are_others(deploy: Callable[..., Place], settings: dict[str, Any]) -> None:
    """A step, a suspension, an existing task and a sleep; started here, and by name."""
    place = deploy(**settings)
    place.worker()

    run = place.orchestrator.create_run("asking").submit(3)
    named = place.app.send_task("asking", [5])
    assert answer(run) == 8
    assert wait_until(lambda: place.orchestrator.runs.get(named.id) is not None, SOON)
    assert answer(place.orchestrator.get_run(named.id)) == 10
    if "result_backend" in settings:
        assert AsyncResult(run.run_id, app=place.app).get(timeout=SOON) == 8


def test_steps_of_an_app_that_signs_its_messages_are_signed(deploy: Callable[..., Place], tmp_path: Path) -> None:
    """All callers are processes of their own: signing is for whole processes."""
    write_certificate(tmp_path)
    place = deploy(sign_with=str(tmp_path), task_serializer="auth", event_serializer="auth", accept_content=["auth"])
    place.worker()

    started = place.celery("workflow", "start", "asking", "3", "--run-id", "signed", "--timeout", "20")
    assert started.returncode == exits.HELD, started
    resumed = place.celery("workflow", "resume", "signed", "5", "--timeout", "20", "--json")
    assert resumed.returncode == exits.OK, resumed
    assert json.loads(resumed.stdout)["result"] == 8


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"accept_content": ["msgpack"]}, "accept_content: workers accept 'msgpack'"),
        ({"task_create_missing_queues": False}, "step checking.check cannot be sent"),
    ],
    ids=["no JSON", "unknown queue"],
)
def test_a_worker_that_would_make_runs_hang_does_not_start(
    deploy: Callable[..., Place], settings: dict[str, Any], says: str
) -> None:
    place = deploy(**settings)

    done = place.celery("worker", "--pool", "solo")

    assert done.returncode != 0
    assert says in done.stderr.strip().splitlines()[-1]
    code, found = place.examine()
    assert code == 2
    name = next(iter(settings))
    assert found[name]["severity"] == "error"
    assert found[name]["sentence"] in done.stderr


def test_a_warning_is_in_the_log_of_a_worker_once(deploy: Callable[..., Place]) -> None:
    place = deploy(result_backend="rpc://")
    worker = place.worker(pool="prefork", concurrency=2)
    runs = [place.orchestrator.create_run("asking").submit(number) for number in range(4)]
    assert [answer(run) for run in runs] == [4, 6, 6, 8]

    assert worker.process.logs_since_start().count("an rpc:// backend gets no results of runs") == 1


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_dead_child_is_seen_with_either_protocol(deploy: Callable[..., Place], protocol: int) -> None:
    """The main process knows which message the child was at: nobody waits for the end of a lease of a minute."""
    place = deploy(task_protocol=protocol)
    place.worker(pool="prefork", concurrency=2)

    assert place.orchestrator.create_run("dying").submit(1).get(timeout=SOON) == "again"


def test_a_start_that_comes_again_leaves_the_failure_of_its_run(deploy: Callable[..., Place]) -> None:
    """Celery would write STARTED over it, and whoever waits for the result would wait for ever."""
    place = deploy(result_backend="redis", task_track_started=True)
    worker = place.worker()
    run_id = new_run_id()
    for _ in range(2):
        place.app.send_task("failing", [1], task_id=run_id)
        assert wait_until(lambda: AsyncResult(run_id, app=place.app).state == "FAILURE", SOON)
    assert wait_until(lambda: "this message is a repetition" in worker.process.logs_since_start(), SOON)

    assert AsyncResult(run_id, app=place.app).state == "FAILURE"


@pytest.mark.parametrize("control", [True, False], ids=["control", "no control"])
def test_a_queue_that_no_worker_listens_on_is_named(deploy: Callable[..., Place], control: bool) -> None:
    """By `show`, by `doctor`, and once in the log of a scheduler; until a worker listens on it."""
    place = deploy(worker_enable_remote_control=control)
    worker = place.worker()
    run = place.orchestrator.create_run("checking").submit(3)

    assert wait_until(lambda: "no worker listens on queue 'checks'" in worker.process.logs_since_start(), SOON)
    shown = place.celery("workflow", "show", run.run_id)
    assert "in queue checks since" in shown.stdout
    assert "no worker listens there" in shown.stdout
    shown = place.celery("workflow", "show", run.run_id, "--json")
    [waiting] = json.loads(shown.stdout)["queued"]
    assert (waiting["step"], waiting["queue"], waiting["no_worker"]) == ("check", "checks", True)
    code, found = place.examine()
    assert code == 2
    assert "no worker listens on 'checks', where steps of 1 run(s) wait" in found["runs"]["sentence"]
    assert "-Q checks" in found["queues"]["remedy"]

    place.worker(queues=["checks"])
    assert run.get(timeout=SOON) == 6
    code, found = place.examine()
    assert code == 0, found
    assert "2 in namespace 'deployed'" in found["workers"]["sentence"]
    assert worker.process.logs_since_start().count("no worker listens on queue") == 1


def test_a_worker_that_takes_steps_and_has_no_orchestrator_is_named(deploy: Callable[..., Place]) -> None:
    place = deploy()
    place.worker()
    bare = place.folder / "bare.py"
    bare.write_text(f"from celery import Celery\napp = Celery('bare', broker={place.broker!r})\n")
    other = place.worker(app="bare:app")

    assert other.running
    code, found = place.examine()
    assert code == 1
    assert found["workers"]["severity"] == "warning"
    assert "takes steps from celery and does not announce itself" in found["workers"]["sentence"]


def write_certificate(folder: Path) -> None:
    """Write a key, and a certificate that it has signed itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.joinpath("worker.key").write_bytes(key.private_bytes(*private))
    folder.joinpath("worker.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
