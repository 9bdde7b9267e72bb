"""Without an SDK nothing is made, nothing is stored and nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace

from orchestrator import Orchestrator
from orchestrator.engine.observe import observer
from tests.telemetry.flows import checkout, winding
from tests.telemetry.test_spans import ORDER

ALONE = """
import sys
from orchestrator import Orchestrator
from tests.telemetry.flows import checkout
with Orchestrator(workflows=[checkout]) as orchestrator:
    run = orchestrator.create_run(checkout)
    run.start({})
    run.resume("yes")
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_no_span_object_is_made(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a real one nor the API's stand-in, and nothing is stored."""
    made: list[str] = []

    def counted(kind: type, name: str) -> None:
        before = getattr(kind, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(f"{kind.__name__}.{name}")
            return before(*args, **kwargs)

        monkeypatch.setattr(kind, name, call)

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    counted(trace.NonRecordingSpan, "__init__")
    counted(trace.ProxyTracer, "start_span")
    counted(trace.NoOpTracer, "start_span")
    run = orchestrator.create_run(checkout)
    run.start(ORDER)
    run.resume("yes")
    other = orchestrator.create_run(winding)
    other.start(0)

    assert made == []
    assert observer.find_listeners() is None
    assert run.header().trace == ""
    assert {activation.trace for activation in orchestrator.store.load(run.run_id)} == {""}


def test_a_disabled_sdk_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_SDK_DISABLED` switches it off."""
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
    assert observer.find_listeners() is None


def test_the_api_is_not_imported() -> None:
    """A process that does not use OpenTelemetry itself never loads it."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
