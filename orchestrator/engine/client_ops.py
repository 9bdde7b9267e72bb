"""Requests of callers: start, resume, cancel, send an event. Each reads, calls a command of the core and commits.

Commit first, then tell the workers: a message that came before its commit would find nothing to claim. If nobody can be
told, the request is taken back, or the caller hears that its outcome is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.codec import encode, validate, with_text_keys
from orchestrator.definitions import Workflow
from orchestrator.definitions.bodies import WaitBody, body_of, step_of
from orchestrator.engine.calling import resolve_value
from orchestrator.engine.contexts import resource_text
from orchestrator.engine.declarations import view_of_state
from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.observe import observer
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.read.value_reader import encode_value
from orchestrator.engine.settlement import report_cancel, started_info
from orchestrator.errors import (
    BrokerUnavailable,
    GraphChanged,
    InputInvalid,
    OrchestratorError,
    ResumeAlreadyClaimed,
    ResumeAmbiguous,
    RunNotActive,
    RunNotFound,
    RunNotSuspended,
    StartAlreadyClaimed,
    StepNotFound,
    StepNotSuspended,
    StoreUnavailable,
    WorkflowNotRegistered,
)
from orchestrator.host import new_token
from orchestrator.rules import commands
from orchestrator.rules.addressing import Target, ancestor_paths, select
from orchestrator.rules.change import Change, Committed, Refused
from orchestrator.rules.commands import RESUMABLE, STARTABLE
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.flow import waiter_path
from orchestrator.rules.graph import Graph, Wait
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, RunHeader

log = logging.getLogger("orchestrator")

UNSET: Any = type("Absent", (), {"__repr__": lambda self: "<absent>"})()

_BAD_DATA = "Invalid resume data: "
_MAX_SENDS = 50  # attempts to send one event to a mailbox that moves


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Everything that a run starts with."""

    input: Any = None
    state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    per_step: bool = False

    def __post_init__(self) -> None:
        for name in ("state", "request_context"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"{name} is a mapping, not {type(given).__name__}")  # it may hold secrets


# --- every request ---------------------------------------------------------------------------------------------------


def request(
    executor: Executor,
    header: RunHeader,
    change: Change,
    refusal: Callable[[Refused], Exception],
    undo: Callable[[Committed], Sequence[Change]] = lambda answer: (),
    on_commit: Callable[[], None] = lambda: None,
) -> RunHeader:
    """Commit a request and tell the workers; returns the header. Raises `refusal` of the answer where it is refused.

    `undo` makes the changes by which it is taken back where nobody can be told.
    """
    answer = executor.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        raise refusal(answer)  # nothing was written: the caller may look again
    on_commit()
    publish(executor, answer, undo)
    return answer.header


def publish(
    executor: Executor, answer: Committed, undo: Callable[[Committed], Sequence[Change]] = lambda answer: ()
) -> None:
    """Tell the workers. If that fails, take the change back by the first that fits; if it has begun by then, fine.

    Without `undo` the change stands, and the due entries will publish it.
    """
    try:
        executor.runtime.publish(answer.header, answer.dispatches)
    except BrokerUnavailable:
        changes = undo(answer)
        if not changes:
            text = "run %s: the broker does not answer; the ticker will publish"
            log.warning(text, answer.header.run_id, extra=log_context(answer.header))
            return
        try:
            undone = any(
                isinstance(executor.store.commit(answer.header.run_id, change), Committed) for change in changes
            )
        except StoreUnavailable as error:
            # The change stands, so a worker may find it by its due entry, or the next caller by its status.
            text = "neither broker nor store can be reached: whether the run goes on is unknown"
            raise StoreUnavailable(text, run_id=answer.header.run_id) from error
        if not undone:
            return
        raise


def add_trace(observed: CallObserver, change: Change) -> Change:
    """Add what those who go on with the change need for their spans."""
    return replace(change, ops=tuple(observed.add_traces(change.ops)))


