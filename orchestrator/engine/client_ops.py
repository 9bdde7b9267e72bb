"""Requests of callers: start, resume, cancel. Each reads the run, calls a command of the rules, commits its change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.codec import validate, with_text_keys
from orchestrator.definitions import Workflow
from orchestrator.definitions.bodies import step_of
from orchestrator.engine.calling import call_hook
from orchestrator.engine.contexts import resource_text
from orchestrator.engine.declarations import view_of_state
from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.observe import observer
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.read.value_reader import encode_all, encode_value
from orchestrator.engine.requests import (
    MAX_LOOKS,
    Undo,
    add_trace,
    adopt,
    arm_adopted,
    error_context,
    graph_of,
    is_final,
    publish,
    require_secrets,
)
from orchestrator.engine.settlement import declared_hooks, show_end, started_info
from orchestrator.engine.task_steps import revoke_sent
from orchestrator.errors import (
    GraphChanged,
    InputInvalid,
    ResumeAlreadyClaimed,
    ResumeAmbiguous,
    RunFailed,
    RunNotFound,
    RunNotSuspended,
    StartAlreadyClaimed,
    StepNotSuspended,
)
from orchestrator.host import new_token
from orchestrator.rules import commands, undoing
from orchestrator.rules.addressing import Target, ancestor_paths, paths_below_which, select
from orchestrator.rules.attempt_commands import MAX_ABANDONED_ATTEMPTS
from orchestrator.rules.change import Change, Committed, Refused
from orchestrator.rules.commands import RESUMABLE, STARTABLE
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import AWAITING, FINAL, Activation, ActivationStatus, RunHeader
from orchestrator.rules.reports import Told
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


# --- start -----------------------------------------------------------------------------------------------------------


def start(
    executor: Executor,
    workflow: Workflow,
    header: RunHeader,
    begin: StartOptions,
    delay: int = 0,
    *,
    patience: float = 0.0,
    is_repeat: bool = False,
) -> RunHeader:
    """Start a pending run; returns its header. An input that does not fit is refused before anything is written.

    With `patience` it waits so many seconds for a store that is away, and leaves it to the scheduler to publish where
    the broker is: for callers whom nobody hears. With `is_repeat` one of them has begun to start the run before.

    Raises `InputInvalid`, `PayloadTooLarge`, `ValueNotSerializable`, `StartAlreadyClaimed`, `BrokerUnavailable`, and
    `RunFailed` for a run whose start has cost as many processes as a step may cost.
    """
    with error_context(header), observer.observe_start(header) as observed:
        pending = _require_pending(executor, workflow, header, patience)
        if patience and is_repeat and workflow.on_start is not None:
            pending = _note_abandoned_start(executor, workflow, pending, patience)
        change = add_trace(observed, _start_change(executor, workflow, pending, begin, delay))
        answer = _commit_start(executor, pending, change, patience)
        if isinstance(answer, Refused):
            raise _start_error(answer.header, workflow, header)
        if patience:
            publish(executor, answer)
        else:
            publish(executor, answer, lambda answer: undoing.undo_start(pending, change, answer, new_token()))
        return answer.header


def _note_abandoned_start(executor: Executor, workflow: Workflow, header: RunHeader, patience: float) -> RunHeader:
    """Count that a process was lost in the start of this run. Raises `RunFailed` for the third: the run is removed."""
    # The message comes again for as long as nobody acknowledges it, and a hook that kills its process would take down
    # one worker after the other. Only a message that has come before pays for the count.
    if header.abandoned_starts + 1 < MAX_ABANDONED_ATTEMPTS:
        change = commands.note_abandoned_start(header, new_token())
        answer = executor.services.retry_while_unavailable(
            lambda: executor.store.commit(header.run_id, change), patience, interruptions=0
        )
        return answer.header or header
    text = f"{MAX_ABANDONED_ATTEMPTS} processes were lost while they started the run: its on_start probably kills them"
    failure = RunFailed(text, run_id=header.run_id, workflow_id=workflow.id)
    log.error("run %s (%s): %s; it is not started", header.run_id, workflow.id, text, extra=log_context(header))
    executor.services.retry_while_unavailable(
        lambda: executor.store.delete(header.run_id, STARTABLE, created_at=header.created_at), patience, interruptions=0
    )
    raise failure


def _require_pending(executor: Executor, workflow: Workflow, header: RunHeader, patience: float) -> RunHeader:
    """Return the header of the run as pending. Raises `StartAlreadyClaimed` where a start stands."""
    # One that was read while another start stood may be old: that start may have been undone. An undo of this one puts
    # back what was read, so it must not be what the other has written.
    found: RunHeader | None = header
    for look in range(MAX_LOOKS):
        if found is not None and found.status in STARTABLE:
            return found
        if found is None or (look and is_final(executor, found, undoing.confirm_start(found))):
            break
        found = executor.services.retry_while_unavailable(
            lambda: executor.store.header(header.run_id), patience, interruptions=0
        )
    raise _start_error(found, workflow, header)


def _start_change(executor: Executor, workflow: Workflow, header: RunHeader, begin: StartOptions, delay: int) -> Change:
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
    if workflow.on_start is not None:
        info = started_info(executor.owner, workflow, header, given, state, executor.contexts.protect(context))
        on_start = workflow.on_start
        call_hook(lambda: on_start(info), executor.services.signs)
    key = make_input_id(new_token())
    # The run belongs to the process that starts it: there the workers are that look after it.
    hooks = " ".join(sorted(declared_hooks(workflow)))
    begins = replace(header, namespace=settings.namespace, runtime=executor.runtime.name, hooks=hooks)
    texts = StoredTexts(
        {key: text},
        encode_all(state, settings.packing),
        executor.contexts.encode_all(header.run_id, context),
    )
    return commands.start(workflow.compiled, begins, key, new_token(), texts, settings.limits, delay=delay)


def _commit_start(executor: Executor, header: RunHeader, change: Change, patience: float) -> Committed | Refused:
    """Commit a start. Only a start that stands refuses it: one that is being undone leaves the run to this one."""
    looks = 0
    while True:
        answer = executor.services.retry_while_unavailable(
            lambda: executor.store.commit(header.run_id, change), patience, interruptions=0
        )
        looks += 1
        if isinstance(answer, Committed) or answer.header is None or looks == MAX_LOOKS:
            return answer
        if is_final(executor, answer.header, undoing.confirm_start(answer.header)):
            return answer


def _initial_state(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that a run starts with: the given keys, and the model's defaults."""
    return {**given, **view_of_state(workflow.definition, given)} if workflow.state is not None else dict(given)


