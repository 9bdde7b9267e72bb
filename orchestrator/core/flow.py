"""What follows from an outcome: every decision where a run goes next.

Each function takes what the claim of one activation knows (a `Spot`) and what came of it, and returns the `Plan` of its
commit. Nothing here reads a store: whatever hangs on siblings is written as a counter and its consequence.

The walk is the same everywhere. `plan.begin_node` says what starting a node means; `_leave` climbs from a node that has
ended to whatever its surroundings do next: the next entry of a flow, the condition of a loop, the join of a block,
the end of a nested workflow, the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from orchestrator.core import values
from orchestrator.core.changes import Doc, Down, Next, Op, Put, Run, Set, Shut, Tell
from orchestrator.core.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Wait
from orchestrator.core.plan import (
    MOST_NEEDS,
    Done,
    Failed,
    Gate,
    Plan,
    Result,
    Spot,
    begin_items,
    begin_node,
    item_template,
    items_prefix,
    new_record,
    root_record,
)
from orchestrator.core.promises import promised
from orchestrator.core.records import Header, Phase, Record, Role, RunState, Status, belongs, dotted, visits

# --- beginning -------------------------------------------------------------------------------------------------------


def start(graph: Graph, header: Header, input_id: str) -> Plan:
    """The run begins with the value `input_id`."""
    plan = Plan(graph, "", header.quiet, Gate.FIRST if header.per_step else Gate.OPEN)
    plan.ops.append(Put(root_record(graph)))
    plan.ops.append(Run({"status": RunState.RUNNING.value, "input": input_id, "per_step": header.per_step}))
    plan.events.append({"type": "workflow-start", "input": input_id})
    begin_node(plan, graph.flow[0], (0,), (), Done(input_id))
    return plan.end()


def _plan(spot: Spot) -> Plan:
    gate = Gate.OPEN
    if spot.header.per_step:
        first = spot.record.phase in (Phase.CHOOSE, Phase.SPLIT, Phase.ENTER, Phase.CHECK)
        gate = Gate.FIRST if first else Gate.SHUT
    inline = spot.record.route if spot.inline and not spot.header.per_step else ""
    header = spot.header
    return Plan(spot.graph, spot.token, header.quiet, gate, header.life, inline, promised(header.promises))


# --- ending ----------------------------------------------------------------------------------------------------------


def finish(spot: Spot, result: Result) -> Plan:
    """The activation has ended for good."""
    plan = _plan(spot)
    return _finish(plan, spot, result)


def _finish(plan: Plan, spot: Spot, result: Result) -> Plan:
    plan.settle(spot.record, result)
    if isinstance(result, Failed) and not spot.graph.tolerated(spot.path):
        plan.ops.append(Run({"failure": result.error, "tripwire": result.tripwire}, unless="failure"))
    _leave(plan, spot.path, visits(spot.record), result, spot.record)
    return plan.end()


def _leave(plan: Plan, path: Path, visit: Path, result: Result, child: Record) -> None:
    """The node at `path` has ended with `result`: what do its surroundings do next?"""
    above, index = path[:-1], path[-1]
    around = plan.graph.node(above) if above else None
    match around:
        case None | Nested():
            flow = plan.graph.entries(above)
            if isinstance(result, Done) and index + 1 < len(flow):
                begin_node(plan, flow[index + 1], (*above, index + 1), visit, result)
            elif around is None:
                plan.ops.append(_outcome(result))
            else:
                _leave_outer(plan, around, above, visit, result)
        case Loop() if isinstance(result, Done):
            needs = " ".join(result.needs[:MOST_NEEDS])
            fields = {"phase": Phase.CHECK.value, "input": result.output, "needs": needs, "iteration": visit[-1]}
            plan.ops.append(_gated(plan, plan.control(dotted(above), fields)))
        case Loop():
            _leave_outer(plan, around, above, visit[:-1], result)
        case Wait():
            _leave_outer(plan, around, above, visit, result)
        case Parallel() | Branch():
            join = plan.control(dotted(above), {"phase": Phase.JOIN.value})
            plan.ops.append(Down(dotted(above), join))
        case Foreach():
            _leave_item(plan, around, above, visit, result, child)
        case _:
            raise ValueError(f"{around} has no children")


def _gated(plan: Plan, check: Set) -> Set:
    if plan.gate is not Gate.SHUT:
        return check
    return replace(check, fields={**check.fields, "status": Status.PAUSED.value}, claim="")


def _leave_outer(plan: Plan, node: Node, path: Path, visit: Path, result: Result) -> None:
    """A nested workflow, loop or wait ends with what its child ended with."""
    role = _role(plan.graph, path)
    record = new_record(plan, node, path, visit, Done(""), role)
    plan.settle(record, result)
    _leave(plan, path, visit, result, record)


def _role(graph: Graph, path: Path) -> Role:
    above = path[:-1]
    return Role.ITEM if above and isinstance(graph.node(above), Foreach) else Role.STEP


def _leave_item(plan: Plan, node: Foreach, path: Path, visit: Path, result: Result, child: Record) -> None:
    where = dotted(path)
    good = isinstance(result, Done)
    event: Doc | None = None
    if not plan.quiet:
        event = _progress(where, node, child, "success" if good else "failed")
        event |= {"output": result.output} if isinstance(result, Done) else {}
    join = plan.control(where, {"phase": Phase.JOIN.value})
    plan.ops.append(_next(plan, node, path, visit) if good else Shut(where))
    plan.ops.append(Down(where, join, event))


def _progress(where: str, node: Foreach, item: Record, status: str) -> Doc:
    """The event about an item of the foreach at `where`; it still wants the counts."""
    index = int(item.path.rsplit(".", 1)[1])
    about = {"path": where, "visit": item.visit, "step": node.body_node.id, "index": index}
    return {"type": "workflow-step-progress", **about, "status": status}


def _next(plan: Plan, node: Foreach, path: Path, visit: Path) -> Next:
    """The item that takes a free place.

    A nested workflow enters by an activation of its own: its place is not known yet.
    """
    return Next(
        dotted(path), item_template(plan, node, path, visit), items_prefix(dotted(path), dotted(visit), plan.life)
    )


def _outcome(result: Result) -> Run:
    match result:
        case Done(output=output):
            return Run({"outcome": RunState.SUCCESS.value, "output": output})
        case Failed(error=error, tripwire=tripwire):
            state = RunState.TRIPWIRE if tripwire else RunState.FAILED
            return Run({"outcome": state.value, "error": error, "tripwire": tripwire})
        case _:
            assert_never(result)


# --- steps that do not end -------------------------------------------------------------------------------------------


def retry(spot: Spot, delay: int) -> Plan:
    """The attempt failed and another follows after `delay` milliseconds."""
    plan = _plan(spot)
    fields = {"status": Status.RETRYING.value, "attempt": spot.record.attempt + 1}
    plan.ops.append(Set(spot.record.path, fields, delay=delay))
    return plan


def suspend(spot: Spot, payload: str, label: str) -> Plan:
    """The step holds the run up until somebody resumes it. It stays unfinished; nothing is reported upward."""
    plan = _plan(spot)
    fields = {"status": Status.SUSPENDED.value, "suspend": payload, "label": label, "resume": "", "resumed": False}
    plan.ops.append(Set(spot.record.path, {**fields, "restarted": False}))
    around = spot.graph.node(spot.path[:-1]) if len(spot.path) > 1 else None
    if not isinstance(around, Foreach):
        plan.tell("workflow-step-suspended", spot.record, input=spot.record.input, suspend=payload)
    elif not plan.quiet:  # an item tells nothing else of itself, but somebody has to know whom to resume
        item, where = replace(spot.record, quiet=False), dotted(spot.path[:-1])
        plan.tell("workflow-step-suspended", item, input=item.input, suspend=payload, index=item.index)
        plan.ops.append(Tell(where, _progress(where, around, item, "suspended")))
    return plan


def bail(spot: Spot, output: str) -> Plan:
    """The step ends, and the whole run with it, well, and with this value."""
    plan = _plan(spot)
    plan.settle(spot.record, Done(output))
    plan.ops.append(Run({"outcome": RunState.SUCCESS.value, "output": output, "closed": True}))
    plan.rest_now = True
    return plan


def abort(spot: Spot) -> Plan:
    """The step ends the whole run as canceled, whatever it returned."""
    plan = _plan(spot)
    plan.ops.append(Set(spot.record.path, {"status": Status.CANCELED.value}))
    plan.ops.append(Run({"outcome": RunState.CANCELED.value, "closed": True}))
    plan.rest_now = True
    return plan


# --- control activations ---------------------------------------------------------------------------------------------


def entered(spot: Spot, given: Done) -> Plan:
    """The input of a nested workflow is fit; its first entry starts with it."""
    plan = _plan(spot)
    node = spot.node
    if not isinstance(node, Nested):
        raise TypeError(f"{spot.record.path} is not a nested workflow")
    plan.ops.append(Set(spot.record.path, {"status": Status.OPEN.value, "input": given.output}))
    begin_node(plan, node.flow[0], (*spot.path, 0), visits(spot.record), given)
    return plan.end()


def chosen(spot: Spot, arms: Sequence[int]) -> Plan:
    """The conditions of a branch have been evaluated: these arms run. None at all is a success with an empty dict."""
    plan = _plan(spot)
    node = spot.node
    if not isinstance(node, Branch):
        raise TypeError(f"{spot.record.path} is not a branch")
    if not arms:
        return _finish(plan, spot, _made(plan, spot, values.EMPTY_DICT))
    count = len(arms)
    fields = {"status": Status.OPEN.value, "left": count, "total": count, "next": count}
    plan.ops.append(Set(spot.record.path, fields))
    for index in arms:
        begin_node(plan, node.arms[index], (*spot.path, index), visits(spot.record), _given(spot))
    return plan.end()


def checked(spot: Spot, holds: bool) -> Plan:
    """The condition of a loop has been evaluated on the body's output."""
    plan = _plan(spot)
    node = spot.node
    if not isinstance(node, Loop):
        raise TypeError(f"{spot.record.path} is not a loop")
    if holds is node.until:
        return _finish(plan, spot, _given(spot))
    following = spot.record.iteration + 1
    plan.ops.append(Set(spot.record.path, {"status": Status.OPEN.value, "iteration": following}))
    begin_node(plan, node.body_node, (*spot.path, 0), (*visits(spot.record), following), _given(spot))
    return plan.end()


