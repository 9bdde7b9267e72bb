"""The messages of the scheduler: for many runs together, as fast as the broker takes them.

Which of them cannot be sent is told for each. Where a connection can be made and a message does not go out all the
same, it is the message: its queue is not known, or its route means nothing here. The others go out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery

from orchestrator.canvas.bounded import BoundedConnection, Unreachable
from orchestrator.canvas.compat import send_together
from orchestrator.errors import BrokerUnavailable
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader

log = logging.getLogger("orchestrator")

BATCH = 50  # messages that go to the broker together, where its transport can

MESSAGE_ERRORS = (LookupError, TypeError, ValueError)  # an unknown queue, a route that means nothing here

Told = tuple[RunHeader, Sequence[Dispatch]]
Send = Callable[[Any, RunHeader, Sequence[Dispatch]], None]


def broker_error(error: BaseException, header: RunHeader, *, is_refused: bool) -> BrokerUnavailable:
    """The error for whoever wanted to tell of a run: the broker is away, or does not take this message."""
    why = "the broker does not take the message" if is_refused else "the broker does not answer"
    about = str(error) if isinstance(error, OSError | Unreachable) else f"{type(error).__name__}: {error}"
    return BrokerUnavailable(
        f"{why}: {about}", run_id=header.run_id, workflow_id=header.workflow_id, is_refused=is_refused
    )


class Outbox:
    """Sends by `send(producer, header, dispatches)`. For one thread at a time."""

    def __init__(self, app: Celery, send: Send) -> None:
        self._app = app
        self._broker = BoundedConnection(app)
        self._send = send

    def close(self) -> None:
        """Close the connection; the next message opens one again."""
        self._broker.close()

    def publish(self, told: Sequence[Told]) -> list[BrokerUnavailable | None]:
        """Send what is told of each run; for each, why it could not be sent, or None."""
        if len(told) > 1:
            try:
                return self._publish_together(told)
            except Exception as error:  # noqa: BLE001  (a broker that is away has many faces)
                # How many have arrived is unknown, and a message too many is harmless.
                log.debug("messages are sent one by one: %s", error)
        errors: list[BrokerUnavailable | None] = []
        for header, dispatches in told:
            gone = next((error for error in errors if error is not None and not error.is_refused), None)
            errors.append(gone or self._publish_one(header, dispatches))
        return errors

    def _publish_together(self, told: Sequence[Told]) -> list[BrokerUnavailable | None]:
        errors: list[BrokerUnavailable | None] = []
        with self._broker.channel() as channel:
            producer = self._app.amqp.Producer(channel, auto_declare=False)
            with send_together(producer, BATCH):
                for header, dispatches in told:
                    errors.append(self._try(producer, header, dispatches))
        return errors

    def _try(self, producer: Any, header: RunHeader, dispatches: Sequence[Dispatch]) -> BrokerUnavailable | None:
        """Send; return what is wrong with the message itself, raise what may be wrong with the connection."""
        try:
            self._send(producer, header, dispatches)
        except MESSAGE_ERRORS as error:
            return broker_error(error, header, is_refused=True)
        return None

    def _publish_one(self, header: RunHeader, dispatches: Sequence[Dispatch]) -> BrokerUnavailable | None:
        failure: Exception | None = None
        # The first connection may have been dead for a while; on a fresh one it is tried once more.
        for _ in range(2):
            try:
                with self._broker.channel() as channel:
                    return self._try(self._app.amqp.Producer(channel, auto_declare=False), header, dispatches)
            except Unreachable as error:
                return broker_error(error, header, is_refused=False)
            except Exception as error:  # noqa: BLE001  (whatever it is, the next message is another one)
                failure = error
        assert failure is not None
        return broker_error(failure, header, is_refused=self._can_connect())

    def _can_connect(self) -> bool:
        try:
            with self._broker.channel():
                return True
        except Unreachable:
            return False