@contextmanager
def error_context(header: RunHeader) -> Iterator[None]:
    """Let errors of ours say whose they are: what checks a value does not know the run."""
    try:
        yield
    except OrchestratorError as error:
        error.details = {"workflow_id": header.workflow_id, "run_id": header.run_id, **error.details}
        raise


def graph_of(executor: Executor, header: RunHeader) -> Graph:
    """The graph of a stored run. Raises `WorkflowNotRegistered`."""
    workflow = executor.registry.get(header.workflow_id)
    if workflow is None:
        text = (
            f"workflow {header.workflow_id!r} of run {header.run_id!r} is not registered here: pass it in `workflows`"
        )
        raise WorkflowNotRegistered(text, run_id=header.run_id, workflow_id=header.workflow_id)
    return workflow.compiled


# --- start -----------------------------------------------------------------------------------------------------------


def start(executor: Executor, workflow: Workflow, header: RunHeader, begin: StartOptions, delay: int = 0) -> RunHeader:
    """Start a pending run; returns its header. Whatever is wrong with the input is raised before anything is written.

    Raises `InputInvalid`, `PayloadTooLarge`, `ValueNotSerializable`, `StartAlreadyClaimed`, `BrokerUnavailable`.
    """
    with error_context(header), observer.observe_start(header) as observed:
        return _start(executor, workflow, header, begin, delay, observed)


def _start(
    executor: Executor, workflow: Workflow, header: RunHeader, begin: StartOptions, delay: int, observed: CallObserver
) -> RunHeader:
    settings = executor.settings
    given = begin.input
    if workflow.validate_inputs and workflow.input is not None:
        given = validate(workflow.input, given)
    limit = settings.max_payload_bytes
    text = encode_value(given, f"input of workflow {workflow.id!r}", limit)
    context = with_text_keys(begin.request_context, "request_context")
    resource = resource_text(context.get("resource_id")) or header.resource_id
    header = replace(header, resource_id=resource, per_step=begin.per_step)
    state = _initial_state(workflow, with_text_keys(begin.state or {}, "state"))
    # The hook comes before the commit, so that what it raises leaves the run pending. Of two who start, both call it.
    if header.status in STARTABLE and workflow.on_start is not None:
        resolve_value(workflow.on_start(started_info(executor.owner, workflow, header, given, state, context)))
    key = new_token()
    texts = StoredTexts(
        {key: text},
        {key: encode(value, where=f"state[{key!r}]", limit=limit) for key, value in state.items()},
        executor.contexts.encode_all(context),
    )
    begins = replace(header, namespace=settings.namespace)
    change = commands.start(workflow.compiled, begins, key, new_token(), texts, settings.limits, delay=delay)
    return request(
        executor,
        header,
        add_trace(observed, change),
        lambda answer: _start_error(answer, workflow, header),
        lambda answer: [commands.undo_start(change, answer, new_token())],
    )


def _initial_state(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """The state a run starts with: as given, and the model's defaults."""
    return {**given, **view_of_state(workflow.definition, given)} if workflow.state is not None else dict(given)


def _start_error(answer: Refused, workflow: Workflow, header: RunHeader) -> Exception:
    if answer.header is None:
        return RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id, workflow_id=workflow.id)
    status = answer.header.status
    text = f"run {header.run_id!r} has been started before (it is {status}): create another run"
    return StartAlreadyClaimed(text, run_id=header.run_id, workflow_id=workflow.id, actual_status=status)


# --- resume ----------------------------------------------------------------------------------------------------------


