"""Stores to stream from: each test names the kinds it is for, or gets them all."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator import Orchestrator, Workflow
from orchestrator.ports import Store
from orchestrator.stores import open_store
from tests.vendor import wait_until


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, and fail where it does not come about."""
    assert wait_until(condition, seconds, every=0.005), f"{what} did not come within {seconds:g} s"


STORES = ["memory", "sqlite", "redis", "postgres"]
DB = 9


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind."""
    match request.param:
        case "memory":
            return f"memory://streaming-{uuid.uuid4().hex[:8]}"
        case "sqlite":
            return f"sqlite:///{tmp_path / 'runs.db'}"
        case "redis":
            server = request.getfixturevalue("redis_server")
            server.flush(DB)
            return str(server.url(DB))
        case _:
            return str(request.getfixturevalue("postgres_server").new_schema())


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A store at that URL."""
    store = open_store(url)
    yield store
    store.close()


Opener = Callable[..., Orchestrator]


@pytest.fixture
def opened(url: str) -> Iterator[Opener]:
    """Open an orchestrator of the default runtime over the store, as often as the test likes."""
    with ExitStack() as stack:

        def make(*workflows: Workflow, store: str | Store | None = None, **settings: float) -> Orchestrator:
            orchestrator = Orchestrator(store=store or url, workflows=workflows, **settings)
            return stack.enter_context(orchestrator)

        yield make
