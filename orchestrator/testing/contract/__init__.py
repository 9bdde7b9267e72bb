"""The contract that every store keeps, as a test class: inherit from it, give it a `store` fixture, run pytest.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[Store]:
            ...

It uses a store through the port alone, under run ids and namespaces of its own, so that tests may share a store in
which there are other runs. It must not know what a store is made of, nor what a workflow is: activations stand for
themselves, and each test says where its run goes. There is one test for each condition, and one file for each part of
the port.
"""

from __future__ import annotations

from orchestrator.testing.contract.bookkeeping import Bookkeeping
from orchestrator.testing.contract.claiming import Claiming
from orchestrator.testing.contract.committing import Committing
from orchestrator.testing.contract.concurrency import Concurrency
from orchestrator.testing.contract.flushes import Flushes
from orchestrator.testing.contract.lanes import Lanes
from orchestrator.testing.contract.listing import Listing
from orchestrator.testing.contract.logs import Logs
from orchestrator.testing.contract.mailing import Mailing
from orchestrator.testing.contract.reading import Reading
from orchestrator.testing.contract.reporting import Reporting
from orchestrator.testing.contract.settling import Settling
from orchestrator.testing.contract.timing import Timing
from orchestrator.testing.contract.undoing import Undoing

__all__ = ["StoreContract"]


class StoreContract(
    Concurrency,
    Listing,
    Lanes,
    Timing,
    Reporting,
    Settling,
    Logs,
    Flushes,
    Bookkeeping,
    Committing,
    Claiming,
    Mailing,
    Reading,
    Undoing,
):
    """The conditions of a store, one test for each. The subclass gives the fixture `store`."""
