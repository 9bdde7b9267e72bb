"""A connection to the broker of the scheduler's own, on which no wait is long.

The pools of the app are made for callers, who would rather wait than fail. The scheduler would rather fail: it looks at
everything again in its next tick, while a thread that waits renews no right to sweep and announces no worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery import Celery

PATIENCE = 2.0  # seconds that one wait for the broker lasts at most
_TIMEOUTS = {
    "redis": ("socket_connect_timeout", "socket_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}


class Unreachable(Exception):
    """No connection to the broker can be made."""


class BoundedConnection:
    """One connection and one channel, for one thread at a time. After any error the next use begins afresh."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None
        self._channel: Any = None

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel that is open as far as is known. Raises `Unreachable` where none can be opened."""
        if self._channel is None:
            self._open()
        try:
            yield self._channel
        except BaseException:
            self.close()
            raise

    @property
    def channel_errors(self) -> tuple[type[BaseException], ...]:
        """The broker's answer where it does not take a request."""
        errors: tuple[type[BaseException], ...] = self._app.connection_for_write().channel_errors
        return errors

    def close(self) -> None:
        """Forget the connection."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # it is broken, most likely
                connection.collect(PATIENCE)

    def _open(self) -> None:
        try:
            connection = self._app.connection_for_write(connect_timeout=PATIENCE)
            names = _TIMEOUTS.get(connection.get_transport_cls().driver_type, ())
            given = connection.transport_options or {}
            connection.transport_options = {**dict.fromkeys(names, PATIENCE), **given}
            self._connection = connection
            # Each host of a list is tried once.
            once = {"interval_start": 0, "interval_step": 0, "interval_max": 0}
            connection.ensure_connection(max_retries=len(connection.alt or ()), timeout=PATIENCE, **once)
            self._channel = connection.channel()
        except Exception as error:  # a broker that is away has many faces
            self.close()
            raise Unreachable(f"{type(error).__name__}: {error}") from error
