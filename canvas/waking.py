"""Wake-ups through the broker: a commit to a run wakes the processes that wait for that run.

There is a transient fanout exchange, and one queue for each process with a waiting reader. Only runs for which the
store has readers are notified, so all others cost nothing. A notification that does not arrive only costs time: readers
also look at the store now and then. A broker without fanout (Amazon SQS) is left alone: there the queue of each process
would stay for ever, and nothing would come to it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from celery import Celery
from kombu import Connection, Exchange, Queue

from orchestrator.background import ForkAwareThread, on_fork
from orchestrator.canvas.compat import has_fanout
from orchestrator.canvas.sending import RETRY_ONCE, BackgroundPublisher
from orchestrator.host import monotonic, new_token

log = logging.getLogger("orchestrator")

EXCHANGE = Exchange("orchestrator.bell", type="fanout", durable=False, delivery_mode=1)

_LOOK = 1.0  # seconds that the listener waits for a message in one go
_IDLE = 60.0  # seconds without a waiting reader after which it stops listening
_RETRY_DELAY = 5.0  # seconds until it asks a broker that does not answer again
_MAX_COUNTS = 10_000  # runs whose counts are kept


class BrokerWakeups:
    """Notifies from a thread of its own, and listens in another: each starts when it is needed."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._publisher: BackgroundPublisher[str] = BackgroundPublisher(app, "wake-up(s) of readers", _send)
        self._listener = ForkAwareThread(self._listen, "orchestrator-wakeups")
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Do not listen yet: no reader waits in the child."""
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._wanted_until = 0.0  # by this process's clock: when the last reader's interest ends
        self._is_listening = False

    def notify(self, run_id: str) -> None:
        """Wake all readers that wait for the run, here and in other processes."""
        self._add(run_id)
        if not self._is_alone:
            self._publisher.put([run_id])

    def count(self, run_id: str) -> int:
        """Return the number of notifications of this run that have come here, and begin to listen."""
        with self._changed:
            self._wanted_until = monotonic() + _IDLE
            if not self._is_alone:
                self._listener.ensure_started()
            return self._counts[run_id]

    def wait(self, run_id: str, count: int, seconds: float) -> bool:
        """Wait until more than `count` have come. Returns False at once where this process does not listen."""
        with self._changed:
            if not self._is_listening:
                return False
            self._changed.wait_for(lambda: self._counts[run_id] > count, seconds)
            return True

    @cached_property
    def _is_alone(self) -> bool:
        """True where no other process can be told: the broker is in this process, or has no fanout."""
        connection: Any = self._app.connection_for_write()
        return connection.transport.driver_type == "memory" or not has_fanout(connection)

    def _add(self, run_id: str) -> None:
        with self._changed:
            if len(self._counts) > _MAX_COUNTS:
                self._counts.clear()  # their readers look at the store once too often, or a moment later
            self._counts[run_id] += 1
            self._changed.notify_all()

    def _listen(self) -> None:
        while True:
            try:
                with self._app.connection_for_read() as connection:
                    self._drain(connection)
            except Exception as error:  # noqa: BLE001  (a broker that is away raises many kinds; readers look meanwhile)
                log.debug("the broker wakes no readers for a while: %s", error)
            with self._changed:
                self._is_listening = False
                if monotonic() > self._wanted_until:
                    self._listener.release()  # under the lock: a reader that comes now starts another
                    return
                self._changed.wait(_RETRY_DELAY)

    def _drain(self, connection: Connection) -> None:
        own = Queue(f"orchestrator.bell.{new_token()}", EXCHANGE, durable=False, auto_delete=True, exclusive=True)
        with connection.Consumer(own, callbacks=[self._on_message], accept=["json"], no_ack=True):
            self._look(connection, 0.05)  # on Redis the subscription is sent with the first look
            self._is_listening = True
            while monotonic() <= self._wanted_until:
                self._look(connection, _LOOK)

    def _look(self, connection: Connection, seconds: float) -> None:
        with suppress(TimeoutError):
            connection.drain_events(timeout=seconds)

    def _on_message(self, body: Any, _: Any) -> None:
        for run_id in body:
            self._add(str(run_id))


def _send(producer: Any, batch: Sequence[str]) -> None:
    runs = list(dict.fromkeys(batch))
    producer.publish(
        runs,
        exchange=EXCHANGE,
        declare=[EXCHANGE],
        serializer="json",
        retry=True,
        retry_policy=RETRY_ONCE,
    )
