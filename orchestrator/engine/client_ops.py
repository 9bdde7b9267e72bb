"""Requests of callers: start, resume, cancel. Each reads the run, calls a command of the rules and commits its change.

Commit first, then publish: a message that came before its commit would find nothing to claim. Where the broker cannot
be reached, the request is undone, or the caller gets an error which says that its outcome is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.codec import validate, with_text_keys
from orchestrator.definitions import Workflow
from orchestrator.definitions.bodies import step_of
from orchestrator.engine.calling import resolve_value
from orchestrator.engine.contexts import resource_text
from orchestrator.engine.declarations import view_of_state
from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.observe import observer
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.read.value_reader import encode_all, encode_value
from orchestrator.engine.settlement import report_cancel, started_info
from orchestrator.engine.unsent import note_unsent
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
from orchestrator.rules import commands
from orchestrator.rules.addressing import Target, ancestor_paths, select
from orchestrator.rules.change import Change, Committed, Refused
from orchestrator.rules.commands import RESUMABLE, STARTABLE
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, RunHeader
from orchestrator.rules.value_ids import make_input_id, make_resume_id

log = logging.getLogger("orchestrator")

# A caller may pass None as data, so "no data" needs a value of its own.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "<unset>"})()

_BAD_DATA = "Invalid resume data: "


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The options of a start."""

    # the input of the workflow
    input: Any = None
    # the run's state at the start, by key
    state: Mapping[str, Any] | None = None
    # travels with the run; not shown, because it may hold secrets
    request_context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # pause after each step
    per_step: bool = False

    def __post_init__(self) -> None:
        for name in ("state", "request_context"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Mapping):
                # The type alone, because the value may hold secrets.
                raise TypeError(f"{name} is a mapping, not {type(given).__name__}")


# --- every request ---------------------------------------------------------------------------------------------------


def request(
    executor: Executor,
    header: RunHeader,
    change: Change,
    refusal: Callable[[Refused], Exception],
    undo: Callable[[Committed], Sequence[Change]] = lambda answer: (),
    on_commit: Callable[[], None] = lambda: None,
) -> RunHeader:
    """Commit a request and publish its messages; returns the header.

    Raises `refusal(answer)` where the store refuses the change. `undo` makes the changes that undo the request where
    the broker cannot be reached.
    """
    # Not retried: the caller gets the error where the store is away, and decides whether to ask again.
    answer = executor.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        raise refusal(answer)  # nothing was written: the caller may read the run again
    on_commit()
    publish(executor, answer, undo)
    return answer.header


def publish(
    executor: Executor, answer: Committed, undo: Callable[[Committed], Sequence[Change]] = lambda answer: ()
) -> None:
    """Publish the messages of a commit. If that fails, undo the change by the first of `undo` that is accepted.

    If none is accepted, a worker has begun with the run already, and the request stands. Without `undo` the change
    stands too, and the scheduler will publish.
    """
    answer = executor.with_all_dispatches(answer)
    try:
        executor.runtime.publish(answer.header, answer.dispatches)
    except BrokerUnavailable as unsent:
        changes = undo(answer)
        if not changes:
            text = "run %s: the broker does not answer; the scheduler will publish"
            log.warning(text, answer.header.run_id, extra=log_context(answer.header))
            delay = executor.settings.retry_delay_of(unsent)
            note_unsent(executor.store, answer.header, answer.dispatches, delay)
            return
        try:
            # Each is guarded by what the request has left. A message may have arrived although the broker's
            # answer did not: then a worker has moved the run on, and nothing may be undone.
            undone = any(
                isinstance(executor.store.commit(answer.header.run_id, change), Committed) for change in changes
            )
        except StoreUnavailable as error:
            # The change stands, and the scheduler will find its timer. The caller must not take this for a refusal.
            text = "neither broker nor store can be reached: whether the run goes on is unknown"
            raise StoreUnavailable(text, run_id=answer.header.run_id) from error
        if not undone:
            return
        raise


