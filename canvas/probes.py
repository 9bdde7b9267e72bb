"""Questions to a deployment's servers and workers, for `… workflow doctor`. Each raises whatever its client raises."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend

from orchestrator.canvas.bounded import BoundedConnection
from orchestrator.canvas.compat import has_fanout

_UNKNOWN_ID = "orchestrator-doctor"  # of a task that there is not


def ask_broker(app: Celery) -> str:
    """Open a channel, and return the broker's place without its password."""
    broker = BoundedConnection(app)
    try:
        with broker.channel():
            return str(app.connection_for_write().as_uri())
    finally:
        broker.close()


def ask_backend(app: Celery) -> str | None:
    """Read a result that is not there, and return the backend's place without its password; None where there is none.

    An `rpc://` backend is not asked: it has no results that could be read later.
    """
    backend: Any = app.backend
    if isinstance(backend, DisabledBackend | RPCBackend):
        return None
    backend.get_state(_UNKNOWN_ID)
    return str(backend.as_uri())


def ask_workers(app: Celery, seconds: float) -> dict[str, list[str]] | None:
    """Return the queues of all workers that answer by remote control; None where it is off, or the broker has none."""
    if not app.conf.worker_enable_remote_control or not has_fanout(app.connection_for_write()):
        return None
    answers = app.control.inspect(timeout=seconds).active_queues() or {}
    return {worker: [str(queue["name"]) for queue in queues] for worker, queues in answers.items()}
