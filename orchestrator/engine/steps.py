"""Steps, mappings and tasks: their functions are called, and their outcomes become plans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.codec import validate
from orchestrator.core import attempt_commands, flow
from orchestrator.core.graph import Path, Step
from orchestrator.core.plan import Done, Failed
from orchestrator.definitions.bodies import Callback, MapBody, StepBody, TaskBody, step_of
from orchestrator.definitions.context import Context
from orchestrator.definitions.foreign import retry_seconds
from orchestrator.engine.activity import Activity
from orchestrator.engine.calling import (
    AbortRequested,
    Bailed,
    Outcome,
    Raised,
    RetryAsked,
    RetryRequested,
    Returned,
    SuspendRequested,
    outcome_of,
    settled,
)
from orchestrator.engine.declarations import restore_as
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.errors import InputInvalid, OrchestratorError, SecretUnavailable, StoreUnavailable, TripWire
from orchestrator.host import chance

log = logging.getLogger("orchestrator")


def run_step(activity: Activity, inline: bool) -> StepOutcome:
    """Call the function of the activation and say what follows."""
    node = activity.graph.node(activity.record.at)
    assert isinstance(node, Step)
    match node.body:
        case StepBody():
            return _run(activity, inline, _prepare_step(activity, node.body))
        case TaskBody():
            return _run(activity, inline, _prepare_task(activity, node.body))
        case MapBody():
            return _run(activity, inline, _prepare_map(activity, node.body))
        case body:
            raise TypeError(f"step {node.id!r} has nothing to run: {body!r}")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is ready to be made."""

    # the user's code
    call: Callable[[Context[Any]], Any]
    # reads the input, and raises where it does not fit
    read_input: Callable[[], Any]
    # types of the resume data and of the suspend payload
    context_types: tuple[Any, Any] = (None, None)
    # checked where the function suspends
    suspend_type: Any = None


def _prepare_step(activity: Activity, body: StepBody) -> Call:
    step = body.step

    def read_input() -> Any:
        return fit_input(activity, step.input, body.given, body.validate)

    def call(context: Context[Any]) -> Any:
        return step.invoke(context.input, context)

    types = (step.resume, step.suspend)
    return Call(call, read_input, types, step.suspend)


def _prepare_task(activity: Activity, body: TaskBody) -> Call:
    def call(context: Context[Any]) -> Any:
        # The message was the task's own: its request is at hand, and whoever called us knows how to use it.
        if activity.call_task is not None:
            return activity.call_task(body.task, context.input, context)
        try:
            return body.task.invoke(context.input, activity.services.owner, context.retry_count)
        except Exception as error:
            # `self.retry()` of an existing task means a retry of its activation: its own message would bypass the run.
            seconds = retry_seconds(error)
            if seconds is None:
                raise
            raise RetryAsked(seconds, error) from error

    return Call(call, lambda: activity.values.plain(activity.record.input))


