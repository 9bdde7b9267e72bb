"""What callers do to runs: start, resume, cancel. Commit first, then tell; if nobody can be told, undo or say so.

Each operation is one change under an id of its own, so that sending it again never does it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.codec import encode, keyed, validate
from orchestrator.core import flow
from orchestrator.core.changes import Caller, Change, Committed, Expect, Op, Refused, Run, Set
from orchestrator.core.graph import Graph
from orchestrator.core.records import FINAL, Header, Phase, Record, RunState, Status
from orchestrator.definitions import Workflow
from orchestrator.engine import telemetry
from orchestrator.engine.activity import view_of_state
from orchestrator.engine.calling import settled
from orchestrator.engine.contexts import resource_text
from orchestrator.engine.delivery import Engine
from orchestrator.engine.logs import about
from orchestrator.engine.reading import stored
from orchestrator.engine.rest import started_info, tell_of_cancel
from orchestrator.engine.targets import Target, addressed, around
from orchestrator.engine.telemetry import Word
from orchestrator.errors import (
    BrokerUnavailable,
    GraphChanged,
    InputInvalid,
    OrchestratorError,
    ResumeAlreadyClaimed,
    ResumeAmbiguous,
    RunNotFound,
    RunNotSuspended,
    StartAlreadyClaimed,
    StepNotSuspended,
    StoreUnavailable,
    WorkflowNotRegistered,
)
from orchestrator.host import new_token

log = logging.getLogger("orchestrator")

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "<absent>"})()

_STARTABLE = frozenset({RunState.PENDING.value})
_RESUMABLE = frozenset({RunState.SUSPENDED.value, RunState.PAUSED.value, RunState.RUNNING.value})
_BAD_DATA = "Invalid resume data: "


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run starts with."""

    input: Any = None
    state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    per_step: bool = False

    def __post_init__(self) -> None:
        for name in ("state", "request_context"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"{name} is a mapping, not {type(given).__name__}")  # it may hold secrets


def start(engine: Engine, workflow: Workflow, header: Header, begin: Beginning, delay: int = 0) -> Header:
    """Start a pending run; returns its header. Whatever is wrong with the input is raised before anything is written.

    Raises `InputInvalid`, `PayloadTooLarge`, `ValueNotSerializable`, `StartAlreadyClaimed`, `BrokerUnavailable`.
    """
    with naming(header), telemetry.starting(header) as word:
        return _start(engine, workflow, header, begin, delay, word)


def _start(engine: Engine, workflow: Workflow, header: Header, begin: Beginning, delay: int, word: Word) -> Header:
    given = begin.input
    if workflow.validate_inputs and workflow.input is not None:
        given = validate(workflow.input, given)
    limit = engine.settings.max_payload_bytes
    text = stored(given, f"input of workflow {workflow.id!r}", limit)
    context = keyed(begin.request_context, "request_context")
    resource = resource_text(context.get("resource_id")) or header.resource_id
    header = replace(header, resource_id=resource, per_step=begin.per_step)
    state = _initial_state(workflow, keyed(begin.state or {}, "state"))
    if header.status in _STARTABLE and workflow.on_start is not None:
        settled(workflow.on_start(started_info(engine.owner, workflow, header, given, state, context)))
    key = new_token()
    plan = flow.start(workflow.compiled, header, key)
    fields = {"resource_id": header.resource_id, "namespace": engine.settings.namespace}
    change = Change(
        Caller(new_token(), _STARTABLE),
        (*word.planned(plan.ops), Run({**fields, "fingerprint": workflow.compiled.fingerprint})),
        values={key: text},
        state={key: encode(value, where=f"state[{key!r}]", limit=limit) for key, value in state.items()},
        context=engine.contexts.written(context),
        events=tuple(plan.events),
        lease=engine.settings.lease,
        grace=engine.settings.grace,
    )
    if delay:
        change = replace(change, ops=tuple(_later(op, delay) for op in change.ops))
    answer = engine.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        raise _not_started(answer, workflow, header)
    undo = Change(
        Caller(new_token(), frozenset({RunState.RUNNING.value}), life=answer.header.life, rests=answer.header.rests),
        (Run({"status": RunState.PENDING.value, "started_at": 0}),),
        expect=tuple(Expect(d.path, Status.QUEUED.value, d.seq) for d in answer.dispatches),
        drop=tuple(record.path for op in change.ops if (record := getattr(op, "record", None)) is not None),
    )
    publish(engine, answer, undo)
    return answer.header


def _later(op: Any, delay: int) -> Any:
    """What the start puts in the queue waits for its moment first; a sleep begins at that moment."""
    record = getattr(op, "record", None)
    if record is not None and record.status == Status.QUEUED:
        return replace(op, record=replace(record, status=Status.RETRYING.value), delay=delay)
    if record is not None and record.status == Status.SLEEPING:
        return replace(op, delay=op.delay + delay)
    return op


