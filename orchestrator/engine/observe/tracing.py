"""Spans of runs, through the OpenTelemetry API alone. This module is imported only where an SDK is configured.

A run is one trace, whichever processes work on it. The parents of spans come from the store and never from the process
at work: `RunHeader.trace` names the run's span (as a W3C `traceparent`, and a `tracestate` behind a blank), and
`Activation.trace` has the ids of the spans of the blocks around an activation, one for each part of its path. The span
that is current where the work is done (the caller's, or that of Celery's instrumentation) becomes a link.

A run or a block outlives the message that opens it, and has two spans. A short *opening* is the parent of all spans
inside. When the run settles or the block ends, a *closing* below the opening has the whole duration and the outcome.
The API leaves no other way: a span cannot end in another process, nor be made with a given id.

A span that is never ended is never exported. So a span that is begun for a commit is ended once that is accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from opentelemetry.context import attach, detach
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    Tracer,
    TracerProvider,
    get_current_span,
    set_span_in_context,
    use_span,
)

from orchestrator.engine.observe.block_spans import BlockSpans, CallSpans
from orchestrator.engine.observe.protocols import NULL_OBSERVER, AttemptObserver, CallObserver, ObservedAttempt
from orchestrator.engine.observe.spans import (
    ROOT,
    SpanLineage,
    attributes,
    encode_run_span,
    end,
    nanoseconds,
    never_fail,
    record_error,
    span_name,
    use_and_end,
)
from orchestrator.engine.outcome import StepOutcome
from orchestrator.rules.change import Committed, Op, UpdateActivation, UpdateRun
from orchestrator.rules.graph import Path
from orchestrator.rules.model import ENDED, Activation, ActivationFields, Phase, RunHeader, StoredStatus
from orchestrator.rules.model import ActivationStatus as Is

log = logging.getLogger("orchestrator")

# The phases whose work is the opening of a block.
_OPENS = frozenset({Phase.EVALUATE_BRANCH, Phase.FAN_OUT, Phase.VALIDATE_INPUT})
# The phases whose work is a span.
_WORKS = _OPENS | {Phase.RUN, Phase.EXECUTE}
# The phases of sleeps and waits: what they end has begun long before, perhaps in another process.
_PASSES = frozenset(
    {Phase.COMPUTE_SLEEP, Phase.SLEEP_OVER, Phase.AWAIT_EVENT, Phase.EVENT_RECEIVED, Phase.EVENT_TIMEOUT}
)
_CLOSES = frozenset({Phase.JOIN, Phase.EVALUATE_LOOP})


class Tracing:
    """Makes the spans of runs."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def from_provider(cls, provider: TracerProvider) -> Self | None:
        """Make it for this provider; None where the SDK is switched off."""
        tracer = provider.get_tracer("orchestrator")
        # `OTEL_SDK_DISABLED` leaves a provider that makes no spans: then no ids are stored either.
        return None if isinstance(tracer, NoOpTracer) else cls(tracer)

    def observe(self, attempt: ObservedAttempt) -> AttemptObserver:
        """Observe an attempt."""
        with never_fail:
            return AttemptSpans(self, attempt)
        return NULL_OBSERVER

    def begin(self, name: str, parent: SpanContext, about: dict[str, Any], moment: int | None = None) -> Span:
        """Begin a span below `parent`, now or at `moment` (ms), with a link to the current span."""
        # The parent is never the current span, so that a run is one trace, whichever worker is at work. By the link
        # the worker's own trace can be found.
        current = get_current_span().get_span_context()
        links = [Link(current)] if current.is_valid and current.span_id != parent.span_id else None
        context = set_span_in_context(NonRecordingSpan(parent))
        start_time = nanoseconds(moment) if moment else None
        with never_fail:
            return self._tracer.start_span(name, context, attributes=about, links=links, start_time=start_time)
        return NonRecordingSpan(parent)

    def begin_run(self, header: RunHeader) -> Span:
        """Make the opening of a run, below the current span."""
        with never_fail:
            return self._tracer.start_span(f"run {header.workflow_id}", attributes=attributes(header))
        return INVALID_SPAN

    def close_run(self, header: RunHeader, lineage: SpanLineage, error: BaseException | None = None) -> None:
        """Make the closing of a run that has settled, with its status and the time since its start."""
        # The name `orchestrator.rest` stays, because users' queries may know it: it is the settle count.
        about = {**attributes(header), "orchestrator.status": header.status, "orchestrator.rest": header.settle_count}
        # A run that was canceled before its start has only the time of its creation.
        moment = header.started_at or header.created_at
        span = self.begin(f"run {header.workflow_id}: {header.status}", lineage.run, about, moment)
        # A tripwire is an end that the author wanted: the trace shows its status, and no error.
        if error is not None and header.status != StoredStatus.TRIPWIRE:
            record_error(span, error)
        # Both ends by the store's clock: by the clocks of two hosts a span could end before it begins.
        end(span, max(header.updated_at, moment))

    @contextmanager
    def use_run_span(self, header: RunHeader) -> Iterator[None]:
        """Make the run's span the current one."""
        lineage = SpanLineage.parse(header.trace, "")
        if lineage is None:
            yield
            return
        with use_span(NonRecordingSpan(lineage.run)):
            yield

    @contextmanager
    def observe_start(self, header: RunHeader) -> Iterator[CallObserver]:
        """Make the opening of a run around its start. A start that is refused ends it as an error."""
        span = self.begin_run(header)
        observer = CallSpans(self.begin, header, span.get_span_context(), keep=True)
        with use_and_end(span):
            yield observer
        observer.end()

    @contextmanager
    def observe_call(self, verb: str, header: RunHeader) -> Iterator[CallObserver]:
        """Make a short span around a request of a caller to a run that exists."""
        lineage, opened = self.find_lineage(header)
        observer = CallSpans(self.begin, header, lineage.run, keep=opened is not None)
        # The span is that of the request alone: the run goes on in spans of its own.
        with use_and_end(self.begin(f"{verb} {header.workflow_id}", lineage.run, attributes(header))):
            yield observer
        observer.end()
        if opened is not None:
            end(opened)

    def find_lineage(self, header: RunHeader, activation: Activation | None = None) -> tuple[SpanLineage, Span | None]:
        """Return the lineage of an activation, and the opening of the run if it was made here.

        The caller stores the id of such an opening, and ends it.
        """
        lineage = SpanLineage.parse(header.trace, activation.trace if activation is not None else "")
        if lineage is not None:
            return lineage, None
        # The process that started the run had no SDK. The first process with one makes the opening for all others.
        opened = self.begin_run(header)
        return SpanLineage(opened.get_span_context()), opened

    def on_canceled(self, header: RunHeader) -> None:
        """Make the closing of a run that a caller has canceled."""
        with never_fail:
            lineage = SpanLineage.parse(header.trace, "")
            if lineage is not None:
                self.close_run(header, lineage)


