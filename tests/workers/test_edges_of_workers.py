"""What the parts of a worker do while it starts, stops, or has no store."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from celery import Celery

from orchestrator import Orchestrator
from orchestrator.engine.abandoned import Delivery, give_back
from orchestrator.errors import StoreUnavailable
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock


def test_a_consumer_that_stops_before_it_has_started_is_no_error() -> None:
    """So it is when the connection breaks while the consumer starts; it may stop twice, too."""
    app = Celery("edges", broker="memory://", set_as_current=False)
    with Orchestrator(app, store=MemoryStore()):
        (consumer,) = (step for step in app.steps["consumer"] if step.__name__ == "OrchestratorConsumer")
        parent = SimpleNamespace(steps=[])
        part = consumer(parent)
        part.stop(parent)
        calls: list[str] = []
        timer = SimpleNamespace(cancel=lambda: calls.append("cancel"))
        parent.timer = SimpleNamespace(call_repeatedly=lambda *_: timer)
        parent.event_dispatcher = parent.task_consumer = None
        part.start(parent)
        part.stop(parent)
        part.stop(parent)
        assert calls == ["cancel"]
    app.close()


@pytest.mark.parametrize("away, is_recorded", [(3, True), (10**9, False)])
def test_the_end_of_a_worker_waits_for_the_store(
    caplog: pytest.LogCaptureFixture, away: int, is_recorded: bool
) -> None:
    """For a lease; after that one line says that the lease will bring it about, and no traceback."""
    app = Celery("edges", broker="memory://", set_as_current=False)
    store = MemoryStore(VirtualClock())
    asked: list[str] = []

    def header(run_id: str) -> None:
        nonlocal away
        away -= 1
        if away > 0:
            raise StoreUnavailable("the store is away")
        asked.append(run_id)

    store.header = header  # type: ignore[assignment, method-assign]
    with (
        Orchestrator(app, store=store, lease_seconds=1) as orchestrator,
        caplog.at_level(logging.WARNING, "orchestrator"),
    ):
        give_back(orchestrator.executor, Delivery("run", "0", "message"))
    app.close()
    assert asked == (["run"] if is_recorded else [])
    told = [record.exc_info for record in caplog.records if "goes on when its lease is over" in record.message]
    assert told == [None] * (not is_recorded)
