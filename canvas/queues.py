"""Asks for the length of queues with a passive declaration: once per queue and tick."""

from __future__ import annotations

import logging

from celery import Celery

from orchestrator.canvas.bounded import BoundedConnection
from orchestrator.canvas.messages import message, queue_of
from orchestrator.engine.settings import Settings
from orchestrator.host import monotonic
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader

log = logging.getLogger("orchestrator")

_MAX_SHORT = 10  # messages in a queue that counts as short


class Queues:
    """Remembers for a tick how long each queue was. For one thread at a time."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._broker = BoundedConnection(app)
        self._fresh = settings.tick_seconds
        self._seen: dict[str, tuple[float, bool]] = {}
        self._away = float("-inf")

    def is_short(self, header: RunHeader, dispatch: Dispatch) -> bool | None:
        """Tell if at most a few messages wait where the dispatch's message would go; None where the broker is away.

        What has no length counts as short: a message too many is harmless.
        """
        try:
            name = queue_of(self._app, message(self._app, header, dispatch))
        except Exception as error:  # noqa: BLE001  (whoever sends the message sees what is wrong)
            log.debug("run %s: the queue of a message is not known: %s", header.run_id, error)
            return True
        if name is None:
            return True
        seen, short = self._seen.get(name, (float("-inf"), True))
        if monotonic() - seen < self._fresh:
            return short
        if monotonic() - self._away < self._fresh:
            return None
        found = self._ask(name)
        if found is None:
            self._away = monotonic()
        else:
            self._seen[name] = (monotonic(), found)
        return found

    def _ask(self, name: str) -> bool | None:
        # The first connection may have been dead for a while.
        for _ in range(2):
            try:
                with self._broker.channel() as channel:
                    return bool(channel.queue_declare(queue=name, passive=True).message_count <= _MAX_SHORT)
            except self._broker.channel_errors:
                return True  # there is no such queue, or nobody may ask for its length
            except Exception as error:  # noqa: BLE001  (a broker that is away has many faces)
                log.debug("queue %s cannot be asked for its length: %s", name, error)
        return None
