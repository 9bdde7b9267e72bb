"""Running a step, mapping or task, and turning what came of it into a plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.codec import validate
from orchestrator.core import attempt_commands, flow
from orchestrator.core.changes import Mail
from orchestrator.core.graph import Path, Step
from orchestrator.core.plan import Done, Failed, Plan
from orchestrator.definitions.bodies import Callback, MapBody, StepBody, TaskBody
from orchestrator.definitions.context import Context
from orchestrator.definitions.foreign import retry_seconds
from orchestrator.engine.activity import Activity, restored
from orchestrator.engine.calling import (
    Again,
    Bailed,
    Canceled,
    Held,
    Outcome,
    Raised,
    RetryAsked,
    Returned,
    outcome_of,
    settled,
)
from orchestrator.engine.reading import stored_error
from orchestrator.errors import InputInvalid, OrchestratorError, SecretUnavailable, StoreUnavailable, TripWire
from orchestrator.host import chance

log = logging.getLogger("orchestrator")


@dataclass(slots=True)
class Written:
    """What an activation writes beside its plan."""

    values: dict[str, str] = field(default_factory=dict)
    state: Mapping[str, str | None] = field(default_factory=dict)
    context: Mapping[str, str | None] = field(default_factory=dict)
    mail: Mail | None = None


Followed = tuple[Plan, Written]


def run_step(activity: Activity, inline: bool) -> tuple[Plan, Written]:
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
class Prepared:
    """A call that is ready to be made."""

    call: Callable[[Context[Any]], Any]
    given: Callable[[], Any]
    context_types: tuple[Any, Any] = (None, None)
    suspend_type: Any = None


def _prepare_step(activity: Activity, body: StepBody) -> Prepared:
    step = body.step

    def given() -> Any:
        return fitting_input(activity, step.input, body.given, body.validate)

    def call(context: Context[Any]) -> Any:
        return step.invoke(context.input, context)

    types = (step.resume, step.suspend)
    return Prepared(call, given, types, step.suspend)


def _prepare_task(activity: Activity, body: TaskBody) -> Prepared:
    def call(context: Context[Any]) -> Any:
        if activity.call_task is not None:
            return activity.call_task(body.task, context.input, context)
        try:
            return body.task.invoke(context.input, activity.engine.owner, context.retry_count)
        except Exception as error:
            seconds = retry_seconds(error)
            if seconds is None:
                raise
            raise RetryAsked(seconds, error) from error

    return Prepared(call, lambda: activity.values.plain(activity.record.input))


def _prepare_map(activity: Activity, body: MapBody) -> Prepared:
    def call(context: Context[Any]) -> Any:
        def run(callback: Callback) -> Any:
            return settled(callback.call(context.input, context))

        return body.mapping.evaluate(Scope(activity, context), run)

    return Prepared(call, lambda: activity.given(body.given))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a mapping or a template may speak of."""

    activity: Activity
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
        """Whether a step has succeeded, and with what."""
        return self.activity.result(step_id)


def _scope_of(activity: Activity, workflow_id: str) -> Path:
    scope = activity.scope
    while scope:
        if activity.graph.node(scope).id == workflow_id:
            return scope
        scope = activity.graph.scope(scope)
    return scope


def fitting_input(activity: Activity, annotation: Any, shape: Any, check: bool) -> Any:
    """The activation's input as its function declares it. Raises `InputInvalid` if it is checked and does not fit."""
    plain = activity.values.plain(activity.record.input)
    if annotation is None:
        return activity.given(shape)
    if check:
        fitted = validate(annotation, plain, header="Step input validation failed: ")
        return activity.given(shape) if fitted is plain else fitted
    fitted = restored(annotation, plain)
    return activity.given(shape) if fitted is plain else fitted


def _run(activity: Activity, inline: bool, prepared: Prepared) -> tuple[Plan, Written]:
    try:
        given = prepared.given()
        context = activity.context(given, *prepared.context_types)
    except (InputInvalid, SecretUnavailable) as error:
        return failed(activity, error)
    outcome = outcome_of(lambda: prepared.call(context), context)
    try:
        return _follow(activity, inline, prepared, context, outcome)
    except StoreUnavailable:
        raise
    except OrchestratorError as error:  # a value that cannot be stored, a state that does not fit
        return failed(activity, error)


def _follow(
    activity: Activity, inline: bool, prepared: Prepared, context: Context[Any], outcome: Outcome
) -> tuple[Plan, Written]:
    key = activity.record.token
    spot = activity.spot(inline)
    match outcome:
        case Returned(value=value):
            written = _writes(activity, context, key, value, "output")
            return flow.finish(spot, Done(key)), written
        case Bailed(value=value):
            return flow.bail(spot, key), _writes(activity, context, key, value, "bailed value")
        case Held(payload=payload, label=label):
            checked = validate(prepared.suspend_type, payload) if prepared.suspend_type is not None else payload
            written = _writes(activity, context, key, {} if checked is None else checked, "suspend payload")
            return flow.suspend(spot, key, label), written
        case Canceled():
            return flow.abort(spot), Written(context=activity.context_patch(context.request_context))
        case Again(seconds=seconds):
            return attempt_commands.retry(spot, seconds), Written()
        case Raised(error=error) if error is activity.cut_off:
            raise error
        case Raised(error=error):
            return raised(activity, error, context)


def _writes(activity: Activity, context: Context[Any], key: str, value: Any, what: str) -> Written:
    return Written(
        {key: activity.store_value(value, what)},
        activity.state_patch(context.written_state),
        activity.context_patch(context.request_context),
    )


def raised(activity: Activity, error: BaseException, context: Context[Any] | None = None) -> tuple[Plan, Written]:
    """The attempt has failed: another follows if the step has one left for such an error."""
    activity.error = error
    spot = activity.spot()
    node = spot.node if spot.record.path else None
    step = getattr(getattr(node, "body", None), "step", None)
    retryable = step is None or step.is_retryable(error)
    delay = attempt_commands.find_retry_pause(spot, chance(), is_retryable=retryable)
    if node is not None and delay is not None:
        text = "attempt %d of step %s of run %s (%s) failed, the next follows in %.1f s: %r"
        about, header = activity.about, activity.header
        which = (spot.record.attempt + 1, node.id, header.run_id, header.workflow_id)
        log.info(text, *which, delay, error, extra=about)  # as Celery tells of its retries
        activity.watch.failed(error)
        return attempt_commands.retry(spot, delay), Written()
    return failed(activity, error, context)


def failed(activity: Activity, error: BaseException, context: Context[Any] | None = None) -> tuple[Plan, Written]:
    """The activation has failed for good: log it, keep the error, and say what follows."""
    activity.error = error
    record, header = activity.record, activity.header
    wired = isinstance(error, TripWire)
    key = f"{record.token}!"
    if not wired:
        text = "step %s of run %s (%s) failed: %s"
        log.error(text, record.step, header.run_id, header.workflow_id, error, exc_info=error, extra=activity.about)
        activity.watch.failed(error)
    stored = stored_error(error, activity.engine.settings.max_payload_bytes)
    patch = activity.context_patch(context.request_context) if context is not None else {}
    return flow.finish(activity.spot(), Failed(key, wired)), Written({key: stored}, context=patch)