def split(spot: Spot, count: int, concurrency: int) -> Plan:
    """The input of a foreach has `count` items, whose values are written under `items_prefix`."""
    plan = _plan(spot)
    node = spot.node
    if not isinstance(node, Foreach):
        raise TypeError(f"{spot.record.path} is not a foreach")
    if not count:
        return _finish(plan, spot, _made(plan, spot, values.EMPTY_LIST))
    progress = plan.promises.progress(spot.record.path, spot.record.visit, count)
    fields = {"left": progress.left, "total": count, "next": progress.begun, "width": concurrency}
    plan.ops.append(Set(spot.record.path, {"status": Status.OPEN.value, **fields}))
    begin_items(plan, node, spot.path, visits(spot.record), progress, concurrency)
    return plan


def joined(spot: Spot, children: Sequence[Record]) -> Plan:
    """All children of a block have ended.

    `children` are the records at its places, in order, as far as there are any.
    """
    plan = _plan(spot)
    mine = [child for child in children if belongs(child, spot.record) and child.status in _JOINS]
    node = spot.node
    tolerant = isinstance(node, Parallel) and node.allow_failure
    for child in mine:
        if child.status == Status.FAILED and not tolerant:
            return _finish(plan, spot, Failed(child.error, child.tripwire))
    refs = [child.output if child.status == Status.SUCCESS else "" for child in mine]
    if isinstance(node, Foreach):
        text = values.refers_list(refs)
    else:
        text = values.refers_dict({child.step: ref for child, ref in zip(mine, refs, strict=True)})
    return _finish(plan, spot, _made(plan, spot, text, tuple(filter(None, refs))))


