"""Steps, mappings and tasks: their functions are called, and their outcomes become plans."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.codec import validate
from orchestrator.definitions.bodies import Callback, MapBody, StepBody, TaskBody, step_of
from orchestrator.definitions.context import Context
from orchestrator.definitions.foreign import retry_seconds
from orchestrator.definitions.state_writes import has_updates
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.calling import (
    LIST_IT,
    AbortRequested,
    BailRequested,
    Outcome,
    Raised,
    RetryAsked,
    RetryRequested,
    Returned,
    SuspendRequested,
    is_struck,
    outcome_of,
    resolve_value,
)
from orchestrator.engine.declarations import restore_as
from orchestrator.engine.logs import error_text
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.errors import (
    CompressionUnavailable,
    InputInvalid,
    OrchestratorError,
    SecretUnavailable,
    StoreUnavailable,
    TripWire,
)
from orchestrator.host import chance
from orchestrator.rules import attempt_commands, flow
from orchestrator.rules.graph import Path, Step
from orchestrator.rules.plan import Done, Failed
from orchestrator.rules.value_ids import make_error_id, make_outcome_id

log = logging.getLogger("orchestrator")


def run_step(attempt: Attempt, inline: bool) -> StepOutcome:
    """Call the function of the activation, and plan what follows."""
    node = attempt.graph.node(attempt.activation.at)
    assert isinstance(node, Step)
    match node.body:
        case StepBody():
            return _run(attempt, inline, _prepare_step(attempt, node.body))
        case TaskBody():
            return _run(attempt, inline, _prepare_task(attempt, node.body))
        case MapBody():
            return _run(attempt, inline, _prepare_map(attempt, node.body))
        case body:
            raise TypeError(f"step {node.id!r} has nothing to run: {body!r}")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is ready to be made."""

    # calls the user's function
    call: Callable[[Context[Any]], Any]
    # reads the input, and raises where it does not fit
    read_input: Callable[[], Any]
    # types of the resume data and of the suspend payload, for the context
    context_types: tuple[Any, Any] = (None, None)
    # the type that a suspend payload is checked against
    suspend_type: Any = None


def _prepare_step(attempt: Attempt, body: StepBody) -> Call:
    step = body.step

    def read_input() -> Any:
        return fit_input(attempt, step.input, body.given, body.validate)

    def call(context: Context[Any]) -> Any:
        value = step.invoke(context.input, context)
        if inspect.isgenerator(value) and not step.streams:
            # A generator expression, say. Its items would go to the stream, and the output would be None.
            value.close()
            raise TypeError(
                f"step {step.id!r} returned the generator {value.__name__}, and is no generator function: {LIST_IT}, "
                "or `yield from` it to stream its items"
            )
        return value

    types = (step.resume, step.suspend)
    return Call(call, read_input, types, step.suspend)


def _prepare_task(attempt: Attempt, body: TaskBody) -> Call:
    def call(context: Context[Any]) -> Any:
        try:
            return body.task.invoke(context.input, attempt.services.owner, context.retry_count)
        except Exception as error:
            # `self.retry()` of an existing task means a retry of its activation: the task's own retry message would go
            # past the run.
            seconds = retry_seconds(error, getattr(attempt.services.owner, "app", None))
            if seconds is None:
                raise
            raise RetryAsked(seconds, error) from error

    return Call(call, lambda: attempt.values.plain(attempt.activation.input))


def _prepare_map(attempt: Attempt, body: MapBody) -> Call:
    def call(context: Context[Any]) -> Any:
        def run(callback: Callback) -> Any:
            return resolve_value(callback.call(context.input, context))

        return body.mapping.evaluate(Scope(attempt, context), run)

    return Call(call, lambda: attempt.typed_input(body.given))


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that a mapping or a template may use."""

    # reads what the context does not have: results of steps, inputs of workflows
    attempt: Attempt
    # the context that any user code gets
    context_object: Context[Any]

    @property
    def data(self) -> Any:
        """The input of the mapping."""
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
        """Read the input of this workflow, or of the one around it that has this id."""
        if workflow_id is None:
            return self.attempt.init(self.attempt.scope)
        return self.attempt.init(_scope_of(self.attempt, workflow_id))

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Return True and the output of a step that has succeeded; else False and None."""
        return self.attempt.result(step_id)


def _scope_of(attempt: Attempt, workflow_id: str) -> Path:
    scope = attempt.scope
    while scope:
        if attempt.graph.node(scope).id == workflow_id:
            return scope
        scope = attempt.graph.scope(scope)
    return scope


def fit_input(attempt: Attempt, annotation: Any, shape: Any, check: bool) -> Any:
    """Return the input as its function declares it. Raises `InputInvalid` if it is checked and does not fit."""
    plain = attempt.values.plain(attempt.activation.input)
    # Without a declared type the value keeps the types that the steps before have declared.
    if annotation is None:
        return attempt.typed_input(shape)
    if check:
        fitted = validate(annotation, plain, header="Step input validation failed: ")
        return attempt.typed_input(shape) if fitted is plain else fitted
    fitted = restore_as(annotation, plain)
    return attempt.typed_input(shape) if fitted is plain else fitted


