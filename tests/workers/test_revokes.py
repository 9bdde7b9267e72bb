"""A run is revoked as if it were a task, and is canceled by that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from celery.result import AsyncResult

from tests.parity import calls
from tests.vendor import LocalRedis, WorkerNode, wait_until
from tests.workers import ways_app

SOON = 20.0


@pytest.mark.parametrize("by", ["control", "terminate", "result"])
def test_a_run_that_is_revoked_is_canceled(
    tmp_path: Path, worker_factory: Callable[..., WorkerNode], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """At work or waiting; two workers hear of it. An id that is no run's does nothing."""
    monkeypatch.setenv(calls.FOLDER, str(tmp_path))
    server = LocalRedis(tmp_path / "redis").start()
    broker, store = server.database(0), server.database(1)
    env = {"WAYS_BROKER": broker, "WAYS_STORE": store, "WAYS_SETTINGS": "{}", "WAYS_TIMES": "{}"}
    env[calls.FOLDER] = str(tmp_path)
    workers = [worker_factory("tests.workers.ways_app:app", env=env, cwd=tmp_path) for _ in range(2)]
    app, orchestrator = ways_app.make(broker, store, {})
    with orchestrator:
        run = orchestrator.create_run("gate").submit(str(tmp_path / "never"))
        assert wait_until(lambda: calls.count(run.run_id, "gate") == 1, SOON)
        app.control.revoke("no-run-of-ours")
        match by:
            case "control":
                app.control.revoke(run.run_id)
            case "terminate":
                app.control.revoke(run.run_id, terminate=True)
            case _:
                AsyncResult(run.run_id, app=app).revoke()
        assert wait_until(lambda: run.status == "canceled", SOON)
    app.close()
    assert b"Traceback" not in b"".join(worker.process.logs() for worker in workers)
    server.teardown()
