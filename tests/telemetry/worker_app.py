"""The app module of the worker processes, with an SDK that writes into a file.

Where `TASK_SPANS` is set, each task has a current span of its own, as Celery's own instrumentation makes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, signals
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from orchestrator import Orchestrator
from tests.telemetry.flows import WORKFLOWS
from tests.telemetry.listening import FileExporter

TIMES: dict[str, Any] = {"tick_seconds": 0.2, "inline_steps": 1}
_open: dict[str, tuple[trace.Span, Any]] = {}


def make_app(broker: str, **settings: Any) -> Celery:
    """The app as workers and clients have it."""
    app = Celery("telemetry", broker=broker, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False, **settings)
    return app


def _begin(task_id: str, **_: Any) -> None:
    span = trace.get_tracer("celery").start_span("task")
    _open[task_id] = span, context.attach(trace.set_span_in_context(span))


def _end(task_id: str, **_: Any) -> None:
    span, token = _open.pop(task_id)
    context.detach(token)
    span.end()


if path := os.environ.get("SPANS"):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(Path(path), os.getpid)))
    trace.set_tracer_provider(provider)
    if os.environ.get("TASK_SPANS"):
        signals.task_prerun.connect(_begin)
        signals.task_postrun.connect(_end)
    app = make_app(os.environ["BROKER_URL"])
    orchestrator = Orchestrator(app, store=os.environ["ORCHESTRATOR_STORE"], workflows=WORKFLOWS, **TIMES)
