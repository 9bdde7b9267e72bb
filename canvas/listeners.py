"""Listeners: the queues that messages of steps go to, compared with those that workers announce."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from celery import Celery

from orchestrator.canvas.messages import message, queue_of
from orchestrator.engine.announcements import read_queues
from orchestrator.engine.settings import Settings
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Store
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader

log = logging.getLogger("orchestrator")

_SILENCE = 300.0  # seconds between two lines of the log about one queue
_MAX_NAMED = 1_000  # queues that are remembered as named; a router of the user's may make any number of them


def unheard_queues(
    app: Celery, store: Store, namespace: str, header: RunHeader, activations: Iterable[Activation]
) -> dict[str, str]:
    """Return, by their paths, the queues of queued activations that no worker listens on.

    Empty where that is not known: nobody announces queues, or a message goes to an exchange alone.
    """
    queued = [one for one in activations if one.status == ActivationStatus.QUEUED]
    listened = read_queues(store, namespace) if queued else None
    if listened is None:
        return {}
    found = {one.path: queue_of_activation(app, header, one) for one in queued}
    return {path: queue for path, queue in found.items() if queue is not None and queue not in listened}


def queue_of_activation(app: Celery, header: RunHeader, activation: Activation) -> str | None:
    """Return the queue that the message of a stored activation goes to; None where that is not known here."""
    try:
        return queue_of(app, message(app, header, Dispatch(activation.path, activation.seq, activation.route)))
    except Exception as error:  # noqa: BLE001  (whoever sends the message sees what is wrong)
        log.debug("run %s: the queue of a message is not known: %s", header.run_id, error)
        return None


class Listeners:
    """Warns of a queue on which nobody listens, now and then. It asks the store once a tick at most, for one thread."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._namespace = settings.namespace
        self._fresh = settings.tick_seconds
        self._asked_at = float("-inf")
        self._queues: frozenset[str] | None = None
        self._named: dict[str, float] = {}

    def check(self, queue: str, header: RunHeader) -> None:
        """Warn if no worker listens on the queue of a message that nobody has taken in time."""
        listened = self._listened()
        if listened is None or queue in listened:
            return
        now = monotonic()
        if now - self._named.get(queue, float("-inf")) < _SILENCE:
            return
        if len(self._named) >= _MAX_NAMED:
            self._named.clear()
        self._named[queue] = now
        text = "no worker listens on queue %r, where steps wait (one is of run %s): start one with -Q %s"
        about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
        log.warning(text, queue, header.run_id, queue, extra=about)

    def _listened(self) -> frozenset[str] | None:
        if monotonic() - self._asked_at >= self._fresh:
            self._asked_at = monotonic()
            try:
                self._queues = read_queues(self._store, self._namespace)
            except StoreUnavailable as error:
                log.debug("nobody knows which queues are listened on: %s", error)
                self._queues = None
        return self._queues
