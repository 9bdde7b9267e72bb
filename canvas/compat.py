"""Differences between the versions of Celery and kombu that this library works with: chosen once, by what is there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from kombu import Producer

try:
    from kombu.exceptions import BatchPublishError
except ImportError:

    class BatchPublishError(Exception):  # type: ignore[no-redef]
        """Messages of a batch were not sent. Never raised: kombu has batches from 5.7 on."""


__all__ = ["BatchPublishError", "has_fanout", "send_together"]

_HAS_BATCHES = hasattr(Producer, "batch")


def send_together(producer: Any, size: int) -> AbstractContextManager[Any]:
    """Gather what is published inside into batches of `size`; before kombu 5.7 each message goes out by itself."""
    return producer.batch(size) if _HAS_BATCHES else nullcontext()


def has_fanout(connection: Any) -> bool:
    """Tell whether the broker of this connection hands a message to everybody who listens, as Amazon SQS does not."""
    implements = connection.transport.implements
    return "fanout" in getattr(implements, "exchange_type", ())