def add_trace(observed: CallObserver, change: Change) -> Change:
    """Store the ids of the caller's spans with the change: workers make their own spans below those."""
    return replace(change, ops=tuple(observed.add_traces(change.ops)))


@contextmanager
def error_context(header: RunHeader) -> Iterator[None]:
    """Add the ids of run and workflow to the library's own errors."""
    # The functions that check values raise these errors, and do not know the run.
    try:
        yield
    except OrchestratorError as error:
        error.details = {"workflow_id": header.workflow_id, "run_id": header.run_id, **error.details}
        raise


def require_secrets(executor: Executor, header: RunHeader) -> None:
    """Raise `SecretUnavailable` where this process alone goes on with the run, and cannot read its secrets.

    Workers may have another key than the caller: one that lacks it leaves the run to the others.
    """
    if not executor.runtime.is_shared:
        executor.contexts.read(header.run_id, executor.store.context(header.run_id))


def graph_of(executor: Executor, header: RunHeader) -> Graph:
    """Return the graph of a run's workflow. Raises `WorkflowNotRegistered`."""
    workflow = executor.registry.get(header.workflow_id)
    if workflow is None:
        text = (
            f"workflow {header.workflow_id!r} of run {header.run_id!r} is not registered here: pass it in `workflows`"
        )
        raise WorkflowNotRegistered(text, run_id=header.run_id, workflow_id=header.workflow_id)
    return workflow.compiled


# --- start -----------------------------------------------------------------------------------------------------------