def _start_error(found: RunHeader | None, workflow: Workflow, header: RunHeader) -> Exception:
    if found is None:
        return RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id, workflow_id=workflow.id)
    status = found.status
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
    header, activations = _find_meant(executor, header, target, per_step)
    require_secrets(executor, header)
    graph = executor.graph_if_same(header)
    with error_context(header), observer.observe_call("resume", header) as observed:
        return _resume(executor, graph, header, activations, data, context, per_step, observed)


def _find_meant(
    executor: Executor, header: RunHeader, target: Target, per_step: bool
) -> tuple[RunHeader, list[Activation]]:
    """Find the activations that the caller means; with them the header that was read before them."""
    looks = 0
    while True:
        if header.status not in RESUMABLE:
            raise _not_suspended(header)
        graph = executor.graph_if_same(header)
        if graph is None and not executor.runtime.is_shared:
            raise graph_changed(header, "and no other process will go on with it: run the code it was started with")
        looks += 1
        try:
            with error_context(header):
                return header, _select_meant(executor, graph, header, target, per_step)
        except (RunNotSuspended, StepNotSuspended) as error:
            # Perhaps another caller's resume has been seen that is being undone.
            if looks == MAX_LOOKS or is_final(executor, header, undoing.confirm_all(header)):
                if isinstance(error, RunNotSuspended):
                    _refuse_as_moved(executor, header)
                raise
        header = executor.store.header(header.run_id) or header


def _not_suspended(header: RunHeader) -> RunNotSuspended:
    text = f"run {header.run_id!r} is {header.status}: only a suspended run can be resumed"
    return RunNotSuspended(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)


def graph_changed(header: RunHeader, what_now: str) -> GraphChanged:
    """Return the error that the run was started with another graph, with what follows from that."""
    text = f"run {header.run_id!r} was started with another graph of {header.workflow_id!r} than this process has"
    return GraphChanged(f"{text}, {what_now}", run_id=header.run_id, workflow_id=header.workflow_id)


def _resume(
    executor: Executor,
    graph: Graph | None,
    header: RunHeader,
    activations: list[Activation],
    data: Any,
    context: Mapping[str, Any],
    per_step: bool,
    observed: CallObserver,
) -> RunHeader:
    # One value for each activation, though the data is the same: each step checks it against a type of its own. A
    # paused step has not run yet, and so gets no resume data.
    suspended = [one for one in activations if one.status != ActivationStatus.PAUSED]
    data_ids = {activation.path: make_resume_id(new_token()) for activation in suspended}
    packing = executor.settings.packing
    values = {
        data_ids[activation.path]: encode_value(
            _resume_data(graph, activation, data), f"resume data of step {activation.step!r}", packing
        )
        for activation in suspended
    }
    texts = StoredTexts(values, context=executor.contexts.encode_all(header.run_id, context))
    known = executor.store.context(header.run_id) if texts.context else {}
    found: list[Activation] = []
    for _ in range(MAX_LOOKS):
        limits = executor.settings.limits
        change = commands.resume(header, activations, data_ids, new_token(), texts, limits, per_step=per_step)
        change = add_trace(observed, adopt(executor, header, change))
        answer = executor.store.commit(header.run_id, change)
        if isinstance(answer, Committed):
            arm_adopted(executor, header)
            publish(executor, answer, _undo_of(header, activations, known, change))
            return answer.header
        # Another caller was first. Its resume may just have been undone: then all is as it was, but for the numbers.
        found = executor.store.load(header.run_id, [activation.path for activation in activations])
        if answer.header is None:
            raise RunNotFound(f"run {header.run_id!r} has been deleted meanwhile", run_id=header.run_id)
        header = answer.header
        if len(found) == len(activations) and all(map(undoing.is_same_suspension, activations, found)):
            activations = found
        elif is_final(executor, header, undoing.confirm_resume(header, found)):
            break
    raise _resume_error(header, activations, found)


