"""The services of the engine: the things of its process that it needs, and nothing that runs by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.engine.calling import ProcessSigns
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.retry import MAX_INTERRUPTIONS, retry_while_unavailable
from orchestrator.engine.settings import Settings
from orchestrator.ports import Clock, Store

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Services:
    """The store, settings and helpers of an engine."""

    # Frozen, so that the composition root decides once: every part of the engine has the same store.

    # keeps the runs; it may be wrapped, to publish its events for example
    store: Store
    # leases, limits and the namespace
    settings: Settings
    # makes the pauses between retries; a virtual one in tests
    clock: Clock
    # reads and writes request contexts, and encrypts their secrets
    contexts: Contexts
    # `ctx.orchestrator` of user code; the engine itself never uses it
    owner: Any
    # tell the end of this process, and time limits, from what a function did
    signs: ProcessSigns = field(default_factory=ProcessSigns)

    def retry_while_unavailable(
        self, call: Callable[[], _T], seconds: float | None = None, *, interruptions: int = MAX_INTERRUPTIONS
    ) -> _T:
        """Retry an idempotent store call for so many seconds; by default for the time of a lease."""
        # Longer makes no sense for an attempt: when its lease is over, another worker may have the activation.
        patience = self.settings.lease_seconds if seconds is None else seconds
        return retry_while_unavailable(call, self.clock, patience, interruptions=interruptions)