def _initial_state(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """The state a run starts with: as given, and the model's defaults."""
    return {**given, **view_of_state(workflow, given)} if workflow.state is not None else dict(given)


def _not_started(answer: Refused, workflow: Workflow, header: Header) -> Exception:
    if answer.header is None:
        return RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id, workflow_id=workflow.id)
    status = answer.header.status
    text = f"run {header.run_id!r} has been started before (it is {status}): create another run"
    return StartAlreadyClaimed(text, run_id=header.run_id, workflow_id=workflow.id, actual_status=status)


@contextmanager
def naming(header: Header) -> Iterator[None]:
    """Errors of ours say whose they are: what checks a value does not know the run."""
    try:
        yield
    except OrchestratorError as error:
        error.details = {"workflow_id": header.workflow_id, "run_id": header.run_id, **error.details}
        raise


def publish(engine: Engine, answer: Committed, *undo: Change) -> None:
    """Tell the workers. If that fails, take the change back by the first that fits; if it has begun by then, fine.

    Without `undo` the change stands, and the due entries will publish it.
    """
    try:
        engine.runtime.publish(answer.header, answer.dispatches)
    except BrokerUnavailable:
        if not undo:
            text = "run %s: the broker does not answer; the ticker will publish"
            log.warning(text, answer.header.run_id, extra=about(answer.header))
            return
        try:
            undone = any(isinstance(engine.store.commit(answer.header.run_id, change), Committed) for change in undo)
        except StoreUnavailable as error:
            text = "neither broker nor store can be reached: whether the run goes on is unknown"
            raise StoreUnavailable(text, run_id=answer.header.run_id) from error
        if not undone:
            return
        raise


