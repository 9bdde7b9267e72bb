"""The app module of worker processes that a test starts and kills itself: an application of its own.

It has the servers of a runtime, with a namespace and a queue of its own, a key for secrets, and faults where the
environment says so. Without that environment, as for other importers of the package, it holds no app.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from celery import Celery, signals
from kombu.transport import filesystem
from kombu.utils.json import dumps

from orchestrator import Orchestrator
from orchestrator.stores import open_store
from orchestrator.testing import FailingStore
from tests.parity.calls import count

NAME = "ROBUST_NAME"
MUTE = "ROBUST_MUTE"
FAILING = "ROBUST_FAILING"
TOKEN = "authorization"
BRIEF: dict[str, Any] = {"lease_seconds": 1, "tick_seconds": 0.2, "republish_seconds": 1}
GONE = "gone"  # once a run has noted this, no write of it succeeds
UNSURE = "unsure"  # once a run has noted this, two answers are lost


class _Channel(filesystem.Channel):  # type: ignore[misc]
    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        """Put the message in its place when it is whole: a reader must not see half of it."""
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}"
        aside = Path(self.data_folder_out) / f"{name}.part"
        aside.write_text(dumps(payload))
        aside.rename(aside.with_name(f"{name}.{queue}.msg"))


class FolderTransport(filesystem.Transport):  # type: ignore[misc]
    """kombu's broker in a folder, for processes that have no broker in memory in common."""

    Channel = _Channel


def own_app(broker: str, backend: str, name: str) -> Celery:
    """Build an app with a namespace and a queue of its own."""
    from tests.parity.harness import make_app

    app = make_app(broker, backend, orchestrator_namespace=name, task_default_queue=name)
    app.conf.update(orchestrator_secret_context_keys=[TOKEN], orchestrator_secret_key="a key of the test's own")
    if broker.startswith("filesystem:"):
        folder = Path(broker.removeprefix("filesystem://"))
        folder.mkdir(exist_ok=True)
        folders = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder / "control"}
        options = {name: str(path) for name, path in folders.items()} | {"polling_interval": 0.02}
        transport = f"{__name__}:FolderTransport"
        app.conf.update(broker_url="filesystem://", broker_transport=transport, broker_transport_options=options)
    return app


def failing(url: str) -> Any:
    """Open a store that fails as the runs ask for it."""
    gone = FailingStore(open_store(url), times=None, when=lambda run_id, change: count(run_id, GONE) > 0)
    return FailingStore(gone, times=2, lost_reply=True, when=lambda run_id, change: count(run_id, UNSURE) > 0)


def mute(app: Celery) -> None:
    """Let the app's worker read messages from now on, and send none."""

    def lose_the_broker(**_: Any) -> None:
        app.conf.update(broker_write_url="amqp://guest@127.0.0.1:1//", broker_transport=None, task_publish_retry=False)
        app.conf.broker_transport_options = {**app.conf.broker_transport_options, "max_retries": 1, "interval_start": 0}

    signals.worker_ready.connect(lose_the_broker, weak=False)


def _worker() -> Celery:
    from tests.parity.flows import all_workflows

    url = os.environ["ORCHESTRATOR_STORE"]
    worker = own_app(os.environ["BROKER_URL"], os.environ["RESULT_BACKEND"], os.environ[NAME])
    store = failing(url) if os.environ.get(FAILING) else url
    Orchestrator(worker, store=store, workflows=all_workflows(), **BRIEF)
    if os.environ.get(MUTE):
        mute(worker)
    return worker


if NAME in os.environ:
    app = _worker()
