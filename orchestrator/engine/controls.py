"""Control activations: they evaluate conditions, fan items out, gather children, compute sleeps and await events.

Each has a claim of its own, made in the commit of its predecessor, and runs in the same worker. So no condition is
evaluated before the result that it reads is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.codec import encode, unpack, validate
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
from orchestrator.engine.iterations import release_finished
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.pending import read_progress
from orchestrator.engine.read.value_reader import encode_error, encode_value
from orchestrator.engine.step_calls import fail
from orchestrator.errors import InputInvalid, OrchestratorError, StoreUnavailable
from orchestrator.rules import attempt_commands, flow
from orchestrator.rules import values as texts
from orchestrator.rules.graph import Branch, Foreach, Loop, Sleep, Wait
from orchestrator.rules.model import Phase
from orchestrator.rules.plan import Done, Plan
from orchestrator.rules.value_ids import make_error_id, make_item_id, make_items_prefix, make_outcome_id

_PAGE = 500  # items written in one commit


def _body(attempt: Attempt) -> Any:
    return body_of(attempt.as_claimed_node().node)


def _evaluate(attempt: Attempt, work: Callable[[Context[Any]], Any], make_plan: Callable[[Any], Plan]) -> StepOutcome:
    """Run user code that decides something, and plan what follows. Changes of the request context are stored."""
    try:
        context = attempt.context(attempt.typed_input(_body(attempt).given))
        outcome: Outcome = outcome_of(lambda: work(context), context, attempt.services.signs)
        match outcome:
            case Returned(value=value):
                return StepOutcome(make_plan(value), Writes(context=attempt.context_patch(context.request_context)))
            case AbortRequested():
                return StepOutcome(flow.abort(attempt.as_claimed_node()))
            # The store was away while the condition read from it. The condition has not answered, so another attempt
            # evaluates it.
            case Raised(error=error) if attempt.is_cut_off(error):
                assert attempt.cut_off is not None
                raise attempt.cut_off
            # A condition that raises fails the run, and does not count as false: a mistake in a lambda must not skip an
            # approval.
            case Raised(error=error):
                return fail(attempt, error)
            case _:
                text = f"{attempt.activation.step}: a condition or computed setting can neither suspend nor bail"
                return fail(attempt, OrchestratorError(text))
    except StoreUnavailable:
        raise  # the lease is over, so the attempt is abandoned, and another one decides
    except OrchestratorError as error:
        return fail(attempt, error)


def evaluate_branch(attempt: Attempt) -> StepOutcome:
    """Evaluate the conditions of a branch: every arm whose condition holds runs."""
    body: BranchBody = _body(attempt)

    def work(context: Context[Any]) -> list[int]:
        calls = [partial(_call, condition, context) for condition in body.conditions]
        return [index for index, call in enumerate(calls) if attempt.observer.condition(call, index)]

    def make_plan(arms: list[int]) -> Plan:
        # A run that goes step by step takes one step at a time, so of several arms it takes the first.
        return flow.on_branch_chosen(attempt.as_claimed_node(), arms[:1] if attempt.header.per_step else arms)

    return _evaluate(attempt, work, make_plan)


def evaluate_loop(attempt: Attempt) -> StepOutcome:
    """Evaluate the condition of a loop on the output of its body."""
    node, body = attempt.as_claimed_node().node, _body(attempt)
    assert isinstance(node, Loop)
    assert isinstance(body, LoopBody)

    def work(context: Context[Any]) -> bool:
        return bool(attempt.observer.condition(lambda: _call(body.condition, context)))

    def make_plan(holds: bool) -> Plan:
        release = release_finished(attempt) if flow.goes_on(node, holds) else None
        return flow.on_loop_checked(attempt.as_claimed_node(), holds, release)

    return _evaluate(attempt, work, make_plan)


def fan_out(attempt: Attempt) -> StepOutcome:
    """Write each item of the list under an id of its own, so that no item ever reads the whole list."""
    node = attempt.as_claimed_node().node
    assert isinstance(node, Foreach)
    # Plain, because the step that works on an item gives it its type.
    items = attempt.values.plain(attempt.activation.input)
    if not isinstance(items, list):
        text = f"foreach {attempt.activation.step!r} needs a list as its input, not {type(items).__name__}"
        return fail(attempt, TypeError(text))
    body: ForeachBody = _body(attempt)

    def work(context: Context[Any]) -> int:
        wish = node.concurrency if body.concurrency is None else _call(body.concurrency, context)
        if not isinstance(wish, int) or isinstance(wish, bool) or wish < 1:
            raise ValueError(f"concurrency of foreach {attempt.activation.step!r} must be 1 or more, not {wish!r}")
        return wish

    progress = read_progress(attempt, len(items))

    def make_plan(concurrency: int) -> Plan:
        return flow.on_items(attempt.as_claimed_node(), progress, concurrency)

    outcome = _evaluate(attempt, work, make_plan)
    # Before the outcome's commit and under the same lease: an item that is claimed finds its value there. After an
    # abandoned attempt the values are written again, under the same ids.
    _write_items(attempt, items)
    return outcome


def start_items(attempt: Attempt) -> StepOutcome:
    """Start further items of a foreach."""
    return StepOutcome(flow.on_items_left(attempt.as_claimed_node()))


def _write_items(attempt: Attempt, items: list[Any]) -> None:
    activation, header, services = attempt.activation, attempt.header, attempt.services
    packing = services.settings.packing
    prefix = make_items_prefix(activation.path, activation.visit, header.generation)
    for start in range(0, len(items), _PAGE):
        page = {
            make_item_id(prefix, index): encode_value(item, f"item {index} of {activation.step!r}", packing)
            for index, item in enumerate(items[start : start + _PAGE], start)
        }
        change = attempt_commands.write_items(activation, page, services.settings.limits)
        services.retry_while_unavailable(partial(attempt.store.commit, header.run_id, change))


def join(attempt: Attempt) -> StepOutcome:
    """Gather the outputs of a block's children."""
    node, path = attempt.as_claimed_node().node, attempt.activation.path
    # A branch has places for all its arms, whichever were chosen; of other blocks the count is the activation's.
    places = len(node.arms) if isinstance(node, Branch) else attempt.activation.total
    # The children are read here: the commit of the last child knows that it is the last, and nothing of the others.
    children = attempt.load([f"{path}.{index}" for index in range(places)])
    return StepOutcome(flow.on_children_done(attempt.as_claimed_node(), children))


