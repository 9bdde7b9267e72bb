"""Spans: where one belongs, what it tells, and how it ends. Through the OpenTelemetry API alone."""

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

from orchestrator.rules.model import Activation, RunHeader

log = logging.getLogger("orchestrator")

# The W3C's own text form: whatever else reads `traceparent` can read ours.
_PROPAGATOR = TraceContextTextMapPropagator()
ROOT = ""


class _NeverFail:
    """Log a fault in telemetry, which never becomes one of the run."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        # What is no `Exception` is the worker's own business: it is to stop, and telemetry must not keep it.
        if isinstance(error, Exception):
            log.error("telemetry failed; the run goes on without it", exc_info=error)
        return isinstance(error, Exception)


never_fail = _NeverFail()


# --- where a span belongs --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpanLineage:
    """The run's span, and the ids of the openings around one place, outermost first; the empty text where unknown."""

    # the run's opening, the parent of whatever has no block around it
    run: SpanContext
    # span ids only: trace id and flags are the run's, and a stored place stays short
    ids: tuple[str, ...] = ()

    @classmethod
    def parse(cls, header: str, activation: str) -> Self | None:
        """Read it as a header and an activation store it; None where the run has no trace."""
        parent, _, state = header.partition(" ")
        found = _PROPAGATOR.extract({"traceparent": parent, "tracestate": state}, Context())
        context = get_current_span(found).get_span_context()
        return cls(context, tuple(activation.split("-")) if activation else ()) if context.is_valid else None

    def context(self, depth: int) -> SpanContext:
        """The parent of whatever stands in this depth."""
        run = self.run
        # An opening may be missing: nobody listened when that block was opened. The next one outside takes its place.
        for found in reversed(self.ids[:depth]):
            if found:
                return SpanContext(run.trace_id, int(found, 16), True, run.trace_flags, run.trace_state)
        return run

    def cut(self, depth: int) -> SpanLineage:
        """The lineage of what is above this depth."""
        return self if len(self.ids) <= depth else replace(self, ids=self.ids[:depth])

    def open_block(self, depth: int, span: Span) -> SpanLineage:
        """The lineage of what is inside a block that this span opens; it is the `depth`-th around it."""
        # Blocks that were opened where nobody listened leave their place empty, so that each depth keeps its own.
        padded = (*self.ids, *([""] * depth))[: depth - 1]
        return replace(self, ids=(*padded, f"{span.get_span_context().span_id:016x}"))

    @property
    def text(self) -> str:
        """The text that an activation stores."""
        return "-".join(self.ids).rstrip("-")


def encode_run_span(context: SpanContext) -> str:
    """The text that a header stores of the run's span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(NonRecordingSpan(context)))
    return " ".join(filter(None, (carrier.get("traceparent", ""), carrier.get("tracestate", ""))))


def attributes(
    header: RunHeader, activation: Activation | None = None, workflow_id: str = ""
) -> dict[str, str | int | bool]:
    """The attributes of a run, and of one of its activations."""
    found: dict[str, str | int | bool] = {
        "orchestrator.run.id": header.run_id,
        "orchestrator.workflow.id": workflow_id or header.workflow_id,
    }
    if header.resource_id:
        found["orchestrator.resource.id"] = header.resource_id
    # The run's own activation has nothing to add to its header.
    if activation is None or activation.path == ROOT:
        return found
    found |= {"orchestrator.step.id": activation.step, "orchestrator.component": activation.component}
    found |= {"orchestrator.path": activation.path, "orchestrator.attempt": activation.attempt}
    if activation.visit:
        found["orchestrator.visit"] = activation.visit
    found |= {f"orchestrator.{name}": True for name in ("resumed", "restarted") if getattr(activation, name)}
    return found if activation.index < 0 else found | {"orchestrator.index": activation.index}


def span_name(activation: Activation) -> str:
    """The name of the spans of an activation."""
    kind = "workflow" if activation.component == "NESTED" else activation.component.lower()
    return f"{kind} {activation.step}"


def record_error(span: Span, error: BaseException) -> None:
    """Mark the span as an error, by this exception."""
    # The message is in the status too: not every backend shows the events of a span.
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def end(span: Span, moment: int | None = None) -> None:
    """End the span now, or as of a moment in ms."""
    with never_fail:
        span.end(nanoseconds(moment) if moment else None)


@contextmanager
def use_and_end(span: Span) -> Iterator[None]:
    """Make the span the current one inside, and end it with that; as an error, if one is raised."""
    try:
        with use_span(span):
            yield
    finally:
        end(span)


def nanoseconds(moment: int) -> int:
    """A moment in ms, as OpenTelemetry counts."""
    return moment * 1_000_000
