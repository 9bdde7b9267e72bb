"""Spans of runs, through the OpenTelemetry API alone. Imported only where an SDK is configured, see `telemetry`.

A run is one trace, whoever works on it. Its parents never come from the process that happens to be at work, but from
what is stored: `Header.trace` names the run's span (as a W3C `traceparent`, and a `tracestate` behind a blank), and
`Record.trace` the ids of the spans of the blocks around a record, one for each step of its path. Whatever is current
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
from typing import TYPE_CHECKING, Any, Self

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

from orchestrator.core.changes import Committed, Next, Op, Put, Run, Set
from orchestrator.core.graph import Path
from orchestrator.core.records import ENDED, Header, Phase, Record, RunState, undotted
from orchestrator.core.records import Status as Is
from orchestrator.engine.observe.observer import UNSEEN, Watch, Word
from orchestrator.engine.observe.spans import (
    HARMLESS,
    ROOT,
    Line,
    attributes,
    blame,
    current,
    end,
    named,
    nanoseconds,
    stored,
)

if TYPE_CHECKING:
    from orchestrator.engine.activity import Activity
    from orchestrator.engine.steps import Followed

log = logging.getLogger("orchestrator")

_BLOCKS = frozenset({"NESTED", "PARALLEL", "BRANCH", "LOOP", "FOREACH", "WAIT"})

# The phases whose work is a span of its own. Those of a block are its opening.
_OPENS = frozenset({Phase.CHOOSE, Phase.SPLIT, Phase.ENTER})
_WORKS = _OPENS | {Phase.RUN}
# The phases that end something which began long before.
_PASSES = frozenset({Phase.NAP, Phase.WAKE, Phase.LISTEN, Phase.HEAR, Phase.EXPIRE})
_CLOSES = frozenset({Phase.JOIN, Phase.CHECK})


class Tracing:
    """Makes the spans of runs."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def of(cls, provider: TracerProvider) -> Self | None:
        """None where the SDK is switched off."""
        tracer = provider.get_tracer("orchestrator")
        return None if isinstance(tracer, NoOpTracer) else cls(tracer)

    def watch(self, activity: Activity) -> Watch:
        """Watch a claim."""
        with HARMLESS:
            return TraceWatch(self, activity)
        return UNSEEN

    def begin(self, name: str, parent: SpanContext, about: dict[str, Any], moment: int | None = None) -> Span:
        """A span below `parent`, with a link to what is current here; `moment` (ms) is when it began, if not now."""
        current = get_current_span().get_span_context()
        links = [Link(current)] if current.is_valid and current.span_id != parent.span_id else None
        context = set_span_in_context(NonRecordingSpan(parent))
        begun = nanoseconds(moment) if moment else None
        with HARMLESS:
            return self._tracer.start_span(name, context, attributes=about, links=links, start_time=begun)
        return NonRecordingSpan(parent)

    def begin_run(self, header: Header) -> Span:
        """The opening of a run, below whatever is current."""
        with HARMLESS:
            return self._tracer.start_span(f"run {header.workflow_id}", attributes=attributes(header))
        return INVALID_SPAN

    def close_run(self, header: Header, line: Line, error: BaseException | None = None) -> None:
        """The closing of a rest: what the run has come to, and since when it has been on its way."""
        about = {**attributes(header), "orchestrator.status": header.status, "orchestrator.rest": header.rests}
        moment = header.started_at or header.created_at
        span = self.begin(f"run {header.workflow_id}: {header.status}", line.run, about, moment)
        if error is not None and header.status != RunState.TRIPWIRE:
            blame(span, error)
        end(span, max(header.updated_at, moment))

    @contextmanager
    def within(self, header: Header) -> Iterator[None]:
        """The run's span is the current one."""
        line = Line.parse(header.trace, "")
        if line is None:
            yield
            return
        with use_span(NonRecordingSpan(line.run)):
            yield

    @contextmanager
    def starting(self, header: Header) -> Iterator[Word]:
        """The opening of a run. It ends with the start, and as an error where that is refused."""
        span = self.begin_run(header)
        word = Caller(self, header, span.get_span_context(), keep=True)
        with current(span):
            yield word
        word.done()

    @contextmanager
    def going_on(self, verb: str, header: Header) -> Iterator[Word]:
        """A short span for what a caller does to a run that exists."""
        line, opened = self.line_of(header)
        word = Caller(self, header, line.run, keep=opened is not None)
        with current(self.begin(f"{verb} {header.workflow_id}", line.run, attributes(header))):
            yield word
        word.done()
        if opened is not None:
            end(opened)

    def line_of(self, header: Header, record: Record | None = None) -> tuple[Line, Span | None]:
        """Where a record stands. A run that was started where nobody listened gets its trace, and thereby a fresh
        opening that is to be stored and ended, from the first who does."""
        line = Line.parse(header.trace, record.trace if record is not None else "")
        if line is not None:
            return line, None
        opened = self.begin_run(header)
        return Line(opened.get_span_context()), opened

    def canceled(self, header: Header) -> None:
        """The closing of a run that a caller has ended."""
        with HARMLESS:
            line = Line.parse(header.trace, "")
            if line is not None:
                self.close_run(header, line)


