"""Spans: their places in a trace, their attributes, and their ends. Through the OpenTelemetry API alone."""

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

# The W3C's text form, because other tools can read it.
_PROPAGATOR = TraceContextTextMapPropagator()
ROOT = ""


class _NeverFail:
    """Logs a fault in telemetry, and keeps it from the run."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        # A `BaseException` of another kind ends the worker, and telemetry must not keep it.
        if isinstance(error, Exception):
            log.error("telemetry failed; the run goes on without it", exc_info=error)
        return isinstance(error, Exception)


never_fail = _NeverFail()


# --- the place of a span ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpanLineage:
    """The spans above one place of a run: that of the run, and those of the blocks around the place."""

    # the run's opening, the parent of spans without a block around them
    run: SpanContext
    # ids of the blocks' openings, outermost first; the empty text where one is unknown. Trace id and flags are the
    # run's, so the stored text stays short
    ids: tuple[str, ...] = ()

    @classmethod
    def parse(cls, header: str, activation: str) -> Self | None:
        """Read the lineage that a header and an activation store; None where the run has no trace."""
        parent, _, state = header.partition(" ")
        found = _PROPAGATOR.extract({"traceparent": parent, "tracestate": state}, Context())
        context = get_current_span(found).get_span_context()
        return cls(context, tuple(activation.split("-")) if activation else ()) if context.is_valid else None

    def context(self, depth: int) -> SpanContext:
        """Return the parent of spans at this depth."""
        run = self.run
        # An opening may be missing, because the process that opened the block had no SDK. Then the next one outside is
        # the parent.
        for found in reversed(self.ids[:depth]):
            if found:
                return SpanContext(run.trace_id, int(found, 16), True, run.trace_flags, run.trace_state)
        return run

    def cut(self, depth: int) -> SpanLineage:
        """Return the lineage down to this depth."""
        return self if len(self.ids) <= depth else replace(self, ids=self.ids[:depth])

    def open_block(self, depth: int, span: Span) -> SpanLineage:
        """Return the lineage inside a block whose opening this span is; the block is the `depth`-th from outside."""
        # Missing openings leave their places empty, so that each depth keeps its own.
        padded = (*self.ids, *([""] * depth))[: depth - 1]
        return replace(self, ids=(*padded, f"{span.get_span_context().span_id:016x}"))

    @property
    def text(self) -> str:
        """The text that an activation stores."""
        return "-".join(self.ids).rstrip("-")


def encode_run_span(context: SpanContext) -> str:
    """Return the text by which a header stores the run's span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(NonRecordingSpan(context)))
    return " ".join(filter(None, (carrier.get("traceparent", ""), carrier.get("tracestate", ""))))


def attributes(
    header: RunHeader, activation: Activation | None = None, workflow_id: str = ""
) -> dict[str, str | int | bool]:
    """Return the attributes of a run, and of one of its activations."""
    found: dict[str, str | int | bool] = {
        "orchestrator.run.id": header.run_id,
        "orchestrator.workflow.id": workflow_id or header.workflow_id,
    }
    if header.resource_id:
        found["orchestrator.resource.id"] = header.resource_id
    # The run's own activation is no step.
    if activation is None or activation.path == ROOT:
        return found
    found |= {"orchestrator.step.id": activation.step, "orchestrator.component": activation.component}
    found |= {"orchestrator.path": activation.path, "orchestrator.attempt": activation.attempt}
    if activation.visit:
        found["orchestrator.visit"] = activation.visit
    found |= {f"orchestrator.{name}": True for name in ("resumed", "restarted") if getattr(activation, name)}
    return found if activation.index < 0 else found | {"orchestrator.index": activation.index}


def span_name(activation: Activation) -> str:
    """Return the name of an activation's spans."""
    # Ids of steps, and none of runs: backends group spans by their names.
    kind = "workflow" if activation.component == "NESTED" else activation.component.lower()
    return f"{kind} {activation.step}"


def record_error(span: Span, error: BaseException) -> None:
    """Mark the span as an error, with this exception."""
    # The message stands in the status too, because some backends do not show the events of a span.
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def end(span: Span, moment: int | None = None) -> None:
    """End the span now, or as of a moment in ms."""
    with never_fail:
        span.end(nanoseconds(moment) if moment else None)


@contextmanager
def use_and_end(span: Span) -> Iterator[None]:
    """Make the span the current one inside, and end it then; an exception ends it as an error."""
    try:
        with use_span(span):
            yield
    finally:
        end(span)


def nanoseconds(moment: int) -> int:
    """Convert a moment in ms to nanoseconds, which OpenTelemetry counts in."""
    return moment * 1_000_000