def _prepare_map(activity: Activity, body: MapBody) -> Call:
    def call(context: Context[Any]) -> Any:
        def run(callback: Callback) -> Any:
            return settled(callback.call(context.input, context))

        return body.mapping.evaluate(Scope(activity, context), run)

    return Call(call, lambda: activity.typed_input(body.given))


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that a mapping or a template may use."""

    # reads what the context has not at hand
    activity: Activity
    # as for any other user code
    context_object: Context[Any]

    @property
    def data(self) -> Any:
        """The value that arrives."""
        return self.context_object.input

    @property
    def state(self) -> Mapping[str, Any]:
        """The run's state."""
        return self.context_object.state

    @property
    def context(self) -> Mapping[str, Any]:
        """The request context."""
        return self.context_object.request_context

    def init(self, workflow_id: str | None) -> Any:
        """The input of this workflow, or of the one around it that has this id."""
        if workflow_id is None:
            return self.activity.init(self.activity.scope)
        return self.activity.init(_scope_of(self.activity, workflow_id))

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Return whether a step has succeeded, and its output."""
        return self.activity.result(step_id)


def _scope_of(activity: Activity, workflow_id: str) -> Path:
    scope = activity.scope
    while scope:
        if activity.graph.node(scope).id == workflow_id:
            return scope
        scope = activity.graph.scope(scope)
    return scope


def fit_input(activity: Activity, annotation: Any, shape: Any, check: bool) -> Any:
    """Return the input as its function declares it. Raises `InputInvalid` if it is checked and does not fit."""
    plain = activity.values.plain(activity.record.input)
    # Without a declared type the value keeps the types that its makers declared.
    if annotation is None:
        return activity.typed_input(shape)
    if check:
        fitted = validate(annotation, plain, header="Step input validation failed: ")
        return activity.typed_input(shape) if fitted is plain else fitted
    fitted = restore_as(annotation, plain)
    return activity.typed_input(shape) if fitted is plain else fitted


def _run(activity: Activity, inline: bool, ready: Call) -> StepOutcome:
    try:
        # Before the call and outside its retries: an input that does not fit will not fit the next time either.
        given = ready.read_input()
        context = activity.context(given, *ready.context_types)
    except (InputInvalid, SecretUnavailable) as error:
        return fail(activity, error)
    outcome = outcome_of(lambda: ready.call(context), context)
    try:
        return _follow(activity, inline, ready, context, outcome)
    except StoreUnavailable:
        raise
    # A value that cannot be stored, a state that does not fit: the function has run, but its step has failed.
    except OrchestratorError as error:
        return fail(activity, error)


def _follow(activity: Activity, inline: bool, ready: Call, context: Context[Any], outcome: Outcome) -> StepOutcome:
    # The id of the output is the lease token of its attempt: no other attempt can have written under it.
    key = activity.record.token
    spot = activity.spot(inline)
    match outcome:
        case Returned(value=value):
            return StepOutcome(flow.finish(spot, Done(key)), _writes(activity, context, key, value, "output"))
        case Bailed(value=value):
            return StepOutcome(flow.bail(spot, key), _writes(activity, context, key, value, "bailed value"))
        case SuspendRequested(payload=payload, label=label):
            # Whoever resumes reads it as the type that the step declares: a mistake is the step's own, and found now.
            checked = validate(ready.suspend_type, payload) if ready.suspend_type is not None else payload
            writes = _writes(activity, context, key, {} if checked is None else checked, "suspend payload")
            return StepOutcome(flow.suspend(spot, key, label), writes)
        case AbortRequested():
            return StepOutcome(flow.abort(spot), Writes(context=activity.context_patch(context.request_context)))
        case RetryRequested(seconds=seconds):
            return StepOutcome(attempt_commands.retry(spot, seconds))
        # The store was away for too long for this attempt to be worth anything: no outcome of it is recorded.
        case Raised(error=error) if error is activity.cut_off:
            raise error
        case Raised(error=error):
            return retry_or_fail(activity, error, context)


def _writes(activity: Activity, context: Context[Any], key: str, value: Any, what: str) -> Writes:
    return Writes(
        {key: activity.store_value(value, what)},
        activity.state_patch(context.written_state),
        activity.context_patch(context.request_context),
    )


def retry_or_fail(activity: Activity, error: BaseException, context: Context[Any] | None = None) -> StepOutcome:
    """Plan another attempt if the step has one left for such an error, else fail the activation."""
    activity.error = error
    spot = activity.spot()
    node = spot.node if spot.record.path else None
    step = None if node is None else step_of(node)
    # A task or a mapping names no errors that are not worth another attempt: then all of them are.
    retryable = step is None or step.is_retryable(error)
    # Chance is drawn here, because the core has none: the plan says how long the pause is.
    delay = attempt_commands.find_retry_pause(spot, chance(), is_retryable=retryable)
    if node is not None and delay is not None:
        # Info and no error: what another attempt repairs wakes nobody up.
        text = "attempt %d of step %s of run %s (%s) failed, the next follows in %.1f s: %r"
        about, header = activity.about, activity.header
        which = (spot.record.attempt + 1, node.id, header.run_id, header.workflow_id)
        log.info(text, *which, delay, error, extra=about)  # as Celery tells of its retries
        activity.observer.on_failure(error)
        return StepOutcome(attempt_commands.retry(spot, delay))
    return fail(activity, error, context)


def fail(activity: Activity, error: BaseException, context: Context[Any] | None = None) -> StepOutcome:
    """Fail the activation for good: log it, keep the error, and plan what follows."""
    activity.error = error
    record, header = activity.record, activity.header
    wired = isinstance(error, TripWire)
    key = f"{record.token}!"
    # A tripwire is an end that the author wanted, and no error in logs and traces.
    if not wired:
        text = "step %s of run %s (%s) failed: %s"
        log.error(text, record.step, header.run_id, header.workflow_id, error, exc_info=error, extra=activity.about)
        activity.observer.on_failure(error)
    text = encode_error(error, activity.services.settings.max_payload_bytes)
    patch = activity.context_patch(context.request_context) if context is not None else {}
    return StepOutcome(flow.finish(activity.spot(), Failed(key, wired)), Writes({key: text}, context=patch))
