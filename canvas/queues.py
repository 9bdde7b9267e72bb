"""Asks for the length of queues with a passive declaration: once per queue and tick.

A broker says how many messages wait, and not which. How long the oldest of them may have waited follows from how the
length falls: see `_Seen`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from celery import Celery

from orchestrator.canvas.bounded import BoundedConnection
from orchestrator.canvas.listeners import Listeners
from orchestrator.canvas.messages import message, queue_of
from orchestrator.engine.settings import Settings
from orchestrator.host import monotonic
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader
from orchestrator.rules.timers import SHORT, QueueState

log = logging.getLogger("orchestrator")

_MAX_SHORT = 10  # messages in a queue that counts as short
# Seconds after which a message that the scheduler decided to send is in its queue, or was there: it is committed first,
# published in a batch, and RabbitMQ counts it a while after it has taken it.
_COUNTED = 1.0


@dataclass(slots=True)
class _Seen:
    """The looks at a queue.

    Each time the length has fallen between two looks, so many messages at least were taken. Once those are as many as
    waited at one look, none of these waits any more, for the first that came is the first that is taken. Then it begins
    anew. Where nobody consumes, the length never falls; where many come and go, it takes a few times as long to be seen
    as it takes the workers.
    """

    at: float = float("-inf")
    is_short: bool = True
    length: int = 0
    # a look, and how many of the messages that waited then may wait still
    mark: float = float("-inf")
    ahead: int = 0
    # the last such look of which none waits any more
    worked_off: float = float("-inf")
    # messages that are in it, at most, because the scheduler has found it short: they are no backlog
    own: int = 0
    # those of them that the length may not count yet, and since when they have been gathered
    latest: int = 0
    since: float = float("-inf")

    def update(self, length: int) -> None:
        """Note how long the queue is now."""
        self.at = monotonic()
        self.ahead -= max(0, self.length - length)
        if self.ahead <= 0:
            self.worked_off, self.mark, self.ahead = self.mark, self.at, length
        self.length = length
        if self.at - self.since >= _COUNTED:
            self.own, self.latest, self.since = min(self.own, length) + self.latest, 0, self.at
        self.is_short = length - self.own - self.latest <= _MAX_SHORT

    @property
    def state(self) -> QueueState:
        """All of it that a decision may need."""
        known = self.worked_off > float("-inf")
        # What was sent shortly before a look may not have been counted by it, so it is no older than the look.
        ago = monotonic() - self.worked_off + _COUNTED
        return QueueState(self.is_short, round(ago * 1000) if known else None)


class Queues:
    """Remembers for a tick how long each queue was. For one thread at a time.

    It is asked about messages that nobody has taken in time, and warns where nobody listens.
    """

    def __init__(self, app: Celery, settings: Settings, listeners: Listeners | None = None) -> None:
        self._app = app
        self._listeners = listeners
        self._broker = BoundedConnection(app)
        self._fresh = settings.tick_seconds
        self._seen: dict[str, _Seen] = {}
        self._away = float("-inf")

    def close(self) -> None:
        """Close the connection; the next question opens one again."""
        self._broker.close()

    def state_of(self, header: RunHeader, dispatch: Dispatch) -> QueueState | None:
        """Return what is known of the queue of the dispatch's message; None where the broker is away.

        What has no length counts as short: a message too many is harmless.
        """
        try:
            name = queue_of(self._app, message(self._app, header, dispatch))
        except Exception as error:  # noqa: BLE001  (whoever sends the message sees what is wrong)
            log.debug("run %s: the queue of a message is not known: %s", header.run_id, error)
            return SHORT
        if name is None:
            return SHORT
        if self._listeners is not None:
            self._listeners.check(name, header)
        seen = self._seen.setdefault(name, _Seen())
        if not self._refresh(name, seen):
            return None
        seen.latest += seen.is_short
        return seen.state

    def watch(self) -> None:
        """Look at the queues that were long. A message that was lost in one is asked about minutes later only."""
        for name, seen in list(self._seen.items()):
            if not seen.is_short and not self._refresh(name, seen):
                return

    def _refresh(self, name: str, seen: _Seen) -> bool:
        """Ask for the length, unless it is known; return False where the broker is away."""
        if monotonic() - seen.at < self._fresh:
            return True
        if monotonic() - self._away < self._fresh:
            return False
        length = self._ask(name)
        if length is None:
            self._away = monotonic()
            return False
        seen.update(length)
        return True

    def _ask(self, name: str) -> int | None:
        """The number of messages in the queue; None where the broker is away."""
        # The first connection may have been dead for a while.
        for _ in range(2):
            try:
                with self._broker.channel() as channel:
                    return int(channel.queue_declare(queue=name, passive=True).message_count)
            except self._broker.channel_errors:
                return 0  # there is no such queue, or nobody may ask for its length
            except Exception as error:  # noqa: BLE001  (a broker that is away has many faces)
                log.debug("queue %s cannot be asked for its length: %s", name, error)
        return None
