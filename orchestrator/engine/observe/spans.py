"""What a span needs: where it belongs, what is said of it, and how it ends. Through the OpenTelemetry API alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.core.records import Header, Record

log = logging.getLogger("orchestrator")

_PROPAGATOR = TraceContextTextMapPropagator()
ROOT = ""


class Harmless:
    """A fault in telemetry is logged, and never becomes one of the run."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, Exception):
            log.error("telemetry failed; the run goes on without it", exc_info=error)
        return isinstance(error, Exception)


HARMLESS = Harmless()


# --- where a span belongs --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """The run's span, and the ids of the openings around one place, outermost first; the empty text where unknown."""

    run: SpanContext
    ids: tuple[str, ...] = ()

    @classmethod
    def parse(cls, header: str, record: str) -> Self | None:
        """As stored in a header and a record; None where the run has no trace."""
        parent, _, state = header.partition(" ")
        found = _PROPAGATOR.extract({"traceparent": parent, "tracestate": state}, Context())
        context = get_current_span(found).get_span_context()
        return cls(context, tuple(record.split("-")) if record else ()) if context.is_valid else None

    def context(self, depth: int) -> SpanContext:
        """What is the parent of whatever stands in this depth."""
        run = self.run
        for found in reversed(self.ids[:depth]):
            if found:
                return SpanContext(run.trace_id, int(found, 16), True, run.trace_flags, run.trace_state)
        return run

    def cut(self, depth: int) -> Line:
        """The line of what is above this depth."""
        return self if len(self.ids) <= depth else replace(self, ids=self.ids[:depth])

    def opened(self, depth: int, span: Span) -> Line:
        """The line of what is inside a block that is opened by this span; it is the `depth`-th around it."""
        padded = (*self.ids, *([""] * depth))[: depth - 1]
        return replace(self, ids=(*padded, f"{span.get_span_context().span_id:016x}"))

    @property
    def text(self) -> str:
        """As a record stores it."""
        return "-".join(self.ids).rstrip("-")


def stored(context: SpanContext) -> str:
    """The run's span as its header stores it."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(NonRecordingSpan(context)))
    return " ".join(filter(None, (carrier.get("traceparent", ""), carrier.get("tracestate", ""))))


def attributes(header: Header, record: Record | None = None, workflow_id: str = "") -> dict[str, str | int | bool]:
    """What is said of a run, and of one of its records."""
    found: dict[str, str | int | bool] = {
        "orchestrator.run.id": header.run_id,
        "orchestrator.workflow.id": workflow_id or header.workflow_id,
    }
    if header.resource_id:
        found["orchestrator.resource.id"] = header.resource_id
    if record is None or record.path == ROOT:
        return found
    found |= {"orchestrator.step.id": record.step, "orchestrator.component": record.component}
    found |= {"orchestrator.path": record.path, "orchestrator.attempt": record.attempt}
    if record.visit:
        found["orchestrator.visit"] = record.visit
    found |= {f"orchestrator.{name}": True for name in ("resumed", "restarted") if getattr(record, name)}
    return found if record.index < 0 else found | {"orchestrator.index": record.index}


def named(record: Record) -> str:
    """What the spans of a record are called."""
    kind = "workflow" if record.component == "NESTED" else record.component.lower()
    return f"{kind} {record.step}"


def blame(span: Span, error: BaseException) -> None:
    """The span is an error, by this exception."""
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def end(span: Span, moment: int | None = None) -> None:
    """End it now, or as of a moment in ms."""
    with HARMLESS:
        span.end(nanoseconds(moment) if moment else None)


@contextmanager
def current(span: Span) -> Iterator[None]:
    """The span is the current one inside, and ends with it; as an error, if that is raised."""
    try:
        with use_span(span):
            yield
    finally:
        end(span)


def nanoseconds(moment: int) -> int:
    """A moment in ms, as OpenTelemetry counts."""
    return moment * 1_000_000