class Openings:
    """The blocks that a commit opens: their spans, and the operations that store their ids."""

    def __init__(self, tracing: Tracing, header: Header, workflow_id: Callable[[Path], str]) -> None:
        self._tracing = tracing
        self._header = header
        self._workflow_id = workflow_id
        self._spans: list[Span] = []

    def write(self, ops: Sequence[Op], place: Path, line: Line) -> list[Op]:
        """The operations of an activation at `place`, whose line (its own opening included) is `line`."""
        self._spans = []
        known = {place: line}
        same: dict[int, Op] = {}  # the window of a foreach is one operation many times over, and stays one
        for op in ops:
            if id(op) not in same:
                same[id(op)] = self._op(op, known, line)
        return [same[id(op)] for op in ops]

    def _op(self, op: Op, known: dict[Path, Line], line: Line) -> Op:
        match op:
            case Put(record=record) if record.path != ROOT:
                return replace(op, record=self._record(record, known, line))
            case Next(path=path, template=template):
                found = known.get(undotted(path), line).cut(len(undotted(path)))
                return replace(op, template=replace(template, trace=found.text))
            case _:
                return op

    def _record(self, record: Record, known: dict[Path, Line], line: Line) -> Record:
        at = record.at
        found = known.get(at[:-1], line).cut(len(at) - 1)
        if record.status == Is.OPEN and record.component in _BLOCKS:
            about = attributes(self._header, record, self._workflow_id(at))
            span = self._tracing.begin(named(record), found.context(len(at)), about)
            self._spans.append(span)
            known[at] = found = found.opened(len(at), span)
        return replace(record, trace=found.text)

    def end(self) -> None:
        """They are committed."""
        for span in self._spans:
            end(span)


class Caller:
    """What a caller does to a run. With `keep` the run's span is to be stored."""

    def __init__(self, tracing: Tracing, header: Header, run: SpanContext, keep: bool) -> None:
        self._openings = Openings(tracing, header, lambda path: "")
        self._run = run
        self._keep = keep

    def planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        """With the ids of the blocks that are opened, and the run's own."""
        with HARMLESS:
            written = self._openings.write(ops, (), Line(self._run))
            return [*written, Run({"trace": stored(self._run)})] if self._keep else written
        return ops

    def done(self) -> None:
        """It has been committed."""
        self._openings.end()


