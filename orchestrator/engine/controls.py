"""Control activations: they evaluate conditions, fan items out, gather children and compute sleeps.

Each is claimed in the commit of its predecessor and run in the same worker, so that no user code runs before a
result is recorded. A condition that raises fails the run: a mistake in a lambda must not skip an approval.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.codec import encode, validate
from orchestrator.definitions.bodies import (
    BranchBody,
    Callback,
    ForeachBody,
    LoopBody,
    NestedBody,
    SleepBody,
    body_of,
)
from orchestrator.definitions.context import Context
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.calling import AbortRequested, Outcome, Raised, Returned, outcome_of, resolve_value
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.engine.step_calls import fail
from orchestrator.errors import InputInvalid, OrchestratorError, StoreUnavailable
from orchestrator.rules import attempt_commands, flow
from orchestrator.rules import values as texts
from orchestrator.rules.graph import Branch, Foreach, Sleep, Wait
from orchestrator.rules.model import Phase
from orchestrator.rules.plan import Done, Plan, items_prefix

_PAGE = 500  # items written in one commit


def _body(attempt: Attempt) -> Any:
    return body_of(attempt.spot().node)


def _evaluate(attempt: Attempt, work: Callable[[Context[Any]], Any], then: Callable[[Any], Plan]) -> StepOutcome:
    """Run user code that decides something, and keep what it writes into the request context."""
    try:
        context = attempt.context(attempt.typed_input(_body(attempt).given))
        outcome: Outcome = outcome_of(lambda: work(context), context, attempt.services.signs)
        match outcome:
            case Returned(value=value):
                return StepOutcome(then(value), Writes(context=attempt.context_patch(context.request_context)))
            case AbortRequested():
                return StepOutcome(flow.abort(attempt.spot()))
            # The store was away while the condition read from it. That is no answer, and the next worker asks again.
            case Raised(error=error) if attempt.is_cut_off(error):
                assert attempt.cut_off is not None
                raise attempt.cut_off
            case Raised(error=error):
                return fail(attempt, error)
            case _:
                text = f"{attempt.activation.step}: a condition or computed setting can neither suspend nor bail"
                return fail(attempt, OrchestratorError(text))
    except StoreUnavailable:
        raise  # nobody's decision: the lease is over, and somebody else decides
    except OrchestratorError as error:
        return fail(attempt, error)


def choose(attempt: Attempt) -> StepOutcome:
    """Evaluate the conditions of a branch: every arm whose condition holds runs."""
    body: BranchBody = _body(attempt)

    def work(context: Context[Any]) -> list[int]:
        ask = [partial(_call, condition, context) for condition in body.conditions]
        return [index for index, condition in enumerate(ask) if attempt.observer.condition(condition, index)]

    def then(arms: list[int]) -> Plan:
        # Step by step means one step at a time: the first arm is it.
        return flow.on_branch_chosen(attempt.spot(), arms[:1] if attempt.header.per_step else arms)

    return _evaluate(attempt, work, then)


def check(attempt: Attempt) -> StepOutcome:
    """Evaluate the condition of a loop on the output of its body."""
    body: LoopBody = _body(attempt)

    def work(context: Context[Any]) -> bool:
        return bool(attempt.observer.condition(lambda: _call(body.condition, context)))

    return _evaluate(attempt, work, lambda holds: flow.on_loop_checked(attempt.spot(), holds))


def split(attempt: Attempt) -> StepOutcome:
    """Write each item of the list under an id of its own, so that no item ever reads the whole list."""
    node = attempt.spot().node
    assert isinstance(node, Foreach)
    # Plain, because each item is typed where it arrives: by the step that works on it.
    items = attempt.values.plain(attempt.activation.input)
    if not isinstance(items, list):
        text = f"foreach {attempt.activation.step!r} needs a list as its input, not {type(items).__name__}"
        return fail(attempt, TypeError(text))
    body: ForeachBody = _body(attempt)

    def work(context: Context[Any]) -> int:
        width = node.concurrency if body.concurrency is None else _call(body.concurrency, context)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise ValueError(f"concurrency of foreach {attempt.activation.step!r} must be 1 or more, not {width!r}")
        return width

    outcome = _evaluate(attempt, work, lambda width: flow.on_items(attempt.spot(), len(items), width))
    # Before the outcome's commit and under the lease of this claim: an item that is claimed finds its value there. What
    # a lost worker has written is written once more, under the same ids.
    _write_items(attempt, items)
    return outcome


def _write_items(attempt: Attempt, items: list[Any]) -> None:
    activation, header, services = attempt.activation, attempt.header, attempt.services
    prefix = items_prefix(activation.path, activation.visit, header.generation)
    for start in range(0, len(items), _PAGE):
        page = {
            f"{prefix}.{index}": texts.own(encode(item, where=f"item {index} of {activation.step!r}"))
            for index, item in enumerate(items[start : start + _PAGE], start)
        }
        change = attempt_commands.write_items(activation, page, services.settings.limits)
        services.retry_while_unavailable(partial(attempt.store.commit, header.run_id, change))


def join(attempt: Attempt) -> StepOutcome:
    """Gather the children of a block."""
    node, path = attempt.spot().node, attempt.activation.path
    # A branch has places for all its arms, whichever were chosen; of other blocks the count is the activation's.
    places = len(node.arms) if isinstance(node, Branch) else attempt.activation.total
    # Read here and not carried along: the last child knows that it is the last, and nothing of the others.
    children = attempt.load([f"{path}.{index}" for index in range(places)])
    return StepOutcome(flow.on_children_done(attempt.spot(), children))


def enter(attempt: Attempt) -> StepOutcome:
    """Check the input of a nested workflow and fill in its defaults."""
    # The nested workflow declares what it takes, as if somebody had started it: what is missing gets its default.
    body: NestedBody = _body(attempt)
    key, activation = attempt.activation.lease_token, attempt.activation
    given = Done(activation.input, tuple(activation.needs.split()))
    if not body.validate or body.definition.input is None:
        return StepOutcome(flow.on_input_valid(attempt.spot(), given))
    plain = attempt.values.plain(activation.input)
    try:
        fitted = validate(body.definition.input, plain, header="Step input validation failed: ")
        text = attempt.store_value(fitted, "input")
    except InputInvalid as error:
        return fail(attempt, error)
    # Most inputs come out as they went in: then the nested workflow shares the value, and none is written.
    if text == texts.own(encode(plain)):
        return StepOutcome(flow.on_input_valid(attempt.spot(), given))
    return StepOutcome(flow.on_input_valid(attempt.spot(), Done(key)), Writes({key: text}))


def nap(attempt: Attempt) -> StepOutcome:
    """Compute how long to sleep: seconds, a timedelta, or the moment to sleep until."""
    node = attempt.spot().node
    assert isinstance(node, Sleep)
    body: SleepBody = _body(attempt)

    def work(context: Context[Any]) -> float:
        wish = body.until if body.callback is None else _call(body.callback, context)
        return _seconds(attempt, node.seconds if node.seconds is not None else wish)

    return _evaluate(attempt, work, lambda seconds: flow.on_sleep_computed(attempt.spot(), seconds))


def _seconds(attempt: Attempt, wish: Any) -> float:
    match wish:
        case timedelta():
            return wish.total_seconds()
        case datetime():
            moment = wish if wish.tzinfo else wish.astimezone()
            # By the store's clock, which also says when the sleep is over: this worker's may be wrong.
            return moment.timestamp() - attempt.store.now() / 1000
        case int() | float() if not isinstance(wish, bool):
            return float(wish)
        case _:
            name = attempt.activation.step
            raise TypeError(f"sleep {name!r} needs seconds, a timedelta or a datetime, not {type(wish).__name__}")


def wake(attempt: Attempt) -> StepOutcome:
    """Go on after a sleep, whose moment has come."""
    return StepOutcome(flow.on_sleep_over(attempt.spot()))


def listen(attempt: Attempt) -> StepOutcome:
    """Take the event if it has been sent already, else begin to wait for it."""
    # The mailbox is read together with its mark, and the commit holds only if the mark is still the same. So a sender
    # that comes in between is never missed.
    entries = attempt.store.mail(attempt.header.run_id, _wait(attempt).event)
    plan, mail = attempt_commands.await_event(attempt.spot(), entries)
    return StepOutcome(plan, Writes(mailbox=mail))


def hear(attempt: Attempt) -> StepOutcome:
    """Go on with the event, which has come."""
    return StepOutcome(flow.on_event(attempt.spot(), attempt.activation.resume))


def expire(attempt: Attempt) -> StepOutcome:
    """Fail a wait whose event has not come in time, and take its waiter out of the mailbox."""
    node, key = _wait(attempt), f"{attempt.activation.lease_token}!"
    error = TimeoutError(f"no event {node.event!r} came within {node.timeout} s")
    text = encode_error(error, attempt.services.settings.max_payload_bytes)
    plan, mail = attempt_commands.time_out_event(attempt.spot(), key)
    return StepOutcome(plan, Writes({key: text}, mailbox=mail))


def _wait(attempt: Attempt) -> Wait:
    node = attempt.spot().node
    assert isinstance(node, Wait)
    return node


def _call(callback: Callback, context: Context[Any]) -> Any:
    return resolve_value(callback.call(context.input, context))


CONTROLS: dict[Phase, Callable[[Attempt], StepOutcome]] = {
    Phase.VALIDATE_INPUT: enter,
    Phase.EVALUATE_BRANCH: choose,
    Phase.FAN_OUT: split,
    Phase.EVALUATE_LOOP: check,
    Phase.JOIN: join,
    Phase.COMPUTE_SLEEP: nap,
    Phase.SLEEP_OVER: wake,
    Phase.AWAIT_EVENT: listen,
    Phase.EVENT_RECEIVED: hear,
    Phase.EVENT_TIMEOUT: expire,
}
