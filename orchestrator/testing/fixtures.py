"""The pytest fixture of this package, found by pytest itself. Imports nothing heavy until it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def orchestrator_local() -> Iterator[Any]:
    """An `Orchestrator` in this process on a memory store with a virtual clock.

    Sleeps and retry delays take no time.
    """
    from orchestrator.app import Orchestrator
    from orchestrator.stores.memory import MemoryStore
    from orchestrator.testing.clock import VirtualClock

    with Orchestrator(store=MemoryStore(VirtualClock())) as orchestrator:
        yield orchestrator