def resume(
    executor: Executor, header: RunHeader, data: Any, target: Target, context: Mapping[str, Any], per_step: bool = False
) -> RunHeader:
    """Resume what `target` names, with `data`; returns the header. A refusal leaves the run as it was, still resumable.

    A paused run goes on with all that it held back, or (`per_step`) with one step. A run of another graph than the one
    that is registered waits for a worker that has it; nobody checks the data, and steps are found by their recorded
    ids. Raises `RunNotSuspended`, `StepNotSuspended`, `ResumeAmbiguous`, `InputInvalid`, `ResumeAlreadyClaimed`,
    `GraphChanged` where ids of the other graph name no one step, or no worker can have it, and TypeError.
    """
    target = target.checked()
    if not isinstance(context, Mapping):
        raise TypeError(f"`request_context` is a mapping, not {type(context).__name__}")  # it may hold secrets
    graph_of(executor, header)
    if header.status not in RESUMABLE:
        text = f"run {header.run_id!r} is {header.status}: only a suspended run can be resumed"
        raise RunNotSuspended(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    graph = executor.graph_if_same(header)
    if graph is None and not executor.runtime.is_shared:
        raise _graph_changed(header, "and no other process will go on with it: run the code it was started with")
    with error_context(header), observer.observe_call("resume", header) as observed:
        return _resume(executor, graph, header, data, target, context, per_step, observed)


def _graph_changed(header: RunHeader, what_now: str) -> GraphChanged:
    text = f"run {header.run_id!r} was started with another graph of {header.workflow_id!r} than this process has"
    return GraphChanged(f"{text}, {what_now}", run_id=header.run_id, workflow_id=header.workflow_id)


def _resume(
    executor: Executor,
    graph: Graph | None,
    header: RunHeader,
    data: Any,
    target: Target,
    context: Mapping[str, Any],
    per_step: bool,
    observed: CallObserver,
) -> RunHeader:
    awaiting = executor.store.load_awaiting(header.run_id)
    activations = _resolve_target(executor, graph, header, awaiting, target, per_step)
    limit = executor.settings.max_payload_bytes
    # One value for each activation, though the data is the same: each is checked against its own step's type.
    data_ids = {
        activation.path: f"{new_token()}r" for activation in activations if activation.status != ActivationStatus.PAUSED
    }
    values = {
        data_ids[activation.path]: encode_value(
            _resume_data(graph, activation, data), f"resume data of step {activation.step!r}", limit
        )
        for activation in activations
        if activation.path in data_ids
    }
    texts = StoredTexts(values, context=executor.contexts.encode_all(context))
    change = commands.resume(
        header, activations, data_ids, new_token(), texts, executor.settings.limits, per_step=per_step
    )
    return request(
        executor,
        header,
        add_trace(observed, change),
        lambda answer: _resume_error(header, activations),
        lambda answer: commands.undo_resume(header, activations, awaiting, answer, (new_token(), new_token())),
    )


def _resume_error(header: RunHeader, activations: list[Activation]) -> Exception:
    paused = all(activation.status == ActivationStatus.PAUSED for activation in activations)
    names = ", ".join(sorted({activation.step for activation in activations}))
    text = f"{'run' if paused else 'step'} {names} of run {header.run_id!r} has been resumed by somebody else"
    return ResumeAlreadyClaimed(text, run_id=header.run_id, workflow_id=header.workflow_id)


def _resolve_target(
    executor: Executor,
    graph: Graph | None,
    header: RunHeader,
    awaiting: list[Activation],
    target: Target,
    per_step: bool,
) -> list[Activation]:
    """Find the records that the caller means, by what they say of themselves: the graph may be another one."""
    inside = len(target.scope)
    awaiting = [found for found in awaiting if found.at[:inside] == target.scope]
    paths = ancestor_paths(awaiting)
    above = {found.at: found for found in executor.store.load(header.run_id, paths)} if paths else {}
    try:
        return select(header, awaiting, above, target, per_step=per_step)
    except (StepNotSuspended, ResumeAmbiguous) as error:
        if graph is not None or not target.ids:
            raise
        raise _graph_changed(header, f"and by what it recorded: {error}") from error


def _resume_data(graph: Graph | None, activation: Activation, data: Any) -> Any:
    """The data as the step's resume type has it. No data fits a type that may be None, or has defaults for all."""
    step = step_of(graph.node(activation.at)) if graph is not None else None
    declared_type = None if step is None else step.resume
    if declared_type is None:
        return None if data is UNSET else data
    if data is not UNSET:
        return validate(declared_type, data, header=_BAD_DATA)
    try:
        return validate(declared_type, None, header=_BAD_DATA)
    except InputInvalid:
        return validate(declared_type, {}, header=_BAD_DATA)


# --- cancel ----------------------------------------------------------------------------------------------------------


def cancel(executor: Executor, header: RunHeader) -> RunHeader:
    """End a run that has not ended, as canceled: by its header alone. Whatever is unfinished reads as canceled.

    Canceling again, or canceling a run that has ended, changes nothing.
    """
    if header.status in FINAL:
        return header
    has_begun = bool(executor.store.load(header.run_id, [""]))
    change = commands.cancel(header, new_token(), has_begun=has_begun)
    try:
        answer = executor.store.commit(header.run_id, change)
    except Exception:  # whatever it is, it is raised again
        executor.keeper.abort(header.run_id)  # what runs in this process hears at least that nobody wants it any more
        raise
    if isinstance(answer, Refused):
        found = executor.store.header(header.run_id)
        if found is None:
            raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
        # The run has moved between reading and canceling. Whoever cancels means it as it is now.
        return found if found.status in FINAL else cancel(executor, found)
    executor.keeper.abort(header.run_id)
    observer.on_canceled(answer.header)
    workflow = executor.registry.get(header.workflow_id)
    report_cancel(executor.services, executor.runtime, answer.header, workflow, executor.graph_if_same(header))
    return answer.header


# --- events ----------------------------------------------------------------------------------------------------------


def send_event(executor: Executor, header: RunHeader, name: str, data: Any) -> RunHeader:
    """Give `data` to the first that waits for the event, in path order; without one, keep it for the next.

    Each event is heard once. Raises `InputInvalid` where the data does not fit, `StepNotFound` where the workflow waits
    for no such event, `RunNotActive` where the run has ended.
    """
    graph = graph_of(executor, header)
    waits = [node for node in graph.walk() if isinstance(node, Wait) and node.event == name]
    log_context = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    if not waits:
        known = ", ".join(sorted({node.event for node in graph.walk() if isinstance(node, Wait)})) or "none"
        raise StepNotFound(
            f"workflow {header.workflow_id!r} waits for no event {name!r} (it waits for: {known})", **log_context
        )
    body = body_of(waits[0])
    schema = body.schema if isinstance(body, WaitBody) else None
    fitted = data if schema is None else validate(schema, data, header="Invalid event data: ")
    key = f"{new_token()}v"
    text = encode_value(fitted, f"event {name!r}", executor.settings.max_payload_bytes)
    if header.status in FINAL:
        header = _require_unended(executor, header)
    for _ in range(_MAX_SENDS):
        change = _send_change(executor, header.run_id, name, key, text)
        answer = executor.store.commit(header.run_id, change)
        if isinstance(answer, Committed) and change.values:
            publish(executor, answer)
            return answer.header
        if isinstance(answer, Committed):  # only a waiter that had given up was cleared away
            continue
        # Refused: the mailbox has moved, or the run has ended. The latter will not change any more.
        header = _require_unended(executor, header)
    raise RunNotActive(
        f"run {header.run_id!r} moves too fast: the event {name!r} was not taken; send it again", **log_context
    )


def _send_change(executor: Executor, run_id: str, name: str, key: str, text: str) -> Change:
    """Read the mailbox, and whoever waits first in it. Its mark tells at the commit whether it is still as read."""
    entries = executor.store.mail(run_id, name)
    first = commands.find_first_waiter(entries)
    found = executor.store.load(run_id, [waiter_path(first)]) if first else []
    waiting = found[0] if found else None
    texts = StoredTexts({key: text})
    return commands.send_event(name, entries, waiting, key, new_token(), texts, executor.settings.limits)


def _require_unended(executor: Executor, header: RunHeader) -> RunHeader:
    found = executor.store.header(header.run_id)
    if found is None:
        raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
    if found.status in FINAL:
        text = f"run {header.run_id!r} is {found.status}: nobody will hear the event"
        raise RunNotActive(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=found.status)
    return found
