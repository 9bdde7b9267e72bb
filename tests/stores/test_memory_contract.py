"""The memory store keeps the contract, on a clock that only the tests move."""

from __future__ import annotations

import pytest

from orchestrator.ports import Store
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import StoreContract, VirtualClock


class TestMemoryStore(StoreContract):
    """One fresh store for each condition."""

    @pytest.fixture
    def store(self) -> Store:
        self.clock = VirtualClock()
        return MemoryStore(self.clock)

    def advance(self, store: Store, ms: int) -> None:
        self.clock.advance(ms / 1000)
