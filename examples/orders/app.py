"""The Celery app of the example, with its orchestrator: what a project puts beside its own tasks.

    celery -A app worker                                   # in this folder, with BROKER_URL and ORCHESTRATOR_STORE set

Without any setting it uses a broker inside this process, so that the demo needs no server.
"""

from __future__ import annotations

import os
import tempfile

from celery import Celery
from workflows import orders

from orchestrator import Orchestrator

EMBEDDED = "memory://localhost/"  # a broker inside one process: for demos and tests

broker = os.environ.get("BROKER_URL", EMBEDDED)


def store_beside(broker_url: str) -> str:
    """Return where runs are kept by default: in the Redis that is the broker too, else in an SQLite file."""
    if broker_url.startswith(("redis://", "rediss://")):
        return broker_url
    return "sqlite:///" + os.path.join(tempfile.gettempdir(), "celery-orchestrator-orders.db")


app = Celery("orders", broker=broker)
app.conf.update(
    orchestrator_database_url=os.environ.get("ORCHESTRATOR_STORE") or store_beside(broker),
    orchestrator_tick_seconds=0.5,
    task_default_queue="orders-example",  # a queue of its own: the broker may have other users
    worker_prefetch_multiplier=1,
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)
if broker == EMBEDDED:
    app.conf.broker_transport_options = {"polling_interval": 0.01}  # seconds; 1 would be added to every step

orchestrator = Orchestrator(app, workflows=[orders])
