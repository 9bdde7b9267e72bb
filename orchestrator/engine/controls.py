"""Control activations: what evaluates conditions, spreads items, gathers children and computes sleeps.

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
from orchestrator.definitions.bodies import BranchBody, Callback, ForeachBody, LoopBody, NestedBody, SleepBody
from orchestrator.definitions.context import Context
from orchestrator.engine.activity import Activity
from orchestrator.engine.calling import Canceled, Outcome, Raised, Returned, outcome_of, settled
from orchestrator.engine.reading import stored_error
from orchestrator.engine.steps import Followed, Written, failed
from orchestrator.errors import InputInvalid, OrchestratorError, StoreUnavailable

_PAGE = 500


def _body(activity: Activity) -> Any:
    return getattr(activity.spot().node, "body", None)


def _evaluate(activity: Activity, work: Callable[[Context[Any]], Any], then: Callable[[Any], Plan]) -> Followed:
    """Run user code that decides something; what it writes into the request context is kept."""
    try:
        context = activity.context(activity.given(_body(activity).given))
        outcome: Outcome = outcome_of(lambda: work(context), context)
        match outcome:
            case Returned(value=value):
                return then(value), Written(context=activity.context_patch(context.request_context))
            case Canceled():
                return flow.abort(activity.spot()), Written()
            case Raised(error=error) if error is activity.cut_off:
                raise error
            case Raised(error=error):
                return failed(activity, error)
            case _:
                text = f"{activity.record.step}: a condition or computed setting can neither suspend nor bail"
                return failed(activity, OrchestratorError(text))
    except StoreUnavailable:
        raise  # nobody's decision: the lease is over, and somebody else decides
    except OrchestratorError as error:
        return failed(activity, error)


def choose(activity: Activity) -> Followed:
    """Evaluate the conditions of a branch: every arm whose condition holds runs."""
    body: BranchBody = _body(activity)

    def work(context: Context[Any]) -> list[int]:
        watch = activity.watch
        ask = [partial(_call, condition, context) for condition in body.conditions]
        return [index for index, condition in enumerate(ask) if watch.condition(condition, index)]

    def then(arms: list[int]) -> Plan:
        return flow.chosen(activity.spot(), arms[:1] if activity.header.per_step else arms)

    return _evaluate(activity, work, then)


def check(activity: Activity) -> Followed:
    """Evaluate the condition of a loop on what its body made."""
    body: LoopBody = _body(activity)

    def work(context: Context[Any]) -> bool:
        return bool(activity.watch.condition(lambda: _call(body.condition, context)))

    return _evaluate(activity, work, lambda holds: flow.checked(activity.spot(), holds))


def split(activity: Activity) -> Followed:
    """Write each item of the list under an id of its own, so that no item ever reads the whole list."""
    node = activity.spot().node
    assert isinstance(node, Foreach)
    items = activity.values.plain(activity.record.input)
    if not isinstance(items, list):
        text = f"foreach {activity.record.step!r} needs a list as its input, not {type(items).__name__}"
        return failed(activity, TypeError(text))
    body: ForeachBody = _body(activity)

    def work(context: Context[Any]) -> int:
        width = node.concurrency if body.concurrency is None else _call(body.concurrency, context)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise ValueError(f"concurrency of foreach {activity.record.step!r} must be 1 or more, not {width!r}")
        return width

    followed = _evaluate(activity, work, lambda width: flow.split(activity.spot(), len(items), width))
    _write_items(activity, items)
    return followed


def _write_items(activity: Activity, items: list[Any]) -> None:
    record, header, engine = activity.record, activity.header, activity.engine
    prefix = items_prefix(record.path, record.visit, header.life)
    for start in range(0, len(items), _PAGE):
        page = {
            f"{prefix}.{index}": texts.own(encode(item, where=f"item {index} of {record.step!r}"))
            for index, item in enumerate(items[start : start + _PAGE], start)
        }
        change = attempt_commands.write_items(record, page, engine.settings.limits)
        engine.insist(partial(activity.store.commit, header.run_id, change), engine.settings.lease_seconds)


def join(activity: Activity) -> Followed:
    """Gather the children of a block."""
    node, path = activity.spot().node, activity.record.path
    places = len(node.arms) if isinstance(node, Branch) else activity.record.total
    children = activity.load([f"{path}.{index}" for index in range(places)])
    return flow.joined(activity.spot(), children), Written()


def enter(activity: Activity) -> Followed:
    """Check the input of a nested workflow and fill in its defaults."""
    body: NestedBody = _body(activity)
    key, record = activity.record.token, activity.record
    given = Done(record.input, tuple(record.needs.split()))
    if not body.validate or body.workflow.input is None:
        return flow.entered(activity.spot(), given), Written()
    plain = activity.values.plain(record.input)
    try:
        fitted = validate(body.workflow.input, plain, header="Step input validation failed: ")
        text = activity.store_value(fitted, "input")
    except InputInvalid as error:
        return failed(activity, error)
    if text == texts.own(encode(plain)):
        return flow.entered(activity.spot(), given), Written()
    return flow.entered(activity.spot(), Done(key)), Written({key: text})


def nap(activity: Activity) -> Followed:
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
            return moment.timestamp() - activity.store.now() / 1000
        case int() | float() if not isinstance(wish, bool):
            return float(wish)
        case _:
            name = activity.record.step
            raise TypeError(f"sleep {name!r} needs seconds, a timedelta or a datetime, not {type(wish).__name__}")


def wake(activity: Activity) -> Followed:
    """The moment of a sleep has come."""
    return flow.awake(activity.spot()), Written()


def listen(activity: Activity) -> Followed:
    """Take the event if it has been sent already, else begin to wait for it."""
    entries = activity.store.mail(activity.header.run_id, _wait(activity).event)
    plan, mail = attempt_commands.await_event(activity.spot(), entries)
    return plan, Written(mail=mail)


def hear(activity: Activity) -> Followed:
    """The event has come."""
    return flow.heard(activity.spot(), activity.record.resume), Written()


def expire(activity: Activity) -> Followed:
    """The event has not come in time. Nobody is to send it here any more."""
    node, key = _wait(activity), f"{activity.record.token}!"
    error = TimeoutError(f"no event {node.event!r} came within {node.timeout} s")
    text = stored_error(error, activity.engine.settings.max_payload_bytes)
    plan, mail = attempt_commands.time_out_event(activity.spot(), key)
    return plan, Written({key: text}, mail=mail)


def _wait(activity: Activity) -> Wait:
    node = activity.spot().node
    assert isinstance(node, Wait)
    return node


def _call(callback: Callback, context: Context[Any]) -> Any:
    return settled(callback.call(context.input, context))


CONTROLS: dict[Phase, Callable[[Activity], Followed]] = {
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
