"""Asks for the length of queues with a passive declaration: once per queue and tick."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.exceptions import KombuError

from orchestrator.engine.settings import Settings
from orchestrator.host import monotonic

_MAX_SHORT = 10  # messages in a queue that counts as short


class Queues:
    """Remembers for a tick how long each queue was.

    What cannot be asked counts as short: a message too many is harmless.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._fresh = settings.tick_seconds
        self._seen: dict[str, tuple[float, bool]] = {}

    def is_short(self, queue: str | None) -> bool:
        """Tell if at most a few messages wait in the queue (None: the app's default)."""
        name = queue or self._app.conf.task_default_queue
        seen, short = self._seen.get(name, (float("-inf"), True))
        if monotonic() - seen >= self._fresh:
            short = self._ask(name)
            self._seen[name] = (monotonic(), short)
        return short

    def _ask(self, name: str) -> bool:
        try:
            with self._app.connection_for_write() as connection:
                channel: Any = connection.default_channel
                return bool(channel.queue_declare(queue=name, passive=True).message_count <= _MAX_SHORT)
        except (KombuError, OSError, *self._app.connection_for_write().channel_errors):
            return True
