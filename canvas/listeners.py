"""Listeners: the queues that messages of steps go to, compared with those that workers announce."""

from __future__ import annotations

import logging

from celery import Celery

from orchestrator.canvas.messages import message, queue_of
from orchestrator.engine.announcements import read_queues
from orchestrator.engine.settings import Settings
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Store
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import Activation, RunHeader

log = logging.getLogger("orchestrator")

_SILENCE = 300.0  # seconds between two lines of the log about one queue
_MAX_NAMED = 1_000  # queues that are remembered as named; a router of the user's may make any number of them


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
