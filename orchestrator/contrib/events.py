"""Reads the events that `orchestrator_publish_events` publishes: those of all runs, as they are committed.

    with Receiver(app, workflow="checkout") as events:
        for event in events:
            print(event.run_id, event.type, event.payload)

`docs/events.md` says what an event holds. An event comes at most once; what must not be missed is in the run's log
(`orchestrator.get_run(event.run_id).events()`).
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from celery import Celery
from kombu import Connection, Consumer, Queue
from kombu.exceptions import KombuError

from orchestrator.canvas.publication import VERSION, exchange_of
from orchestrator.host import monotonic, new_token

log = logging.getLogger("orchestrator")

__all__ = ["PublishedEvent", "Receiver"]

_LOOK = 1.0  # seconds that a wait lasts at once


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """One event. `(run_id, commit, index)` tells it from every other, and puts those of one run in order.

    `payload` has no values: it names the step (`id`, `step_call_id`) and says what has become of it.
    """

    run_id: str
    workflow_id: str
    type: str
    at: datetime
    commit: int
    index: int
    source: str = "WORKFLOW"
    namespace: str = "default"
    payload: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """An event from its JSON body; fields of a newer version are left out."""
        known = {f.name: body[f.name] for f in fields(cls) if f.name in body}
        return cls(**{**known, "at": datetime.fromisoformat(str(body["at"]))})


class Receiver:
    """Reads published events, from when it is entered until it is left; not thread-safe.

    `workflow` and `type` choose; None is all. Without `queue` the receiver gets the events that are published while it
    listens. With one, the broker keeps a queue of that name, which collects events without a reader (not on Redis,
    which has no such queues for events). Receivers with the same queue share its events. An event is taken off once the
    next is asked for.
    """

    def __init__(
        self,
        app: Celery,
        *,
        workflow: str | None = None,
        type: str | None = None,
        queue: str | None = None,
    ) -> None:
        self._app = app
        self._key = f"{workflow or '*'}.{type or '#'}"
        self._queue = queue
        self._keeps = False
        self._own = f"{queue or 'orchestrator.events.receiver'}.{new_token()}"
        self._found: deque[tuple[PublishedEvent, Any]] = deque()
        self._connection: Connection | None = None
        self._consumer: Consumer | None = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[PublishedEvent]:
        return self.listen()

    def listen(self, timeout: float | None = None) -> Iterator[PublishedEvent]:
        """Yield events as they come; end after `timeout` seconds in which none has come."""
        end = None if timeout is None else monotonic() + timeout
        while end is None or monotonic() < end:
            if not self._found:
                self._drain(_LOOK if end is None else max(0.01, min(_LOOK, end - monotonic())))
                continue
            event, message = self._found.popleft()
            yield event
            self._acknowledge(message)
            end = None if timeout is None else monotonic() + timeout

    def run(self, callback: Callable[[PublishedEvent], Any], timeout: float | None = None) -> None:
        """Call back with each event, until none has come for `timeout` seconds; for ever without one."""
        for event in self.listen(timeout):
            callback(event)

    def close(self) -> None:
        """Listen no more."""
        self._found.clear()
        if self._connection is not None:
            self._connection.close()
        self._connection = self._consumer = None

    def _open(self) -> None:
        connection: Any = self._app.connection_for_read()
        connection.ensure_connection(max_retries=self._app.conf.broker_connection_max_retries)
        exchange = exchange_of(connection)
        self._keeps = self._queue is not None and exchange.type == "topic"
        name = self._queue if self._keeps else self._own
        options = {"durable": True} if self._keeps else {"durable": False, "exclusive": True, "auto_delete": True}
        queue = Queue(name, exchange, routing_key=self._key, no_ack=not self._keeps, **options)
        self._consumer = Consumer(connection.channel(), [queue], accept=["json"], on_message=self._on_message)
        self._consumer.qos(prefetch_count=100)
        self._consumer.consume()
        self._connection = connection
        self._drain(0.05)  # on Redis the subscription is sent with the first look

    def _on_message(self, message: Any) -> None:
        try:
            event = PublishedEvent.parse(message.decode())
        except (KeyError, TypeError, ValueError, KombuError) as error:
            log.warning("this is no event of a run, and is left out: %r", error)
            self._acknowledge(message)
            return
        self._found.append((event, message))

    def _acknowledge(self, message: Any) -> None:
        if self._connection is not None and self._keeps and not message.acknowledged:
            message.ack()

    def _drain(self, seconds: float) -> None:
        if self._connection is None:
            raise RuntimeError("a receiver listens only inside `with receiver:`")
        try:
            self._connection.drain_events(timeout=seconds)
        except (TimeoutError, socket.timeout):  # noqa: UP041  (kombu's transports raise either name)
            return
        except (*self._connection.connection_errors, *self._connection.channel_errors) as error:
            log.warning("the broker is away (%s): events are missed until it is back", error)
            self.close()
            self._open()