_JOINS = frozenset({Status.SUCCESS, Status.FAILED})


def asleep(spot: Spot, seconds: float) -> Plan:
    """A computed sleep has been computed."""
    plan = _plan(spot)
    fields = {"status": Status.SLEEPING.value, "phase": Phase.WAKE.value}
    plan.ops.append(Set(spot.record.path, fields, delay=round(max(seconds, 0.0) * 1000)))
    plan.tell("workflow-step-waiting", spot.record, input=spot.record.input)
    return plan


def awake(spot: Spot) -> Plan:
    """The moment of a sleep has come: its input is its output."""
    return finish(spot, _given(spot))


WAITER = "?"  # what the entries of waiters in a mailbox begin with


def waiter(record: Record) -> str:
    """The entry of a waiter in the mailbox of its event."""
    return f"{WAITER}{record.path}#{record.token}"


def waiter_path(entry: str) -> str:
    """The path of the waiter that `waiter` wrote."""
    return entry[len(WAITER) :].partition("#")[0]


def listening(spot: Spot) -> Plan:
    """Nothing has been sent yet: the run waits, holding nothing, until an event comes or the time is over."""
    plan = _plan(spot)
    node = spot.node
    if not isinstance(node, Wait):
        raise TypeError(f"{spot.record.path} is not a wait")
    fields = {"status": Status.WAITING.value, "label": waiter(spot.record)}
    delay = 0 if node.timeout is None else max(1, round(node.timeout * 1000))  # 0 would mean that it has no end
    plan.ops.append(Set(spot.record.path, fields, delay=delay))
    plan.tell("workflow-step-waiting", spot.record, input=spot.record.input)
    return plan


