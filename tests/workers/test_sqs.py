"""Amazon SQS, by a stand-in of it on this machine (moto): a broker without fanout, and without remote control.

It runs where `moto[server]`, `boto3` and `pycurl` are installed, and is skipped elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Orchestrator
from tests.vendor import LocalProcess, WorkerNode, child_environment, free_port, wait_until
from tests.workers import sqs_app

SOON = 30.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """An SQS of the test's own."""
    for name in ("boto3", "moto", "pycurl"):
        pytest.importorskip(name)
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = LocalProcess("moto", command, cwd=tmp_path, env=child_environment({}), log=tmp_path / "moto.log")
    server.start()
    try:
        assert wait_until(lambda: b"Running on" in server.logs(), SOON), server.tail()
        yield f"sqs://key:secret@127.0.0.1:{port}"
    finally:
        server.remove()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_runs_go_through_workers_on_sqs(
    broker: str, kind: str, redis_factory: Callable[[], Any], worker_factory: Callable[..., WorkerNode], tmp_path: Path
) -> None:
    """A start, a suspension and a fan-out; readers look at the store, and no queue is left for one of them."""
    store = f"sqlite:///{tmp_path}/runs.db" if kind == "sqlite" else redis_factory().database(1)
    env = {"SQS_BROKER": broker, "SQS_STORE": store}
    worker_factory("tests.workers.sqs_app:app", env=env, cwd=tmp_path, pool="threads")
    app, orchestrator = sqs_app.make(broker, store)
    try:
        run = orchestrator.create_run("spreading").submit(4)
        assert wait_until(lambda: run.status == "suspended", SOON)
        run.submit_resume(1)
        assert run.get(timeout=SOON) == [0, 1, 2, 3, 4]
        assert [event.type for event in run.events()][-1] == "workflow-finish"
        assert _queues(app) == ["celery"]
        publishing = Orchestrator(sqs_app.make_app(broker), store=store, publish_events=True)
        with pytest.raises(ValueError, match=r"orchestrator_publish_events: .* topic exchange"):
            publishing.create_run(sqs_app.spreading)
    finally:
        orchestrator.close()
        app.close()
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tests.workers.sqs_app", "workflow", "doctor"],
        cwd=tmp_path,
        env=child_environment(env),
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    assert "has no fanout" in done.stdout


def _queues(app: Any) -> list[str]:
    with app.connection_for_read() as connection:
        found = connection.default_channel.sqs().list_queues().get("QueueUrls", [])
    return [url.rpartition("/")[2] for url in found]