class TraceWatch:
    """The spans of one claim."""

    def __init__(self, tracing: Tracing, activity: Activity) -> None:
        self._tracing = tracing
        self._activity = activity
        self._record = activity.record
        self._header = activity.header
        self._at = activity.record.at
        self._about = attributes(activity.header, activity.record, activity.workflow.id)
        self._line, self._adopted = tracing.line_of(activity.header, activity.record)
        self._openings = Openings(tracing, activity.header, self._workflow_at)
        self._span: Span | None = None  # of the work
        self._late: Span | None = None  # of what the work ends
        self._ended: list[str] = []  # blocks that the commit ends beside the activation itself
        self._failure = ""

    def _workflow_at(self, path: Path) -> str:
        scope = self._activity.graph.scope(path)
        return self._activity.graph.node(scope).id if scope else ""

    @property
    def _parent(self) -> SpanContext:
        """Of the work: for what gathers and checks, the block's own opening."""
        inside = self._record.phase in _CLOSES
        return self._line.context(len(self._at) if inside else len(self._at) - 1)

    def run(self, work: Callable[[], Followed]) -> Followed:
        """Do the work in a span, if it is more than bookkeeping; else under the span around."""
        if self._record.phase in _WORKS:
            with HARMLESS:
                self._span = self._tracing.begin(named(self._record), self._parent, self._about)
        token = attach(set_span_in_context(self._span or NonRecordingSpan(self._parent)))
        try:
            plan, written = work()
            with HARMLESS:
                self._outcome(plan.ops)
            return plan, written
        except BaseException as error:
            with HARMLESS:
                self.failed(error)
            raise
        finally:
            detach(token)
            if self._span is not None:
                end(self._span)

    def _outcome(self, ops: Sequence[Op]) -> None:
        fields = _fields(ops, self._record.path)
        status = fields.get("status", "")
        if self._span is None or status in ("", Is.OPEN):
            return
        self._span.set_attribute("orchestrator.status", status)
        if status == Is.SUSPENDED:
            label = {"orchestrator.label": fields["label"]} if fields.get("label") else {}
            self._span.add_event("suspended", label)
        if status == Is.RETRYING:
            self._span.add_event("retry", {"orchestrator.attempt": fields["attempt"]})

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """A span for each condition."""
        name = "condition" if index is None else f"condition {index}"
        here = self._span.get_span_context() if self._span is not None else self._parent
        span = self._tracing.begin(name, here, self._about)
        with current(span):
            found = call()
            span.set_attribute("orchestrator.condition", bool(found))
            return found

    def failed(self, error: BaseException) -> None:
        """The work's span is an error. Where the process that did it is gone, it is told of here."""
        with HARMLESS:
            if self._span is not None:
                blame(self._span, error)
            elif self._record.phase == Phase.RUN:
                span = self._tracing.begin(named(self._record), self._parent, self._about, self._record.started_at)
                blame(span, error)
                end(span)

    def planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        """With the ids of the blocks that are opened."""
        with HARMLESS:
            return self._planned(ops)
        return ops

    def _planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        fields = _fields(ops, self._record.path)
        status = fields.get("status", "")
        self._late = self._begin_late(status)
        self._failure = self._record.path if status == Is.FAILED and self._late is not None else ""
        self._ended = [op.path for op in ops if isinstance(op, Set) and self._ends_around(op)]
        depth, line = len(self._at), self._line
        opening = self._late if self._record.phase in _PASSES else self._span if self._record.phase in _OPENS else None
        if opening is not None and status == Is.OPEN:
            line = line.opened(depth, opening)
            ops = [_with_trace(op, self._record.path, line.text) for op in ops]
        written = self._openings.write(ops, self._at, line)
        if self._adopted is not None:
            written.append(Run({"trace": stored(self._adopted.get_span_context())}, unless="trace"))
        return written

    def _ends_around(self, op: Set) -> bool:
        return op.path not in (ROOT, self._record.path) and op.fields.get("status") in ENDED

    def _begin_late(self, status: str) -> Span | None:
        record, phase = self._record, self._record.phase
        over = status in ENDED or (phase == Phase.EXPIRE and status == Is.OPEN)
        if not over or phase not in _PASSES | _CLOSES:
            return None
        word = "timeout" if status == Is.OPEN else status
        name = f"{named(record)}: {word}" if phase in _CLOSES else named(record)
        return self._tracing.begin(name, self._parent, {**self._about, "orchestrator.status": word}, record.started_at)

    def committed(self, answer: Committed) -> None:
        """End what was begun for this commit, and tell of the blocks that it has ended."""
        with HARMLESS:
            self._openings.end()
            if self._adopted is not None:
                end(self._adopted)
            if self._record.phase == Phase.REST:
                self._tracing.close_run(answer.header, self._line, self._error(answer.header.error))
                return
            paths = [*self._ended, *filter(None, [self._failure])]
            found = self._activity.store.load(self._header.run_id, paths) if paths else []
            for record in found:
                if record.path in self._ended and record.status in ENDED:
                    self._close(record)
            if self._late is not None:
                self._blame_late(found)
                end(self._late, max(answer.header.updated_at, self._record.started_at))

    def _blame_late(self, found: Sequence[Record]) -> None:
        for record in found:
            error = self._error(record.error) if record.path == self._failure else None
            if error is not None and self._late is not None:
                blame(self._late, error)

    def _close(self, record: Record) -> None:
        line = Line(self._line.run, tuple(record.trace.split("-")))
        about = {**attributes(self._header, record, self._workflow_at(record.at)), "orchestrator.status": record.status}
        span = self._tracing.begin(
            f"{named(record)}: {record.status}", line.context(len(record.at)), about, record.started_at
        )
        error = self._error(record.error)
        if error is not None:
            blame(span, error)
        end(span, record.ended_at)

    def _error(self, key: str) -> BaseException | None:
        """The stored error, if it is one: a tripwire is none."""
        if not key:
            return None
        found = self._activity.values.plain(key)
        return found if isinstance(found, BaseException) else None


def _fields(ops: Sequence[Op], path: str) -> dict[str, Any]:
    """What the operations make of the record at `path`."""
    found: dict[str, Any] = {}
    for op in ops:
        if isinstance(op, Set) and op.path == path:
            found |= op.fields
    return found


def _with_trace(op: Op, path: str, text: str) -> Op:
    if isinstance(op, Set) and op.path == path and "status" in op.fields:
        return replace(op, fields={**op.fields, "trace": text})
    return op