def start(executor: Executor, workflow: Workflow, header: RunHeader, begin: StartOptions, delay: int = 0) -> RunHeader:
    """Start a pending run; returns its header. An input that does not fit is refused before anything is written.

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
    text = encode_value(given, f"input of workflow {workflow.id!r}", settings.packing)
    context = with_text_keys(begin.request_context, "request_context")
    resource = resource_text(context.get("resource_id")) or header.resource_id
    header = replace(header, resource_id=resource, per_step=begin.per_step)
    state = _initial_state(workflow, with_text_keys(begin.state or {}, "state"))
    # The hook comes before the commit, so that a run whose hook raises stays pending. If two callers start the same
    # run at once, both call it.
    if header.status in STARTABLE and workflow.on_start is not None:
        resolve_value(
            workflow.on_start(
                started_info(executor.owner, workflow, header, given, state, executor.contexts.protect(context))
            )
        )
    key = make_input_id(new_token())
    # The run's own namespace is that of the process that starts it: there the workers are that look after it.
    begins = replace(header, namespace=settings.namespace)
    texts = StoredTexts(
        {key: text},
        encode_all(state, settings.packing),
        executor.contexts.encode_all(header.run_id, context),
    )
    change = commands.start(workflow.compiled, begins, key, new_token(), texts, settings.limits, delay=delay)
    return request(
        executor,
        header,
        add_trace(observed, change),
        lambda answer: _start_error(answer, workflow, header),
        lambda answer: [commands.undo_start(change, answer, new_token())],
    )


def _initial_state(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that a run starts with: the given keys, and the model's defaults."""
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
    """Resume the steps that `target` names, with `data`; returns the header. A refused run stays resumable.

    A paused run goes on with all its paused steps, or (`per_step`) with one. A run that was started with another graph
    than the registered one waits for a worker that has that graph. Its steps are found by their stored ids, and the
    data is not checked.

    Raises `RunNotSuspended`, `StepNotSuspended`, `ResumeAmbiguous`, `InputInvalid`, `ResumeAlreadyClaimed`, TypeError,
    and `GraphChanged` where the stored ids name no single step, or no other process can have the other graph.
    """
    target = target.normalize()
    if not isinstance(context, Mapping):
        # The type alone, because the value may hold secrets.
        raise TypeError(f"`request_context` is a mapping, not {type(context).__name__}")
    graph_of(executor, header)
    if header.status not in RESUMABLE:
        text = f"run {header.run_id!r} is {header.status}: only a suspended run can be resumed"
        raise RunNotSuspended(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    graph = executor.graph_if_same(header)
    if graph is None and not executor.runtime.is_shared:
        raise _graph_changed(header, "and no other process will go on with it: run the code it was started with")
    require_secrets(executor, header)
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
    packing = executor.settings.packing
    # One value for each activation, though the data is the same: each step checks it against a type of its own. A
    # paused step has not run yet, and so gets no resume data.
    data_ids = {
        activation.path: make_resume_id(new_token())
        for activation in activations
        if activation.status != ActivationStatus.PAUSED
    }
    values = {
        data_ids[activation.path]: encode_value(
            _resume_data(graph, activation, data), f"resume data of step {activation.step!r}", packing
        )
        for activation in activations
        if activation.path in data_ids
    }
    texts = StoredTexts(values, context=executor.contexts.encode_all(header.run_id, context))
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
    text = f"{'run' if paused else 'step'} {names} of run {header.run_id!r} has been resumed by another caller"
    return ResumeAlreadyClaimed(text, run_id=header.run_id, workflow_id=header.workflow_id)


def _resolve_target(
    executor: Executor,
    graph: Graph | None,
    header: RunHeader,
    awaiting: list[Activation],
    target: Target,
    per_step: bool,
) -> list[Activation]:
    """Find the activations that the caller means."""
    # By the step ids that the activations store, and not by the graph: this process may not have the run's graph.
    inside = len(target.scope)
    awaiting = [found for found in awaiting if found.at[:inside] == target.scope]
    paths = ancestor_paths(awaiting)
    above = {found.at: found for found in executor.store.load(header.run_id, paths)} if paths else {}
    try:
        return select(header, awaiting, above, target, per_step=per_step)
    except (StepNotSuspended, ResumeAmbiguous) as error:
        # Of another graph the caller may not know the ids: the error says so, instead of "no such step".
        if graph is not None or not target.ids:
            raise
        raise _graph_changed(header, f"so its stored step ids decide: {error}") from error


def _resume_data(graph: Graph | None, activation: Activation, data: Any) -> Any:
    """Return the data as the step's resume type declares it."""
    step = step_of(graph.node(activation.at)) if graph is not None else None
    declared_type = None if step is None else step.resume
    if declared_type is None:
        return None if data is UNSET else data
    if data is not UNSET:
        return validate(declared_type, data, header=_BAD_DATA)
    # A resume without data fits a type that allows None, or one whose fields all have defaults.
    try:
        return validate(declared_type, None, header=_BAD_DATA)
    except InputInvalid:
        return validate(declared_type, {}, header=_BAD_DATA)


# --- cancel ----------------------------------------------------------------------------------------------------------


def cancel(executor: Executor, header: RunHeader) -> RunHeader:
    """End a run that has not ended, as canceled. Steps that have not finished read as canceled.

    Canceling again, or canceling a run that has ended, changes nothing.
    """
    # Only the header is written, so that a run of ten thousand items is canceled as fast as one of two.
    if header.status in FINAL:
        return header
    has_begun = bool(executor.store.load(header.run_id, [""]))
    change = commands.cancel(header, new_token(), has_begun=has_begun)
    try:
        answer = executor.store.commit(header.run_id, change)
    except Exception:
        # The steps of this process get their abort signal all the same: the caller wants them to end, and their
        # commits are guarded.
        executor.keeper.abort(header.run_id)
        raise
    if isinstance(answer, Refused):
        found = executor.store.header(header.run_id)
        if found is None:
            raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
        # The run has moved between reading and canceling. A caller who cancels means the run as it is now.
        return found if found.status in FINAL else cancel(executor, found)
    executor.keeper.abort(header.run_id)
    observer.on_canceled(answer.header)
    workflow = executor.registry.get(header.workflow_id)
    report_cancel(executor.services, executor.runtime, answer.header, workflow, executor.graph_if_same(header))
    return answer.header
