"""An SDK for one test, in memory. The API allows a provider once per process, so its place is taken and given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.metrics import _internal as metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator import Orchestrator
from orchestrator.engine.observe import observer
from tests.telemetry.flows import WORKFLOWS
from tests.telemetry.listening import Trace, seen


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that has just been set is seen at once."""
    monkeypatch.setattr(observer, "SILENCE", 0.0)
    monkeypatch.setattr(observer, "_silent_until", 0.0)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """An SDK without an exporter."""
    made = TracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made)
    yield made
    made.shutdown()


@pytest.fixture
def exported(provider: TracerProvider) -> Callable[[], Trace]:
    """Give a function that tells what has been exported by then."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return lambda: seen(exporter.get_finished_spans())


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """Give a metric reader of an SDK for numbers."""
    found = InMemoryMetricReader()
    made = MeterProvider([found])
    monkeypatch.setattr(metrics, "_METER_PROVIDER", made)
    yield found
    made.shutdown()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """Give an orchestrator of the default runtime."""
    with Orchestrator(workflows=WORKFLOWS) as made:
        yield made
