"""Numbers of runs and steps."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from orchestrator import Orchestrator
from orchestrator.engine.scheduler import Scheduler
from orchestrator.engine.settings import Settings
from orchestrator.rules.change import Change, CreateActivation, RequestGuard, UpdateRun
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.telemetry.flows import breaking, checkout
from tests.telemetry.test_spans import ORDER


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    """The data points of one instrument."""
    data = reader.get_metrics_data()
    found = [metric for r in data.resource_metrics for s in r.scope_metrics for metric in s.metrics] if data else []
    return [point for metric in found if metric.name == name for point in metric.data.data_points]


def by_status(reader: InMemoryMetricReader, name: str, step: str = "") -> dict[str, float]:
    """The values of a counter, or how many values a histogram has, by status."""
    found: dict[str, float] = {}
    for point in points(reader, name):
        if not step or point.attributes.get("orchestrator.step.id") == step:
            status = point.attributes.get("orchestrator.status", "")
            found[status] = found.get(status, 0) + getattr(point, "value", getattr(point, "count", 0))
    return found


def test_runs_and_steps_are_counted_by_status(orchestrator: Orchestrator, reader: InMemoryMetricReader) -> None:
    """A suspended run has not ended."""
    run = orchestrator.create_run(checkout)
    run.start(ORDER)
    assert by_status(reader, "orchestrator.runs.ended") == {}
    run.resume("yes")
    orchestrator.create_run(breaking).start()
    canceled = orchestrator.create_run(checkout)
    canceled.start(ORDER)
    canceled.cancel()

    assert by_status(reader, "orchestrator.runs.started") == {"": 3}
    assert by_status(reader, "orchestrator.runs.ended") == {"success": 1, "failed": 1, "canceled": 1}
    assert by_status(reader, "orchestrator.run.duration") == {"success": 1, "failed": 1, "canceled": 1}
    assert by_status(reader, "orchestrator.steps", "charge") == {"retrying": 2, "success": 2}
    assert by_status(reader, "orchestrator.steps", "ask") == {"suspended": 2, "success": 1}
    assert by_status(reader, "orchestrator.step.duration", "break_down") == {"failed": 1}
    assert by_status(reader, "orchestrator.queue.wait", "reserve") == {"": 2}


def test_no_number_names_a_run(orchestrator: Orchestrator, reader: InMemoryMetricReader) -> None:
    """There would be as many series as runs."""
    run = orchestrator.create_run(checkout)
    run.start(ORDER)

    data = reader.get_metrics_data()
    assert data is not None
    assert run.run_id not in data.to_json()


def test_a_scheduler_tells_how_late_it_is_and_how_many_runs_wait(
    orchestrator: Orchestrator, reader: InMemoryMetricReader
) -> None:
    """Suspended runs are counted when the SDK asks."""
    clock = VirtualClock()
    store = MemoryStore(clock=clock)
    store.create(RunHeader(run_id="r", workflow_id="w", namespace="default", runtime="celery"))
    change = Change(
        RequestGuard("t", frozenset({"pending"})),
        (CreateActivation(Activation(path="0", step="s")), UpdateRun({"status": "running"})),
        redelivery_delay=1000,
    )
    store.commit("r", change)
    clock.sleep(4)
    with Orchestrator(store=store) as other:
        Scheduler(store, other.executor.runtime, Settings(), "me").tick()

    (point,) = points(reader, "orchestrator.due.lag")
    assert (point.count, point.sum) == (1, 3.0)
    (suspended,) = points(reader, "orchestrator.runs.suspended")
    assert suspended.value == 0
