"""The same trace where every step may be run by another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from orchestrator import Orchestrator
from tests.servers import RedisServer
from tests.telemetry.flows import WORKFLOWS, checkout
from tests.telemetry.listening import FileExporter, Trace, read
from tests.telemetry.test_spans import CHECKOUT, ORDER
from tests.telemetry.worker_app import TIMES, make_app
from tests.vendor import WorkerNode, wait_until

Factory = Callable[..., WorkerNode]


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """The file that all processes write their spans into."""
    return tmp_path / "spans.jsonl"


@pytest.fixture
def workers(redis_server: RedisServer, worker_factory: Factory, spans: Path, tmp_path: Path) -> Callable[..., None]:
    """Give a function that starts two workers."""

    def start(**env: str) -> None:
        found = {"BROKER_URL": redis_server.url(7), "ORCHESTRATOR_STORE": redis_server.url(8), "SPANS": str(spans)}
        for _ in range(2):
            worker_factory("tests.telemetry.worker_app:app", env={**found, **env}, cwd=tmp_path, concurrency=2)

    return start


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Orchestrator]:
    """A process that runs no steps."""
    app = make_app(redis_server.url(7))
    with Orchestrator(app, store=redis_server.url(8), workflows=WORKFLOWS, **TIMES) as made:
        yield made
    app.close()


def run_through(client: Orchestrator, spans: Path) -> Trace:
    """Start a run, resume it, and read its spans once the last one is there."""
    run = client.create_run(checkout)
    assert run.start(ORDER, timeout=30).status == "suspended"
    assert run.resume("yes", timeout=30).status == "success"
    assert wait_until(lambda: any(span.name == "run checkout: success" for span in read(spans).spans), 10)
    return read(spans)


def test_a_run_on_workers_is_one_trace(
    workers: Callable[..., None], client: Orchestrator, provider: TracerProvider, spans: Path
) -> None:
    """Its caller's span is the root of what several processes have done."""
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(spans, lambda: 0)))
    workers()
    with trace.get_tracer("caller").start_as_current_span("request"):
        run_through(client, spans)
    found = read(spans)

    assert len(found.traces) == 1
    assert found.tree() == CHECKOUT - {("run checkout", None)} | {("run checkout", "request"), ("request", None)}
    assert len({span.pid for span in found.spans}) > 2


def test_spans_of_celery_s_own_instrumentation_become_links(
    workers: Callable[..., None], client: Orchestrator, provider: TracerProvider, spans: Path
) -> None:
    """They are current in the worker, and are no span's parent."""
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(spans, lambda: 0)))
    workers(TASK_SPANS="yes")
    found = run_through(client, spans)

    ours, tasks = found.of_run(), found.all("task")
    assert len(ours.traces) == 1
    assert ours.tree() == CHECKOUT
    assert {task.trace for task in tasks}.isdisjoint(ours.traces)
    assert set(ours["step reserve"].links) <= {task.id for task in tasks}
    assert all(span.links for span in ours.spans if span.name.startswith("step"))


def test_a_run_whose_client_has_no_sdk_is_one_trace_too(
    workers: Callable[..., None], client: Orchestrator, spans: Path
) -> None:
    """The first worker gives it one."""
    workers(TASK_SPANS="yes")
    found = run_through(client, spans)

    assert len(found.of_run().traces) == 1
    assert found.tree() - {("task", None)} == CHECKOUT - {
        ("run checkout", None),
        ("resume checkout", "run checkout"),
    } | {("run checkout", "task")}
