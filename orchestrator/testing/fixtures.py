"""The pytest fixture of this package, found by pytest itself. Imports nothing heavy until it is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest


def pytest_collection_finish() -> None:
    """Note the databases of a Django project that is about to be tested, before pytest-django makes others."""
    if (module := sys.modules.get("orchestrator.app.django_database")) is not None:
        module.remember_databases()


@pytest.fixture
def orchestrator_local() -> Iterator[Any]:
    """An `Orchestrator` on a memory store with a virtual clock, which runs everything in the test's own thread.

    Sleeps and retry delays take no time. What is due later is executed when the test waits for the run.
    """
    from orchestrator.app import Orchestrator
    from orchestrator.stores.memory import MemoryStore
    from orchestrator.testing.clock import VirtualClock

    with Orchestrator(store=MemoryStore(VirtualClock()), local_threads=0) as orchestrator:
        yield orchestrator