class AttemptSpans:
    """The spans of one attempt."""

    def __init__(self, tracing: Tracing, attempt: ObservedAttempt) -> None:
        self._tracing = tracing
        self._attempt = attempt
        self._activation = attempt.activation
        self._header = attempt.header
        self._at = attempt.activation.at
        self._about = attributes(attempt.header, attempt.activation, attempt.workflow_id)
        # The run's opening, where this attempt is the first with an SDK
        self._lineage, self._run_span = tracing.find_lineage(attempt.header, attempt.activation)
        self._blocks = BlockSpans(tracing.begin, attempt.header, self._workflow_at)
        # All but the first end after the commit is accepted: a span tells of something that has happened.
        self._span: Span | None = None  # of the work
        self._closing: Span | None = None  # of the block, sleep or wait that the work ends
        self._ended: list[str] = []  # paths of the blocks that the commit ends beside the activation itself
        self._failed_path = ""  # of the activation, if it has failed and has a closing

    def _workflow_at(self, path: Path) -> str:
        scope = self._attempt.graph.scope(path)
        return self._attempt.graph.node(scope).id if scope else ""

    @property
    def _parent(self) -> SpanContext:
        """The parent of the work's span."""
        # The stored ids go down to the block's own opening. Joins and loop conditions belong inside the block, other
        # work beside it.
        inside = self._activation.phase in _CLOSES
        return self._lineage.context(len(self._at) if inside else len(self._at) - 1)

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Do the work, in a span if it is more than bookkeeping."""
        if self._activation.phase in _WORKS:
            with never_fail:
                self._span = self._tracing.begin(span_name(self._activation), self._parent, self._about)
        token = attach(set_span_in_context(self._span or NonRecordingSpan(self._parent)))
        try:
            outcome = work()
            with never_fail:
                # From the plan, before its commit: the work has happened, even if the commit is refused.
                self._note_outcome(outcome.plan.ops)
            return outcome
        except BaseException as error:
            with never_fail:
                self.on_failure(error)
            raise
        finally:
            detach(token)
            if self._span is not None:
                end(self._span)

    def _note_outcome(self, ops: Sequence[Op]) -> None:
        fields = _fields(ops, self._activation.path)
        status = fields.get("status", "")
        if self._span is None or status in ("", Is.OPEN):
            return
        self._span.set_attribute("orchestrator.status", status)
        # A suspension ends this span and not the step: the next attempt, after the resume, has a span of its own.
        if status == Is.SUSPENDED:
            label = {"orchestrator.label": fields["label"]} if fields.get("label") else {}
            self._span.add_event("suspended", label)
        if status == Is.RETRYING:
            self._span.add_event("retry", {"orchestrator.attempt": fields["attempt"]})

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate the condition in a span of its own."""
        name = "condition" if index is None else f"condition {index}"
        # The condition of a loop has no span of work around it, because its block is open already.
        parent = self._span.get_span_context() if self._span is not None else self._parent
        span = self._tracing.begin(name, parent, self._about)
        with use_and_end(span):
            found = call()
            span.set_attribute("orchestrator.condition", bool(found))
            return found

    def on_failure(self, error: BaseException) -> None:
        """Mark the work's span as an error. Where the process that did the work is dead, make that span here."""
        with never_fail:
            if self._span is not None:
                record_error(self._span, error)
            # The main process of a worker reports a child that was killed. The child's span died with it, unexported.
            elif self._activation.phase in (Phase.RUN, Phase.EXECUTE):
                span = self._tracing.begin(
                    span_name(self._activation), self._parent, self._about, self._activation.started_at
                )
                record_error(span, error)
                end(span)

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Return the operations with the ids of the openings."""
        with never_fail:
            return self._add_traces(ops)
        return ops

    def _add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        fields = _fields(ops, self._activation.path)
        status = fields.get("status", "")
        self._closing = self._begin_closing(status)
        self._failed_path = self._activation.path if status == Is.FAILED and self._closing is not None else ""
        self._ended = [op.path for op in ops if isinstance(op, UpdateActivation) and self._ends_block(op)]
        depth, lineage = len(self._at), self._lineage
        # A wait that has timed out opens the flow that follows its timeout; the phases that open a block open it by
        # their own span.
        opening = (
            self._closing
            if self._activation.phase in _PASSES
            else self._span
            if self._activation.phase in _OPENS
            else None
        )
        if opening is not None and status == Is.OPEN:
            lineage = lineage.open_block(depth, opening)
            ops = [_with_trace(op, self._activation.path, lineage.text) for op in ops]
        written = self._blocks.write(ops, self._at, lineage)
        if self._run_span is not None:
            # Two workers may make the opening of a run at once. The store keeps the first, and ignores the second.
            written.append(UpdateRun({"trace": encode_run_span(self._run_span.get_span_context())}, unless="trace"))
        return written

    def _ends_block(self, op: UpdateActivation) -> bool:
        # The last child of a block may end the block, and those around it, in its own commit.
        return op.path not in (ROOT, self._activation.path) and op.fields.get("status") in ENDED

    def _begin_closing(self, status: str) -> Span | None:
        activation, phase = self._activation, self._activation.phase
        # Begun as of the start of the activation: a sleep or a wait that is over has its whole time as the duration.
        is_over = status in ENDED or (phase == Phase.EVENT_TIMEOUT and status == Is.OPEN)
        if not is_over or phase not in _PASSES | _CLOSES:
            return None
        shown = "timeout" if status == Is.OPEN else status
        name = f"{span_name(activation)}: {shown}" if phase in _CLOSES else span_name(activation)
        return self._tracing.begin(
            name, self._parent, {**self._about, "orchestrator.status": shown}, activation.started_at
        )

    def on_committed(self, answer: Committed) -> None:
        """End the spans that were begun for this commit, and make closings of the blocks that it has ended."""
        with never_fail:
            self._blocks.end()
            if self._run_span is not None:
                end(self._run_span)
            if self._activation.phase == Phase.SETTLE:
                # From the header that the commit has left: it has the run's status, and times by the store's clock.
                self._tracing.close_run(answer.header, self._lineage, self._read_error(answer.header.error))
                return
            # Read again, because the store has applied the change: only now the ends and errors of blocks are known.
            paths = [*self._ended, *filter(None, [self._failed_path])]
            found = self._attempt.load(paths) if paths else []
            for activation in found:
                if activation.path in self._ended and activation.status in ENDED:
                    self._close(activation)
            if self._closing is not None:
                self._record_closing_error(found)
                end(self._closing, max(answer.header.updated_at, self._activation.started_at))

    def _record_closing_error(self, found: Sequence[Activation]) -> None:
        for activation in found:
            error = self._read_error(activation.error) if activation.path == self._failed_path else None
            if error is not None and self._closing is not None:
                record_error(self._closing, error)

    def _close(self, activation: Activation) -> None:
        # The closing stands below the opening of the same block, whose id the activation has.
        lineage = SpanLineage(self._lineage.run, tuple(activation.trace.split("-")))
        about = {
            **attributes(self._header, activation, self._workflow_at(activation.at)),
            "orchestrator.status": activation.status,
        }
        span = self._tracing.begin(
            f"{span_name(activation)}: {activation.status}",
            lineage.context(len(activation.at)),
            about,
            activation.started_at,
        )
        error = self._read_error(activation.error)
        if error is not None:
            record_error(span, error)
        end(span, activation.ended_at)

    def _read_error(self, key: str) -> BaseException | None:
        """Read a stored error; None for a value that is no exception."""
        if not key:
            return None
        found = self._attempt.read_value(key)
        return found if isinstance(found, BaseException) else None


def _fields(ops: Sequence[Op], path: str) -> ActivationFields:
    """Return the fields that the operations set on the activation at `path`."""
    found: ActivationFields = {}
    for op in ops:
        if isinstance(op, UpdateActivation) and op.path == path:
            found |= op.fields
    return found


def _with_trace(op: Op, path: str, text: str) -> Op:
    if isinstance(op, UpdateActivation) and op.path == path and "status" in op.fields:
        return replace(op, fields={**op.fields, "trace": text})
    return op
