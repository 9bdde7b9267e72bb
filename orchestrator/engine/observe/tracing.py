"""Spans of runs, through the OpenTelemetry API alone. Imported only where an SDK is configured, see `observer`.

A run is one trace, whoever works on it. Its parents never come from the process that happens to be at work, but from
what is stored: `RunHeader.trace` names the run's span (as a W3C `traceparent`, and a `tracestate` behind a blank), and
`TimedActivation.trace` the ids of the spans of the blocks around an activation, one for each step of its path. Whatever is current
where the work is done (the caller's span, or that of Celery's instrumentation) becomes a link.

A span ends where it began, so what outlives a message has two: a short *opening*, which is the parent of all that is
inside, and when it settles a *closing* below that, which has the whole duration and the outcome. The API cannot do
otherwise: it neither lets a span end in another process nor lets one be made with a given id.

A span that is never ended is never exported. So what is opened for a commit is ended once it is committed.
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
from orchestrator.rules.change import Committed, CreateActivation, Op, StartNextItem, UpdateActivation, UpdateRun
from orchestrator.rules.graph import Path
from orchestrator.rules.model import ENDED, Activation, ActivationFields, Phase, RunHeader, StoredStatus, parse_path
from orchestrator.rules.model import ActivationStatus as Is

log = logging.getLogger("orchestrator")

# Kinds of steps that have others inside, and with those spans of their own.
_BLOCKS = frozenset({"NESTED", "PARALLEL", "BRANCH", "LOOP", "FOREACH", "WAIT"})

# The phases whose work is a span of its own. Those of a block are its opening.
_OPENS = frozenset({Phase.EVALUATE_BRANCH, Phase.FAN_OUT, Phase.VALIDATE_INPUT})
_WORKS = _OPENS | {Phase.RUN}
# The phases that end something which began long before.
_PASSES = frozenset(
    {Phase.COMPUTE_SLEEP, Phase.SLEEP_OVER, Phase.AWAIT_EVENT, Phase.EVENT_RECEIVED, Phase.EVENT_TIMEOUT}
)
_CLOSES = frozenset({Phase.JOIN, Phase.EVALUATE_LOOP})


class Tracing:
    """Makes the spans of runs."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def of(cls, provider: TracerProvider) -> Self | None:
        """None where the SDK is switched off."""
        tracer = provider.get_tracer("orchestrator")
        # `OTEL_SDK_DISABLED` leaves a provider that makes no spans: then nothing is to be stored either.
        return None if isinstance(tracer, NoOpTracer) else cls(tracer)

    def observe(self, attempt: ObservedAttempt) -> AttemptObserver:
        """Observe a claim."""
        with never_fail:
            return AttemptSpans(self, attempt)
        return NULL_OBSERVER

    def begin(self, name: str, parent: SpanContext, about: dict[str, Any], moment: int | None = None) -> Span:
        """Begin a span below `parent`, with a link to what is current here, now or at `moment` (ms)."""
        # The parent is what is stored and never what is current, so that a run is one trace whichever worker is at
        # work. What is current there becomes a link, so that the worker's own trace can be found.
        current = get_current_span().get_span_context()
        links = [Link(current)] if current.is_valid and current.span_id != parent.span_id else None
        context = set_span_in_context(NonRecordingSpan(parent))
        begun = nanoseconds(moment) if moment else None
        with never_fail:
            return self._tracer.start_span(name, context, attributes=about, links=links, start_time=begun)
        return NonRecordingSpan(parent)

    def begin_run(self, header: RunHeader) -> Span:
        """Make the opening of a run, below whatever is current."""
        with never_fail:
            return self._tracer.start_span(f"run {header.workflow_id}", attributes=attributes(header))
        return INVALID_SPAN

    def close_run(self, header: RunHeader, lineage: SpanLineage, error: BaseException | None = None) -> None:
        """Make the closing of a rest: the status of the run, and the time since its start."""
        about = {**attributes(header), "orchestrator.status": header.status, "orchestrator.rest": header.settle_count}
        # A run that was canceled before its start has its creation alone.
        moment = header.started_at or header.created_at
        span = self.begin(f"run {header.workflow_id}: {header.status}", lineage.run, about, moment)
        # A tripwire is an end that somebody wanted: the trace shows its status, and no error.
        if error is not None and header.status != StoredStatus.TRIPWIRE:
            record_error(span, error)
        # By the store's clock, as its begin: the clocks of two hosts could make a span end before it begins.
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
        """Make the opening of a run. It ends with the start, and as an error where that is refused."""
        span = self.begin_run(header)
        observer = CallSpans(self, header, span.get_span_context(), keep=True)
        with use_and_end(span):
            yield observer
        observer.end()

    @contextmanager
    def observe_call(self, verb: str, header: RunHeader) -> Iterator[CallObserver]:
        """Make a short span for what a caller does to a run that exists."""
        lineage, opened = self.find_lineage(header)
        observer = CallSpans(self, header, lineage.run, keep=opened is not None)
        # Its end is that of the call, whatever the run does from here on: the caller waits for no more than this.
        with use_and_end(self.begin(f"{verb} {header.workflow_id}", lineage.run, attributes(header))):
            yield observer
        observer.end()
        if opened is not None:
            end(opened)

    def find_lineage(self, header: RunHeader, activation: Activation | None = None) -> tuple[SpanLineage, Span | None]:
        """The lineage of an activation. A run that was started where nobody listened gets its trace, and thereby a fresh
        opening that is to be stored and ended, from the first who does."""
        lineage = SpanLineage.parse(header.trace, activation.trace if activation is not None else "")
        if lineage is not None:
            return lineage, None
        opened = self.begin_run(header)
        # Without a stored trace there is no parent that others could share, so the first listener makes one.
        return SpanLineage(opened.get_span_context()), opened

    def on_canceled(self, header: RunHeader) -> None:
        """Make the closing of a run that a caller has ended."""
        with never_fail:
            lineage = SpanLineage.parse(header.trace, "")
            if lineage is not None:
                self.close_run(header, lineage)


