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
from orchestrator.core import attempt_commands, flow
from orchestrator.core import values as texts
from orchestrator.core.graph import Branch, Foreach, Sleep, Wait
from orchestrator.core.plan import Done, Plan, items_prefix
from orchestrator.core.records import Phase
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
from orchestrator.engine.activity import Activity
from orchestrator.engine.calling import AbortRequested, Outcome, Raised, Returned, outcome_of, settled
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.engine.steps import fail
from orchestrator.errors import InputInvalid, OrchestratorError, StoreUnavailable

_PAGE = 500  # items written in one commit


def _body(activity: Activity) -> Any:
    return body_of(activity.spot().node)


def _evaluate(activity: Activity, work: Callable[[Context[Any]], Any], then: Callable[[Any], Plan]) -> StepOutcome:
    """Run user code that decides something, and keep what it writes into the request context."""
    try:
        context = activity.context(activity.typed_input(_body(activity).given))
        outcome: Outcome = outcome_of(lambda: work(context), context)
        match outcome:
            case Returned(value=value):
                return StepOutcome(then(value), Writes(context=activity.context_patch(context.request_context)))
            case AbortRequested():
                return StepOutcome(flow.abort(activity.spot()))
            # The store was away while the condition read from it. That is no answer, and the next worker asks again.
            case Raised(error=error) if error is activity.cut_off:
                raise error
            case Raised(error=error):
                return fail(activity, error)
            case _:
                text = f"{activity.record.step}: a condition or computed setting can neither suspend nor bail"
                return fail(activity, OrchestratorError(text))
    except StoreUnavailable:
        raise  # nobody's decision: the lease is over, and somebody else decides
    except OrchestratorError as error:
        return fail(activity, error)


def choose(activity: Activity) -> StepOutcome:
    """Evaluate the conditions of a branch: every arm whose condition holds runs."""
    body: BranchBody = _body(activity)

    def work(context: Context[Any]) -> list[int]:
        ask = [partial(_call, condition, context) for condition in body.conditions]
        return [index for index, condition in enumerate(ask) if activity.observer.condition(condition, index)]

    def then(arms: list[int]) -> Plan:
        # Step by step means one step at a time: the first arm is it.
        return flow.chosen(activity.spot(), arms[:1] if activity.header.per_step else arms)

    return _evaluate(activity, work, then)


def check(activity: Activity) -> StepOutcome:
    """Evaluate the condition of a loop on the output of its body."""
    body: LoopBody = _body(activity)

    def work(context: Context[Any]) -> bool:
        return bool(activity.observer.condition(lambda: _call(body.condition, context)))

    return _evaluate(activity, work, lambda holds: flow.checked(activity.spot(), holds))


def split(activity: Activity) -> StepOutcome:
    """Write each item of the list under an id of its own, so that no item ever reads the whole list."""
    node = activity.spot().node
    assert isinstance(node, Foreach)
    # Plain, because each item is typed where it arrives: by the step that works on it.
    items = activity.values.plain(activity.record.input)
    if not isinstance(items, list):
        text = f"foreach {activity.record.step!r} needs a list as its input, not {type(items).__name__}"
        return fail(activity, TypeError(text))
    body: ForeachBody = _body(activity)

    def work(context: Context[Any]) -> int:
        width = node.concurrency if body.concurrency is None else _call(body.concurrency, context)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise ValueError(f"concurrency of foreach {activity.record.step!r} must be 1 or more, not {width!r}")
        return width

    outcome = _evaluate(activity, work, lambda width: flow.split(activity.spot(), len(items), width))
    # Before the outcome's commit and under the lease of this claim: an item that is claimed finds its value there. What
    # a lost worker has written is written once more, under the same ids.
    _write_items(activity, items)
    return outcome


def _write_items(activity: Activity, items: list[Any]) -> None:
    record, header, services = activity.record, activity.header, activity.services
    prefix = items_prefix(record.path, record.visit, header.life)
    for start in range(0, len(items), _PAGE):
        page = {
            f"{prefix}.{index}": texts.own(encode(item, where=f"item {index} of {record.step!r}"))
            for index, item in enumerate(items[start : start + _PAGE], start)
        }
        change = attempt_commands.write_items(record, page, services.settings.limits)
        services.retry_while_unavailable(partial(activity.store.commit, header.run_id, change))


