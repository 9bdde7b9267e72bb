"""The tools for users' own tests.

* `StoreContract`: the conditions that every store keeps, as a class of tests to inherit.
* `VirtualClock`: a clock that a test moves on; the fixture `orchestrator_local` runs workflows by one.
* `make_context`: to call a step's function in a unit test.
* `WorkerLost`, `FailingStore`, `deliver_again`: faults on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.testing.clock import VirtualClock
from orchestrator.testing.contract import StoreContract
from orchestrator.testing.faults import FailingStore, WorkerLost, deliver_again
from orchestrator.testing.unit import make_context

if TYPE_CHECKING:
    from orchestrator.testing.fixtures import orchestrator_local as orchestrator_local

__all__ = ["FailingStore", "StoreContract", "VirtualClock", "WorkerLost", "deliver_again", "make_context"]


def __getattr__(name: str) -> Any:
    """Return the fixture by its name. Nothing else here needs pytest, which finds it by itself."""
    if name == "orchestrator_local":
        from orchestrator.testing.fixtures import orchestrator_local

        return orchestrator_local
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