class BlockSpans:
    """The blocks that a commit opens: their spans, and the operations that store their ids."""

    def __init__(self, tracing: Tracing, header: RunHeader, workflow_id: Callable[[Path], str]) -> None:
        self._tracing = tracing
        self._header = header
        self._workflow_id = workflow_id
        self._spans: list[Span] = []

    def write(self, ops: Sequence[Op], place: Path, lineage: SpanLineage) -> list[Op]:
        """The operations of an activation at `place`, whose lineage (its own opening included) is `lineage`."""
        self._spans = []
        known = {place: lineage}
        same: dict[int, Op] = {}  # the window of a foreach is one operation many times over, and stays one
        for op in ops:
            if id(op) not in same:
                same[id(op)] = self._op(op, known, lineage)
        return [same[id(op)] for op in ops]

    def _op(self, op: Op, known: dict[Path, SpanLineage], lineage: SpanLineage) -> Op:
        match op:
            case CreateActivation(activation=activation) if activation.path != ROOT:
                # A new activation takes the ids of the openings around it along: its worker may be another process.
                return replace(op, activation=self._activation(activation, known, lineage))
            case StartNextItem(path=path, template=template):
                found = known.get(parse_path(path), lineage).cut(len(parse_path(path)))
                return replace(op, template=replace(template, trace=found.text))
            case _:
                return op

    def _activation(self, activation: Activation, known: dict[Path, SpanLineage], lineage: SpanLineage) -> Activation:
        at = activation.at
        found = known.get(at[:-1], lineage).cut(len(at) - 1)
        # A block opens in the commit of its predecessor, so its opening has to be there before its children are stored.
        if activation.status == Is.OPEN and activation.component in _BLOCKS:
            about = attributes(self._header, activation, self._workflow_id(at))
            span = self._tracing.begin(span_name(activation), found.context(len(at)), about)
            self._spans.append(span)
            known[at] = found = found.open_block(len(at), span)
        return replace(activation, trace=found.text)

    def end(self) -> None:
        """End the spans of blocks whose opening is committed."""
        for span in self._spans:
            end(span)


