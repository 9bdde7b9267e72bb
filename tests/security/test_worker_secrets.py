"""A worker at work with secrets: none of them in its log, its events, its answers, the broker or the results."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from tests.cli.conftest import environment
from tests.security.worker_app import KEY, TOKEN, make
from tests.vendor import LocalRedis, WorkerNode, wait_until

SOON = 30.0


def everything_in(url: str) -> str:
    """All that a Redis database holds, as text."""
    with redis.Redis.from_url(url) as client:
        return "\n".join(f"{key!r} {client.dump(key)!r}" for key in client.scan_iter())


@contextmanager
def heard_from(app: Celery) -> Iterator[list[Any]]:
    """Hear Celery's events meanwhile, as monitors do."""
    heard: list[Any] = []
    ready, over = threading.Event(), threading.Event()

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": heard.append})
            with receiver.consumer_context() as (own, _, _):
                ready.set()
                while not over.is_set():
                    with suppress(TimeoutError):
                        own.drain_events(timeout=0.2)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert ready.wait(SOON)
        yield heard
    finally:
        over.set()
        thread.join()


def test_no_secret_leaves_a_worker(
    redis_factory: Callable[[], LocalRedis], worker_factory: Callable[..., WorkerNode], tmp_path: Path
) -> None:
    """Not when steps, tasks and hooks fail, either; DEBUG is the most that a worker says."""
    server = redis_factory()
    with server.client as client:
        client.config_set("rdbcompression", "no")  # by which it writes what is looked through here
    broker, store, backend = (server.database(number) for number in range(3))
    env = {"SECRETS_BROKER": broker, "SECRETS_STORE": store, "SECRETS_BACKEND": backend}
    app, orchestrator = make(broker, store, backend)
    spec = "tests.security.worker_app:app"
    worker = worker_factory(spec, env=env, cwd=tmp_path, pool="prefork", extra_args=["--loglevel=DEBUG"])
    with heard_from(app) as heard, orchestrator:
        ended = []
        for name in ("paying", "refunding", "keeping"):
            run = orchestrator.create_run(name)
            result = run.start(7, request_context={"token": TOKEN, "tenant": "acme"}, timeout=SOON)
            ended.append((result.status, result.result))
            assert wait_until(lambda: not run.header().calling, SOON)  # noqa: B023
        inspect = app.control.inspect(timeout=2.0)
        answers = [inspect.conf(with_defaults=True), inspect.stats(), inspect.active(), inspect.report()]
        said = subprocess.run(
            [sys.executable, "-m", "celery", "-A", spec, "report"],
            env=environment(**env), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        kept = [everything_in(url) for url in (broker, store, backend)]
        records = [repr(orchestrator.runs.get(each.run_id)) for each in orchestrator.runs.list().runs]
    app.close()
    log = worker.process.logs_since_start()
    assert [status for status, _ in ended] == ["failed", "failed", "success"]
    assert ended[2][1] == {"tenant": "acme"}
    # What is looked for is there: the places do show what is no secret.
    assert "the bank refused 7" in log
    assert "'tenant': 'acme'" in log
    assert any(each["type"] == "task-received" for each in heard)
    assert "orchestrator_secret_key" in said
    assert all(kept)
    assert all(answers)
    everything = "\n".join([log, repr(heard), repr(answers), said, *kept, *records])
    for secret in (TOKEN, KEY):
        assert secret not in everything
        assert secret.encode().hex() not in everything