def heard(spot: Spot, value: str) -> Plan:
    """The event has come with this value, which is the wait's output."""
    return finish(spot, Done(value))


def expired(spot: Spot, error: str) -> Plan:
    """The event has not come in time: what the workflow has for that runs, or the wait has failed with `error`."""
    node = spot.node
    if not isinstance(node, Wait):
        raise TypeError(f"{spot.record.path} is not a wait")
    if node.otherwise is None:
        return finish(spot, Failed(error))
    plan = _plan(spot)
    plan.ops.append(Set(spot.record.path, {"status": Status.OPEN.value}))
    begin_node(plan, node.otherwise, (*spot.path, 0), visits(spot.record), _given(spot))
    return plan.end()


def deliver(record: Record, value: str) -> list[Op]:
    """The waiting record has its event."""
    fields = {"status": Status.QUEUED.value, "phase": Phase.HEAR.value, "resume": value, "attempt": 0}
    return [*wake_run(), Set(record.path, fields)]


def overdue(record: Record) -> list[Op]:
    """The waiting record's time is over."""
    fields = {"status": Status.QUEUED.value, "phase": Phase.EXPIRE.value, "attempt": 0}
    return [*wake_run(), Set(record.path, fields)]


def wake_run() -> list[Op]:
    """A run at rest, or about to rest, goes on."""
    return [Set("", {"status": Status.OPEN.value}), Run({"status": RunState.RUNNING.value})]


def _given(spot: Spot) -> Done:
    return Done(spot.record.input, tuple(spot.record.needs.split()))


def _made(plan: Plan, spot: Spot, text: str, needs: tuple[str, ...] = ()) -> Done:
    plan.values[spot.record.token] = text
    return Done(spot.record.token, needs)


# --- rest ------------------------------------------------------------------------------------------------------------


def verdict(header: Header) -> RunState:
    """What a run in which nothing is live has come to: a failure that nothing can catch outranks a suspension."""
    if header.outcome:
        return RunState(header.outcome)
    if header.failure:
        return RunState.TRIPWIRE if header.tripwire else RunState.FAILED
    if header.suspended or header.waiting:
        return RunState.SUSPENDED
    if header.paused:
        return RunState.PAUSED
    raise ValueError(f"run {header.run_id} is at rest with nothing held and no outcome")


def rested(spot: Spot) -> Plan:
    """The run as a whole has come to rest; hooks and delivery are done."""
    header, plan = spot.header, Plan(spot.graph, "")
    state = verdict(header)
    error = header.error or header.failure
    fields = {"status": state.value, "rests": header.rests + 1, "error": error if state in _BAD else ""}
    plan.ops.append(Set("", {"status": Status.OPEN.value}))
    plan.ops.append(Run(fields))
    plan.events.extend(last_words(state, header.rests + 1))
    return plan


_BAD = frozenset({RunState.FAILED, RunState.TRIPWIRE})


def last_words(state: RunState, rest: int) -> list[Doc]:
    """The events that tell of a rest. `rest` is its number: a reader who waits for that one knows it by it."""
    words: list[Doc] = []
    if state is RunState.PAUSED:
        words.append({"type": "workflow-paused"})
    if state is RunState.CANCELED:
        words.append({"type": "workflow-canceled"})
    return [*words, {"type": "workflow-finish", "status": state.value, "rest": rest}]


# --- callers ---------------------------------------------------------------------------------------------------------


def resume(record: Record, data: str) -> list[Op]:
    """The suspended record goes on with the value `data`, from the top, with its own input."""
    fields = {"status": Status.QUEUED.value, "resume": data, "resumed": True, "attempt": 0}
    return [*wake_run(), Set(record.path, fields)]