def validate_input(attempt: Attempt) -> StepOutcome:
    """Check the input of a nested workflow and fill in its defaults."""
    # A nested workflow declares its input like one that is started by a caller: missing fields get their defaults.
    body: NestedBody = _body(attempt)
    key, activation = make_outcome_id(attempt.activation.lease_token), attempt.activation
    given = Done(activation.input, tuple(activation.needs.split()))
    if not body.validate or body.definition.input is None:
        return StepOutcome(flow.on_input_valid(attempt.as_claimed_node(), given))
    plain = attempt.values.plain(activation.input)
    try:
        fitted = validate(body.definition.input, plain, header="Step input validation failed: ")
        text = attempt.store_value(fitted, "input")
    except InputInvalid as error:
        return fail(attempt, error)
    # Most inputs pass unchanged. Then the nested workflow shares the stored value, and no copy is written.
    if unpack(text.removeprefix(texts.OWN)) == encode(plain):
        return StepOutcome(flow.on_input_valid(attempt.as_claimed_node(), given))
    return StepOutcome(flow.on_input_valid(attempt.as_claimed_node(), Done(key)), Writes({key: text}))


def compute_sleep(attempt: Attempt) -> StepOutcome:
    """Compute how long to sleep: seconds, a timedelta, or the moment to sleep until."""
    node = attempt.as_claimed_node().node
    assert isinstance(node, Sleep)
    body: SleepBody = _body(attempt)

    def work(context: Context[Any]) -> float:
        wish = body.until if body.callback is None else _call(body.callback, context)
        return _seconds(attempt, node.seconds if node.seconds is not None else wish)

    return _evaluate(attempt, work, lambda seconds: flow.on_sleep_computed(attempt.as_claimed_node(), seconds))


def _seconds(attempt: Attempt, wish: Any) -> float:
    match wish:
        case timedelta():
            return wish.total_seconds()
        case datetime():
            moment = wish if wish.tzinfo else wish.astimezone()
            # By the store's clock, which also decides when the sleep is over: this worker's clock may be wrong.
            return moment.timestamp() - attempt.store.now() / 1000
        case int() | float() if not isinstance(wish, bool):
            return float(wish)
        case _:
            name = attempt.activation.step
            raise TypeError(f"sleep {name!r} needs seconds, a timedelta or a datetime, not {type(wish).__name__}")


def end_sleep(attempt: Attempt) -> StepOutcome:
    """Go on after a sleep that is over."""
    return StepOutcome(flow.on_sleep_over(attempt.as_claimed_node()))


def await_event(attempt: Attempt) -> StepOutcome:
    """Take the event if it has been sent already, else begin to wait for it."""
    # The commit is refused where an event has come between the reading and the commit, so none is ever missed.
    first = next(iter(attempt.store.mail(attempt.header.run_id, _wait(attempt).event)), "")
    plan, mail = attempt_commands.await_event(attempt.as_claimed_node(), first)
    return StepOutcome(plan, Writes(mailbox=mail))


def receive_event(attempt: Attempt) -> StepOutcome:
    """Go on with the event that was received."""
    return StepOutcome(flow.on_event(attempt.as_claimed_node(), attempt.activation.resume))


def time_out_event(attempt: Attempt) -> StepOutcome:
    """Start the alternative of a wait whose event has not come in time, else fail it; take it out of the mailbox."""
    # Both in one commit: a later event finds either the wait, or a mailbox without it.
    node, key = _wait(attempt), make_error_id(attempt.activation.lease_token)
    error = TimeoutError(f"no event {node.event!r} came within {node.timeout} s")
    text = encode_error(error, attempt.services.settings.packing)
    plan, mail = attempt_commands.time_out_event(attempt.as_claimed_node(), key)
    # The alternative goes on with the wait's input: nothing would refer to the error.
    return StepOutcome(plan, Writes({key: text} if node.otherwise is None else {}, mailbox=mail))


def _wait(attempt: Attempt) -> Wait:
    node = attempt.as_claimed_node().node
    assert isinstance(node, Wait)
    return node


def _call(callback: Callback, context: Context[Any]) -> Any:
    return resolve_value(callback.call(context.input, context))


CONTROLS: dict[Phase, Callable[[Attempt], StepOutcome]] = {
    Phase.VALIDATE_INPUT: validate_input,
    Phase.EVALUATE_BRANCH: evaluate_branch,
    Phase.FAN_OUT: fan_out,
    Phase.START_ITEMS: start_items,
    Phase.EVALUATE_LOOP: evaluate_loop,
    Phase.JOIN: join,
    Phase.COMPUTE_SLEEP: compute_sleep,
    Phase.SLEEP_OVER: end_sleep,
    Phase.AWAIT_EVENT: await_event,
    Phase.EVENT_RECEIVED: receive_event,
    Phase.EVENT_TIMEOUT: time_out_event,
}