def join(activity: Activity) -> StepOutcome:
    """Gather the children of a block."""
    node, path = activity.spot().node, activity.record.path
    # A branch has places for all its arms, whichever were chosen; of other blocks the count is the record's.
    places = len(node.arms) if isinstance(node, Branch) else activity.record.total
    # Read here and not carried along: the last child knows that it is the last, and nothing of the others.
    children = activity.load([f"{path}.{index}" for index in range(places)])
    return StepOutcome(flow.joined(activity.spot(), children))


def enter(activity: Activity) -> StepOutcome:
    """Check the input of a nested workflow and fill in its defaults."""
    # The nested workflow declares what it takes, as if somebody had started it: what is missing gets its default.
    body: NestedBody = _body(activity)
    key, record = activity.record.token, activity.record
    given = Done(record.input, tuple(record.needs.split()))
    if not body.validate or body.definition.input is None:
        return StepOutcome(flow.entered(activity.spot(), given))
    plain = activity.values.plain(record.input)
    try:
        fitted = validate(body.definition.input, plain, header="Step input validation failed: ")
        text = activity.store_value(fitted, "input")
    except InputInvalid as error:
        return fail(activity, error)
    # Most inputs come out as they went in: then the nested workflow shares the value, and none is written.
    if text == texts.own(encode(plain)):
        return StepOutcome(flow.entered(activity.spot(), given))
    return StepOutcome(flow.entered(activity.spot(), Done(key)), Writes({key: text}))


def nap(activity: Activity) -> StepOutcome:
    """Compute how long to sleep: seconds, a timedelta, or the moment to sleep until."""
    node = activity.spot().node
    assert isinstance(node, Sleep)
    body: SleepBody = _body(activity)

    def work(context: Context[Any]) -> float:
        wish = body.until if body.callback is None else _call(body.callback, context)
        return _seconds(activity, node.seconds if node.seconds is not None else wish)

    return _evaluate(activity, work, lambda seconds: flow.asleep(activity.spot(), seconds))


def _seconds(activity: Activity, wish: Any) -> float:
    match wish:
        case timedelta():
            return wish.total_seconds()
        case datetime():
            moment = wish if wish.tzinfo else wish.astimezone()
            # By the store's clock, which also says when the sleep is over: this worker's may be wrong.
            return moment.timestamp() - activity.store.now() / 1000
        case int() | float() if not isinstance(wish, bool):
            return float(wish)
        case _:
            name = activity.record.step
            raise TypeError(f"sleep {name!r} needs seconds, a timedelta or a datetime, not {type(wish).__name__}")


def wake(activity: Activity) -> StepOutcome:
    """Go on after a sleep, whose moment has come."""
    return StepOutcome(flow.awake(activity.spot()))


def listen(activity: Activity) -> StepOutcome:
    """Take the event if it has been sent already, else begin to wait for it."""
    # The mailbox is read together with its mark, and the commit holds only if the mark is still the same. So a sender
    # that comes in between is never missed.
    entries = activity.store.mail(activity.header.run_id, _wait(activity).event)
    plan, mail = attempt_commands.await_event(activity.spot(), entries)
    return StepOutcome(plan, Writes(mail=mail))


def hear(activity: Activity) -> StepOutcome:
    """Go on with the event, which has come."""
    return StepOutcome(flow.heard(activity.spot(), activity.record.resume))


def expire(activity: Activity) -> StepOutcome:
    """Fail a wait whose event has not come in time, and take its waiter out of the mailbox."""
    node, key = _wait(activity), f"{activity.record.token}!"
    error = TimeoutError(f"no event {node.event!r} came within {node.timeout} s")
    text = encode_error(error, activity.services.settings.max_payload_bytes)
    plan, mail = attempt_commands.time_out_event(activity.spot(), key)
    return StepOutcome(plan, Writes({key: text}, mail=mail))


def _wait(activity: Activity) -> Wait:
    node = activity.spot().node
    assert isinstance(node, Wait)
    return node


def _call(callback: Callback, context: Context[Any]) -> Any:
    return settled(callback.call(context.input, context))


CONTROLS: dict[Phase, Callable[[Activity], StepOutcome]] = {
    Phase.ENTER: enter,
    Phase.CHOOSE: choose,
    Phase.SPLIT: split,
    Phase.CHECK: check,
    Phase.JOIN: join,
    Phase.NAP: nap,
    Phase.WAKE: wake,
    Phase.LISTEN: listen,
    Phase.HEAR: hear,
    Phase.EXPIRE: expire,
}