class CallSpans:
    """The spans of a caller's operation. With `keep` the run's span is to be stored."""

    def __init__(self, tracing: Tracing, header: RunHeader, run: SpanContext, keep: bool) -> None:
        self._blocks = BlockSpans(tracing, header, lambda path: "")
        self._run = run
        self._keep = keep

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Add the ids of the blocks that are opened, and the run's own."""
        with never_fail:
            written = self._blocks.write(ops, (), SpanLineage(self._run))
            # A caller that is refused has stored nothing, and the next one begins the run's span anew.
            return [*written, UpdateRun({"trace": encode_run_span(self._run)})] if self._keep else written
        return ops

    def end(self) -> None:
        """End what was begun for the commit, which was accepted."""
        self._blocks.end()


class AttemptSpans:
    """The spans of one claim."""

    def __init__(self, tracing: Tracing, attempt: ObservedAttempt) -> None:
        self._tracing = tracing
        self._attempt = attempt
        self._activation = attempt.activation
        self._header = attempt.header
        self._at = attempt.activation.at
        self._about = attributes(attempt.header, attempt.activation, attempt.workflow_id)
        self._lineage, self._adopted = tracing.find_lineage(attempt.header, attempt.activation)
        self._blocks = BlockSpans(tracing, attempt.header, self._workflow_at)
        # None of these is ended before the commit is accepted, but for the work's own: a span says what has happened.
        self._span: Span | None = None  # of the work
        self._late: Span | None = None  # of what the work ends
        self._ended: list[str] = []  # blocks that the commit ends beside the activation itself
        self._failure = ""

    def _workflow_at(self, path: Path) -> str:
        scope = self._attempt.graph.scope(path)
        return self._attempt.graph.node(scope).id if scope else ""

    @property
    def _parent(self) -> SpanContext:
        """Parent span of the work span. JOIN and CHECK run under the block's own span."""
        # The stored ids go down to the block's own opening; what gathers belongs inside it, what runs beside it.
        inside = self._activation.phase in _CLOSES
        return self._lineage.context(len(self._at) if inside else len(self._at) - 1)

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Do the work in a span, if it is more than bookkeeping; else under the span around."""
        if self._activation.phase in _WORKS:
            with never_fail:
                self._span = self._tracing.begin(span_name(self._activation), self._parent, self._about)
        token = attach(set_span_in_context(self._span or NonRecordingSpan(self._parent)))
        try:
            outcome = work()
            with never_fail:
                # From the plan, before it is committed: whether the commit is accepted says nothing about the work.
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
        # The condition of a loop is evaluated after the loop has opened: it has no span of work around it.
        here = self._span.get_span_context() if self._span is not None else self._parent
        span = self._tracing.begin(name, here, self._about)
        with use_and_end(span):
            found = call()
            span.set_attribute("orchestrator.condition", bool(found))
            return found

    def on_failure(self, error: BaseException) -> None:
        """Mark the work's span as an error. Where the process that did the work is gone, make that span here."""
        with never_fail:
            if self._span is not None:
                record_error(self._span, error)
            # The main process of a worker tells of a child that was killed. That child's span died with it, unexported.
            elif self._activation.phase == Phase.RUN:
                span = self._tracing.begin(
                    span_name(self._activation), self._parent, self._about, self._activation.started_at
                )
                record_error(span, error)
                end(span)

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Add the ids of the blocks that are opened."""
        with never_fail:
            return self._add_traces(ops)
        return ops

    def _add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        fields = _fields(ops, self._activation.path)
        status = fields.get("status", "")
        self._late = self._begin_late(status)
        self._failure = self._activation.path if status == Is.FAILED and self._late is not None else ""
        self._ended = [op.path for op in ops if isinstance(op, UpdateActivation) and self._ends_around(op)]
        depth, lineage = len(self._at), self._lineage
        # A wait whose time is over opens what follows its timeout; a choice, a split or an entry opens its block.
        opening = (
            self._late
            if self._activation.phase in _PASSES
            else self._span
            if self._activation.phase in _OPENS
            else None
        )
        if opening is not None and status == Is.OPEN:
            lineage = lineage.open_block(depth, opening)
            ops = [_with_trace(op, self._activation.path, lineage.text) for op in ops]
        written = self._blocks.write(ops, self._at, lineage)
        if self._adopted is not None:
            # Two workers may adopt a run at once. The first keeps its trace: the other's operation does nothing then.
            written.append(UpdateRun({"trace": encode_run_span(self._adopted.get_span_context())}, unless="trace"))
        return written

    def _ends_around(self, op: UpdateActivation) -> bool:
        # The last child of a block may end the block, and those around it, in its own commit.
        return op.path not in (ROOT, self._activation.path) and op.fields.get("status") in ENDED

    def _begin_late(self, status: str) -> Span | None:
        activation, phase = self._activation, self._activation.phase
        # A sleep or a wait that is over has the whole time as its duration, and began in another process.
        over = status in ENDED or (phase == Phase.EVENT_TIMEOUT and status == Is.OPEN)
        if not over or phase not in _PASSES | _CLOSES:
            return None
        word = "timeout" if status == Is.OPEN else status
        name = f"{span_name(activation)}: {word}" if phase in _CLOSES else span_name(activation)
        return self._tracing.begin(
            name, self._parent, {**self._about, "orchestrator.status": word}, activation.started_at
        )

    def on_committed(self, answer: Committed) -> None:
        """End what was begun for this commit, and tell of the blocks that it has ended."""
        with never_fail:
            self._blocks.end()
            if self._adopted is not None:
                end(self._adopted)
            if self._activation.phase == Phase.SETTLE:
                # By the header that the commit has left: its status is the run's, and its times are the store's.
                self._tracing.close_run(answer.header, self._lineage, self._error(answer.header.error))
                return
            # Read again, because the commit made what is told here: the end of a block, and by which error.
            paths = [*self._ended, *filter(None, [self._failure])]
            found = self._attempt.load(paths) if paths else []
            for activation in found:
                if activation.path in self._ended and activation.status in ENDED:
                    self._close(activation)
            if self._late is not None:
                self._record_late_error(found)
                end(self._late, max(answer.header.updated_at, self._activation.started_at))

    def _record_late_error(self, found: Sequence[Activation]) -> None:
        for activation in found:
            error = self._error(activation.error) if activation.path == self._failure else None
            if error is not None and self._late is not None:
                record_error(self._late, error)

    def _close(self, activation: Activation) -> None:
        # A closing stands below the opening of the same block, whose id its activation holds.
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
        error = self._error(activation.error)
        if error is not None:
            record_error(span, error)
        end(span, activation.ended_at)

    def _error(self, key: str) -> BaseException | None:
        """The stored error, if it is one: a tripwire is none."""
        if not key:
            return None
        # A tripwire's reason is stored in the same place as an error, but as no exception.
        found = self._attempt.read_value(key)
        return found if isinstance(found, BaseException) else None


def _fields(ops: Sequence[Op], path: str) -> ActivationFields:
    """The fields that the operations set on the activation at `path`."""
    found: ActivationFields = {}
    for op in ops:
        if isinstance(op, UpdateActivation) and op.path == path:
            found |= op.fields
    return found


def _with_trace(op: Op, path: str, text: str) -> Op:
    if isinstance(op, UpdateActivation) and op.path == path and "status" in op.fields:
        return replace(op, fields={**op.fields, "trace": text})
    return op