def _undo_of(header: RunHeader, activations: list[Activation], context: Mapping[str, str], change: Change) -> Undo:
    return lambda answer: undoing.undo_resume(header, activations, context, change, answer, new_token())


def _refuse_as_moved(executor: Executor, header: RunHeader) -> None:
    """Raise `RunNotSuspended` with the run's status, if it has moved since its header was read."""
    found = executor.store.header(header.run_id)
    if found is None:
        raise RunNotFound(f"there is no run {header.run_id!r}", run_id=header.run_id)
    if found.status != header.status:
        text = f"run {header.run_id!r} is {found.status} by now: nothing in it is suspended"
        about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
        raise RunNotSuspended(text, actual_status=found.status, **about) from None


def _resume_error(header: RunHeader, activations: list[Activation], now: list[Activation]) -> Exception:
    """Tell why a resume was refused, by what has become of the steps: another caller, or the end of the run."""
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    # Steps that still wait, in a run that does not go on: nobody has resumed them.
    are_left = len(now) == len(activations) and all(one.status in AWAITING for one in now)
    if are_left and (header.status not in RESUMABLE or header.closed):
        status = header.outcome or header.status
        text = f"run {header.run_id!r} is {status} by now: only a suspended run can be resumed"
        return RunNotSuspended(text, actual_status=status, **about)
    paused = all(activation.status == ActivationStatus.PAUSED for activation in activations)
    names = ", ".join(sorted({activation.step for activation in activations}))
    text = f"{'run' if paused else 'step'} {names} of run {header.run_id!r} has gone on: another caller has resumed it"
    return ResumeAlreadyClaimed(text, **about)


def _select_meant(
    executor: Executor, graph: Graph | None, header: RunHeader, target: Target, per_step: bool
) -> list[Activation]:
    """Read the activations that the caller means, and no others that await something."""
    store, run_id = executor.store, header.run_id
    below = paths_below_which(graph, target) if graph is not None else None
    if target.label is not None or below is not None:
        some = (
            store.load_awaiting(run_id, label=target.label)
            if target.label
            else store.load_awaiting(run_id, below=below)
        )
        with suppress(StepNotSuspended, RunNotSuspended, GraphChanged):
            return _resolve_target(executor, graph, header, some, target, per_step)
    # Also where nothing was found: the error names what could have been meant.
    return _resolve_target(executor, graph, header, store.load_awaiting(run_id), target, per_step)


def _resolve_target(
    executor: Executor,
    graph: Graph | None,
    header: RunHeader,
    awaiting: list[Activation],
    target: Target,
    per_step: bool,
) -> list[Activation]:
    """Select the activations that the caller means."""
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
        raise graph_changed(header, f"so its stored step ids decide: {error}") from error


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
    root = executor.store.load(header.run_id, [""])
    workflow = executor.registry.get(header.workflow_id)
    # Without the workflow a worker that has it calls the hooks: the header names those that it had at the start.
    hooks = header.hooks.split() if workflow is None else declared_hooks(workflow)
    told = Told(hooks, executor.runtime.keeps_results, hooks_here=workflow is not None)
    change = commands.cancel(
        header,
        new_token(),
        has_begun=bool(root),
        told=told,
        route=root[0].route if root else "",
        token=new_token(),
        limits=executor.settings.limits,
    )
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
    graph = executor.graph_if_same(header)
    show_end(executor.services, executor.runtime, answer.header, graph)
    _report_cancel(executor, answer)
    revoke_sent(executor.store, executor.runtime.tasks, graph, answer.header)
    return answer.header


def _report_cancel(executor: Executor, answer: Committed) -> None:
    """Go on with the reports of a cancel that this process has claimed, and send the others to workers."""
    answer = executor.with_all_dispatches(answer)
    header = answer.header
    if answer.dispatches and not executor.runtime.is_shared:
        # Its own process may be at work on the run: then that one calls them (`Executor`).
        text = (
            "run %s is canceled; its hooks are for a process that knows workflow %s: there `run.restart()` calls them"
        )
        log.warning(text, header.run_id, header.workflow_id, extra=log_context(header))
    else:
        executor.publish(header, answer.dispatches)
    try:
        executor.run_claims(answer.claimed)
    except Exception as error:  # noqa: BLE001  (the run is canceled, and its reports have timers)
        text = "run %s is canceled, and what is to be told of it is told later: %r"
        log.warning(text, header.run_id, error, extra=log_context(header))