def _run(attempt: Attempt, inline: bool, ready: Call) -> StepOutcome:
    try:
        # Outside the retries of the step: an input that does not fit will not fit the next time either.
        given = ready.read_input()
        context = attempt.context(given, *ready.context_types)
    except (InputInvalid, SecretUnavailable) as error:
        return fail_for_good(attempt, error)
    outcome = outcome_of(lambda: ready.call(context), context, attempt.services.signs)

    def record() -> StepOutcome:
        return replace(_record(attempt, inline, ready, context, outcome), remake=remake)

    def remake() -> StepOutcome:
        # The function has had its effects and is not called again; what it asked of the state is computed anew.
        attempt.reread_state()
        return record()

    return record()


def _record(attempt: Attempt, inline: bool, ready: Call, context: Context[Any], outcome: Outcome) -> StepOutcome:
    try:
        return _follow(attempt, inline, ready, context, outcome)
    except (StoreUnavailable, CompressionUnavailable):
        raise
    # An output that cannot be stored, or a state that does not fit, fails the step although its function has returned.
    except OrchestratorError as error:
        return fail_for_good(attempt, error)


def _follow(attempt: Attempt, inline: bool, ready: Call, context: Context[Any], outcome: Outcome) -> StepOutcome:
    # The lease token of the attempt is the id of its output: no other attempt writes under it.
    key = make_outcome_id(attempt.activation.lease_token)
    claim = attempt.as_claimed_node(inline)
    match outcome:
        case Returned(value=value):
            return StepOutcome(flow.on_result(claim, Done(key)), _writes(attempt, context, key, value, "output"))
        case BailRequested(value=value):
            return StepOutcome(flow.bail(claim, key), _writes(attempt, context, key, value, "bailed value"))
        case SuspendRequested(payload=payload, label=label):
            # Callers read the payload as the declared type. So a payload that does not fit is the step's mistake, and
            # fails it now.
            checked = validate(ready.suspend_type, payload) if ready.suspend_type is not None else payload
            writes = _writes(attempt, context, key, {} if checked is None else checked, "suspend payload")
            return StepOutcome(flow.suspend(claim, key, label), writes)
        case AbortRequested():
            return StepOutcome(flow.abort(claim), Writes(context=attempt.context_patch(context.request_context)))
        case RetryRequested(seconds=seconds):
            return StepOutcome(attempt_commands.retry(claim, seconds))
        # The store was away for longer than the lease, so a commit of this attempt would be refused.
        case Raised(error=error) if attempt.is_cut_off(error):
            assert attempt.cut_off is not None
            raise attempt.cut_off
        # No failure of the step, though the function was called: another worker can read what it asked for.
        case Raised(error=CompressionUnavailable() as error):
            raise error
        case Raised(error=error):
            return retry_or_fail(attempt, error, context)


def _writes(attempt: Attempt, context: Context[Any], key: str, value: Any, what: str) -> Writes:
    return Writes(
        {key: attempt.store_value(value, what)},
        attempt.state_patch(context.state_writes),
        attempt.context_patch(context.request_context),
        # What was computed from the state is committed only on that very state.
        expect_state=attempt.header.state_version if has_updates(context.state_writes) else None,
    )


def retry_or_fail(attempt: Attempt, error: BaseException, context: Context[Any] | None = None) -> StepOutcome:
    """Plan another attempt if the step has one left for such an error, else fail the activation."""
    attempt.error = error
    claim = attempt.as_claimed_node()
    node = claim.node if claim.activation.path else None
    step = None if node is None else step_of(node)
    # Only steps declare errors that are not worth a retry. For a task or a mapping all errors are.
    retryable = step is None or step.is_retryable(error)
    # Chance is drawn here, because the rules are pure.
    delay = attempt_commands.find_retry_pause(claim, chance(), is_retryable=retryable)
    if node is not None and delay is not None:
        # At the level INFO, as Celery logs its own retries: an error that another attempt repairs needs no alarm.
        text = "attempt %d of step %s of run %s (%s) failed, the next follows in %.1f s: %r"
        header = attempt.header
        names = (claim.activation.attempt + 1, node.id, header.run_id, header.workflow_id)
        log.info(text, *names, delay, error, extra=attempt.log_context)
        attempt.observer.on_failure(error)
        return StepOutcome(attempt_commands.retry(claim, delay))
    return fail(attempt, error, context)


def fail_for_good(attempt: Attempt, error: BaseException) -> StepOutcome:
    """Fail the activation by an error that would come again; where a time limit is behind it, the attempt alone."""
    return retry_or_fail(attempt, error) if is_struck(error) else fail(attempt, error)


def fail(attempt: Attempt, error: BaseException, context: Context[Any] | None = None) -> StepOutcome:
    """Fail the activation for good: log and store the error, and plan what follows."""
    attempt.error = error
    activation, header = attempt.activation, attempt.header
    is_tripwire = isinstance(error, TripWire)
    key = make_error_id(activation.lease_token)
    # A tripwire is an end that the author wanted, and no error in logs and traces.
    if not is_tripwire:
        text = "step %s of run %s (%s) failed: %s"
        log.error(
            text,
            activation.step,
            header.run_id,
            header.workflow_id,
            error_text(error),
            exc_info=error,
            extra=attempt.log_context,
        )
        attempt.observer.on_failure(error)
    text = encode_error(error, attempt.services.settings.packing)
    # A failed step leaves no state, as it leaves no output. Its changes of the request context are stored.
    patch = attempt.context_patch(context.request_context) if context is not None else {}
    plan = flow.on_result(attempt.as_claimed_node(), Failed(key, is_tripwire))
    return StepOutcome(plan, Writes({key: text}, context=patch))
