"""The bell on the broker: whoever commits to a run that somebody waits for wakes the processes that wait.

A transient fanout exchange, and one queue for each process that waits, gone when nobody waits there any more. Only runs
that the store says are waited for are rung, so all others cost nothing. What is lost is made up for by looking.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from celery import Celery
from kombu import Connection, Exchange, Queue

from orchestrator.canvas.sending import ONCE_MORE, Sender
from orchestrator.host import monotonic, new_token

log = logging.getLogger("orchestrator")

EXCHANGE = Exchange("orchestrator.bell", type="fanout", durable=False, delivery_mode=1)

_LOOK = 1.0  # seconds that the listener waits for a message at once
_IDLE = 60.0  # seconds after which it stops listening, if nobody waits
_AGAIN = 5.0  # seconds until it asks a broker that does not answer again
_MOST = 10_000  # runs whose counts are kept


class BrokerBell:
    """Rings from a thread of its own, and hears in another: both begin when they are needed, never across a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._sender: Sender[str] = Sender(app, "wake-up(s) of readers", _send)
        self._own()

    def _own(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._wanted = 0.0  # until when somebody here wants to hear it
        self._listening = False
        self._thread: threading.Thread | None = None

    def ring(self, run_id: str) -> None:
        """Wake everybody who waits for the run, here and elsewhere."""
        self._hear(run_id)
        if not self._alone:
            self._sender.put([run_id])

    def heard(self, run_id: str) -> int:
        """How often it has been heard here for this run; begins to listen."""
        if self._pid != os.getpid():
            self._own()
        with self._changed:
            self._wanted = monotonic() + _IDLE
            if self._thread is None and not self._alone:
                self._thread = threading.Thread(target=self._listen, name="orchestrator-bell", daemon=True)
                self._thread.start()
            return self._counts[run_id]

    def wait(self, run_id: str, heard: int, seconds: float) -> bool:
        """Wait until it is heard again, where it can be heard at all: not from another app on a broker in memory."""
        with self._changed:
            if not self._listening:
                return False
            self._changed.wait_for(lambda: self._counts[run_id] > heard, seconds)
            return True

    @cached_property
    def _alone(self) -> bool:
        """Whether the broker is one within this process."""
        transport: Any = self._app.connection_for_write().transport
        return bool(transport.driver_type == "memory")

    def _hear(self, run_id: str) -> None:
        if self._pid != os.getpid():
            self._own()
        with self._changed:
            if len(self._counts) > _MOST:
                self._counts.clear()  # who waits for one of them looks once too often, or a moment later
            self._counts[run_id] += 1
            self._changed.notify_all()

    def _listen(self) -> None:
        while True:
            try:
                with self._app.connection_for_read() as connection:
                    self._drain(connection)
            except Exception as error:  # noqa: BLE001  (a broker that is away has many faces; readers look meanwhile)
                log.debug("nobody is woken by the broker for a while: %s", error)
            with self._changed:
                self._listening = False
                if monotonic() > self._wanted:
                    self._thread = None
                    return
                self._changed.wait(_AGAIN)

    def _drain(self, connection: Connection) -> None:
        own = Queue(f"orchestrator.bell.{new_token()}", EXCHANGE, durable=False, auto_delete=True, exclusive=True)
        with connection.Consumer(own, callbacks=[self._on_message], accept=["json"], no_ack=True):
            self._look(connection, 0.05)  # on Redis the subscription is sent with the first look
            self._listening = True
            while monotonic() <= self._wanted:
                self._look(connection, _LOOK)

    def _look(self, connection: Connection, seconds: float) -> None:
        with suppress(TimeoutError):
            connection.drain_events(timeout=seconds)

    def _on_message(self, body: Any, _: Any) -> None:
        for run_id in body:
            self._hear(str(run_id))


def _send(producer: Any, batch: Sequence[str]) -> None:
    runs = list(dict.fromkeys(batch))
    producer.publish(
        runs,
        exchange=EXCHANGE,
        declare=[EXCHANGE],
        serializer="json",
        retry=True,
        retry_policy=ONCE_MORE,
    )
