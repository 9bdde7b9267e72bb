"""The contract that every store keeps, as a test class: inherit from it, give it a `store` fixture, run pytest.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[Store]:
            ...

It speaks to a store through the port alone, under run ids and namespaces of its own, so that a store may be shared
between tests and hold other runs. It must not know what a store is made of, nor what a workflow is: activations stand here
for themselves, and where a run goes is said by each test. There is one test for each condition, and one file for each
part of the port.
"""

from __future__ import annotations

from orchestrator.testing.contract.bookkeeping import Bookkeeping
from orchestrator.testing.contract.claiming import Claiming
from orchestrator.testing.contract.committing import Committing
from orchestrator.testing.contract.concurrency import Concurrency
from orchestrator.testing.contract.lanes import Lanes
from orchestrator.testing.contract.listing import Listing
from orchestrator.testing.contract.logs import Logs
from orchestrator.testing.contract.parts import Parts
from orchestrator.testing.contract.reading import Reading
from orchestrator.testing.contract.resting import Resting
from orchestrator.testing.contract.timing import Timing

__all__ = ["StoreContract"]


class StoreContract(
    Concurrency, Listing, Lanes, Timing, Resting, Logs, Parts, Bookkeeping, Committing, Claiming, Reading
):
    """The promises of a store, condition by condition. `store` is a fixture that the subclass gives."""