def resume(
    engine: Engine, header: Header, data: Any, target: Target, context: Mapping[str, Any], per_step: bool = False
) -> Header:
    """Resume what `target` names, with `data`; returns the header. A refusal leaves the run as it was, still resumable.

    A paused run goes on with all that it held back, or (`per_step`) with one step. A run of another graph than the one
    that is registered waits for a worker that has it; nobody checks the data, and steps are found by their recorded
    ids. Raises `RunNotSuspended`, `StepNotSuspended`, `ResumeAmbiguous`, `InputInvalid`, `ResumeAlreadyClaimed`,
    `GraphChanged` where ids of the other graph name no one step, or no worker can have it, and TypeError.
    """
    target = target.checked()
    if not isinstance(context, Mapping):
        raise TypeError(f"`request_context` is a mapping, not {type(context).__name__}")  # it may hold secrets
    graph_of(engine, header)
    if header.status not in _RESUMABLE:
        text = f"run {header.run_id!r} is {header.status}: only a suspended run can be resumed"
        raise RunNotSuspended(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    graph = engine.known_graph(header)
    if graph is None and not engine.runtime.is_shared:
        raise _graph_changed(header, "and no other process will go on with it: run the code it was started with")
    with naming(header), telemetry.going_on("resume", header) as word:
        return _resume(engine, graph, header, data, target, context, per_step, word)


def _graph_changed(header: Header, what_now: str) -> GraphChanged:
    text = f"run {header.run_id!r} was started with another graph of {header.workflow_id!r} than this process has"
    return GraphChanged(f"{text}, {what_now}", run_id=header.run_id, workflow_id=header.workflow_id)


def _resume(
    engine: Engine,
    graph: Graph | None,
    header: Header,
    data: Any,
    target: Target,
    context: Mapping[str, Any],
    per_step: bool,
    word: Word,
) -> Header:
    held = engine.store.load(header.run_id, held=True)
    records = _meant(engine, graph, header, held, target, per_step)
    paused = all(record.status == Status.PAUSED for record in records)
    limit = engine.settings.max_payload_bytes
    values: dict[str, str] = {}
    ops: list[Any] = []
    for record in records:
        if record.status == Status.PAUSED:
            ops += _unpause(record)
            continue
        key = f"{new_token()}r"
        values[key] = stored(_resume_data(graph, record, data), f"resume data of step {record.step!r}", limit)
        ops += flow.resume(record, key)
    ops.append(Run({"per_step": per_step}))
    change = Change(
        Caller(new_token(), _RESUMABLE, life=header.life),
        tuple(word.planned(ops)),
        expect=tuple(Expect(record.path, record.status, record.seq) for record in records),
        values=values,
        context=engine.contexts.written(context),
        lease=engine.settings.lease,
        grace=engine.settings.grace,
    )
    answer = engine.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        names = ", ".join(sorted({record.step for record in records}))
        text = f"{'run' if paused else 'step'} {names} of run {header.run_id!r} has been resumed by somebody else"
        raise ResumeAlreadyClaimed(text, run_id=header.run_id, workflow_id=header.workflow_id)
    publish(engine, answer, *_suspend_again(answer, records, held, header))
    return answer.header


def _meant(
    engine: Engine, graph: Graph | None, header: Header, held: list[Record], target: Target, per_step: bool
) -> list[Record]:
    """The records that the caller means, by what the records say of themselves: the graph may be another one."""
    inside = len(target.scope)
    held = [found for found in held if found.at[:inside] == target.scope]
    paths = around(held)
    above = {found.at: found for found in engine.store.load(header.run_id, paths)} if paths else {}
    try:
        return addressed(header, held, above, target, per_step=per_step)
    except (StepNotSuspended, ResumeAmbiguous) as error:
        if graph is not None or not target.ids:
            raise
        raise _graph_changed(header, f"and by what it recorded: {error}") from error


def _unpause(record: Record) -> list[Any]:
    ready = {"status": Status.QUEUED.value}
    return [Set("", {"status": Status.OPEN.value}), Run({"status": RunState.RUNNING.value}), Set(record.path, ready)]


def _suspend_again(answer: Committed, records: list[Record], held: list[Record], header: Header) -> list[Change]:
    """What takes a resume back, the first that fits: all as it was, where nothing else can have gone on meanwhile; else
    what was resumed alone, and the run's rest says what has come of it.
    """
    back = tuple(
        Set(r.path, {"status": r.status, "resume": r.resume, "resumed": r.resumed, "attempt": r.attempt})
        for r in records
    )
    active = frozenset({RunState.RUNNING.value})
    guard = Caller(new_token(), active, life=answer.header.life, rests=answer.header.rests)
    expect = tuple(Expect(d.path, Status.QUEUED.value, d.seq) for d in answer.dispatches)
    beside = Change(guard, back, expect=expect)
    if answer.header.live > len(records):
        return [beside]
    others = tuple(Expect(r.path, r.status, r.seq) for r in held if r not in records)
    as_it_was: tuple[Op, ...] = (*back, Run({"status": header.status}))
    return [replace(beside, guard=replace(guard, id=new_token()), ops=as_it_was, expect=(*expect, *others)), beside]


def _resume_data(graph: Graph | None, record: Record, data: Any) -> Any:
    """The data as the step's resume type has it. No data fits a type that may be None, or has defaults for all."""
    body = getattr(graph.node(record.at), "body", None) if graph is not None else None
    declared_type = getattr(getattr(body, "step", None), "resume", None)
    if declared_type is None:
        return None if data is ABSENT else data
    if data is not ABSENT:
        return validate(declared_type, data, header=_BAD_DATA)
    try:
        return validate(declared_type, None, header=_BAD_DATA)
    except InputInvalid:
        return validate(declared_type, {}, header=_BAD_DATA)


def cancel(engine: Engine, header: Header) -> Header:
    """End a run that has not ended, as canceled: by its header alone. Whatever is unfinished reads as canceled.

    Canceling again, or canceling a run that has ended, changes nothing.
    """
    if header.status in FINAL:
        return header
    fields = {"status": RunState.CANCELED.value, "outcome": RunState.CANCELED.value, "closed": True, "error": ""}
    root = engine.store.load(header.run_id, [""])
    ops = [Run({**fields, "rests": header.rests + 1})]
    if root:
        ops.insert(0, Set("", {"status": Status.OPEN.value, "phase": Phase.REST.value}))  # type: ignore[arg-type]
    change = Change(
        Caller(new_token(), _RESUMABLE if root else _STARTABLE, rests=header.rests),  # a start may come, or be undone
        tuple(ops),
        events=tuple(flow.last_words(RunState.CANCELED, header.rests + 1)),
    )
    try:
        answer = engine.store.commit(header.run_id, change)
    except Exception:  # whatever it is, it is raised again
        engine.keeper.abort(header.run_id)  # what runs in this process hears at least that nobody wants it any more
        raise
    if isinstance(answer, Refused):
        found = engine.store.header(header.run_id)
        if found is None:
            raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
        return found if found.status in FINAL else cancel(engine, found)
    engine.keeper.abort(header.run_id)
    telemetry.canceled(answer.header)
    tell_of_cancel(engine, answer.header)
    return answer.header


def graph_of(engine: Engine, header: Header) -> Graph:
    """The graph of a stored run. Raises `WorkflowNotRegistered`."""
    workflow = engine.registry.get(header.workflow_id)
    if workflow is None:
        text = (
            f"workflow {header.workflow_id!r} of run {header.run_id!r} is not registered here: pass it in `workflows`"
        )
        raise WorkflowNotRegistered(text, run_id=header.run_id, workflow_id=header.workflow_id)
    return workflow.compiled
