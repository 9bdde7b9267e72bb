"""The services of the engine: what it needs of the process around it, and nothing that runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.engine.calling import ProcessSigns
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.retry import retry_while_unavailable
from orchestrator.engine.settings import Settings
from orchestrator.ports import Clock, Store

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Services:
    """The things that the engine reads, writes and waits with.

    Frozen: whoever wires an application decides once, and nobody below finds another store than the one beside it.
    """

    # where runs are kept, with whatever is wrapped around it (publishing its events, say)
    store: Store
    # leases, limits and the namespace
    settings: Settings
    # what pauses wait with; a virtual one in tests
    clock: Clock
    # reads and writes request contexts, whose secrets are encrypted
    contexts: Contexts
    # what user code sees as `ctx.orchestrator`; the engine itself never asks it for anything
    owner: Any
    # tell the end of this process, and time limits, from what a function did
    signs: ProcessSigns = field(default_factory=ProcessSigns)

    def retry_while_unavailable(self, call: Callable[[], _T], seconds: float | None = None) -> _T:
        """Retry an idempotent store call for so many seconds, for the time of a lease where nothing is said."""
        # Longer makes no sense for whoever holds a claim: after a lease somebody else has it.
        return retry_while_unavailable(call, self.clock, self.settings.lease_seconds if seconds is None else seconds)
