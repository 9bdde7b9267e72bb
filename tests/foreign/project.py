"""The project: its tasks on a Celery app, with the library where an environment variable says so, and without."""

from __future__ import annotations

import os
import sys

from celery import Celery

WITH = "FOREIGN_WITH"  # "1": this process has the library
BROKER, STORE = "FOREIGN_BROKER", "FOREIGN_STORE"

if os.environ.get(WITH) != "1":
    sys.modules["orchestrator"] = None  # type: ignore[assignment]  # nobody here can import it

app = Celery("project", broker=os.environ[BROKER], backend=os.environ[BROKER], set_as_current=True)
app.conf.update(
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    result_extended=True,
    worker_send_task_events=True,
    task_default_queue=os.environ.get("FOREIGN_QUEUE", "celery"),
)

import tests.foreign.tasks as tasks  # noqa: E402, F401

if os.environ.get(WITH) == "1":
    from tests.foreign.flows import make

    orchestrator = make(app, os.environ[STORE])
