"""What follows from an outcome: every decision where a run goes next.

Each function takes what the claim of one activation knows (a `ClaimedNode`) and what came of it, and returns the `Plan` of its
commit. Nothing here reads a store: whatever hangs on siblings is written as a counter and its consequence.

The walk is the same everywhere. `plan.begin_node` says what starting a node means; `_leave` climbs from a node that has
ended to whatever its surroundings do next: the next entry of a flow, the condition of a loop, the join of a block,
the end of a nested workflow, the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from orchestrator.rules import values
from orchestrator.rules.change import (
    CancelPendingItems,
    CountDown,
    CreateActivation,
    Doc,
    EmitProgress,
    Op,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Wait
from orchestrator.rules.model import (
    Activation,
    ActivationStatus,
    Phase,
    Role,
    RunHeader,
    StoredStatus,
    belongs,
    format_path,
    visits,
)
from orchestrator.rules.pending_resumes import parse_pending_resumes
from orchestrator.rules.plan import (
    MAX_NEEDS,
    Admission,
    ClaimedNode,
    Done,
    Failed,
    Plan,
    Result,
    begin_items,
    begin_node,
    item_template,
    items_prefix,
    new_activation,
    root_activation,
)

# --- beginning -------------------------------------------------------------------------------------------------------


def start(graph: Graph, header: RunHeader, input_id: str) -> Plan:
    """The run begins with the value `input_id`."""
    plan = Plan(graph, "", header.quiet, Admission.ONE if header.per_step else Admission.ALL)
    plan.ops.append(CreateActivation(root_activation(graph)))
    plan.ops.append(UpdateRun({"status": StoredStatus.RUNNING.value, "input": input_id, "per_step": header.per_step}))
    plan.events.append({"type": "workflow-start", "input": input_id})
    begin_node(plan, graph.flow[0], (0,), (), Done(input_id))
    return plan.end()


def _plan(claim: ClaimedNode) -> Plan:
    gate = Admission.ALL
    if claim.header.per_step:
        first = claim.activation.phase in (
            Phase.EVALUATE_BRANCH,
            Phase.FAN_OUT,
            Phase.VALIDATE_INPUT,
            Phase.EVALUATE_LOOP,
        )
        gate = Admission.ONE if first else Admission.NONE
    inline = claim.activation.route if claim.inline and not claim.header.per_step else ""
    header = claim.header
    return Plan(
        claim.graph,
        # Under the time limit of a step nothing else runs, be it a condition: it goes into the queue.
        "" if claim.activation.where.has_limit else claim.token,
        header.quiet,
        gate,
        header.generation,
        inline,
        parse_pending_resumes(header.pending_resumes),
    )


# --- ending ----------------------------------------------------------------------------------------------------------


def on_result(claim: ClaimedNode, result: Result) -> Plan:
    """The activation has ended for good."""
    plan = _plan(claim)
    return _on_result(plan, claim, result)


def _on_result(plan: Plan, claim: ClaimedNode, result: Result) -> Plan:
    plan.record_result(claim.activation, result)
    if isinstance(result, Failed) and not claim.graph.tolerated(claim.path):
        plan.ops.append(UpdateRun({"failure": result.error, "tripwire": result.tripwire}, unless="failure"))
    _leave(plan, claim.path, visits(claim.activation), result, claim.activation)
    return plan.end()


def _leave(plan: Plan, path: Path, visit: Path, result: Result, child: Activation) -> None:
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
            needs = " ".join(result.needs[:MAX_NEEDS])
            fields = {
                "phase": Phase.EVALUATE_LOOP.value,
                "input": result.output,
                "needs": needs,
                "iteration": visit[-1],
            }
            plan.ops.append(_gated(plan, plan.reopen_block(format_path(above), fields)))
        case Loop():
            _leave_outer(plan, around, above, visit[:-1], result)
        case Wait():
            _leave_outer(plan, around, above, visit, result)
        case Parallel() | Branch():
            join = plan.reopen_block(format_path(above), {"phase": Phase.JOIN.value})
            plan.ops.append(CountDown(format_path(above), join))
        case Foreach():
            _leave_item(plan, around, above, visit, result, child)
        case _:
            raise ValueError(f"{around} has no children")


def _gated(plan: Plan, check: UpdateActivation) -> UpdateActivation:
    if plan.admission is not Admission.NONE:
        return check
    return replace(check, fields={**check.fields, "status": ActivationStatus.PAUSED.value}, claim="")


def _leave_outer(plan: Plan, node: Node, path: Path, visit: Path, result: Result) -> None:
    """A nested workflow, loop or wait ends with what its child ended with."""
    role = _role(plan.graph, path)
    activation = new_activation(plan, node, path, visit, Done(""), role)
    plan.record_result(activation, result)
    _leave(plan, path, visit, result, activation)


def _role(graph: Graph, path: Path) -> Role:
    above = path[:-1]
    return Role.ITEM if above and isinstance(graph.node(above), Foreach) else Role.STEP


def _leave_item(plan: Plan, node: Foreach, path: Path, visit: Path, result: Result, child: Activation) -> None:
    where = format_path(path)
    good = isinstance(result, Done)
    event: Doc | None = None
    if not plan.quiet:
        event = _progress(where, node, child, "success" if good else "failed")
        event |= {"output": result.output} if isinstance(result, Done) else {}
    join = plan.reopen_block(where, {"phase": Phase.JOIN.value})
    plan.ops.append(_next(plan, node, path, visit) if good else CancelPendingItems(where))
    plan.ops.append(CountDown(where, join, event))


def _progress(where: str, node: Foreach, item: Activation, status: str) -> Doc:
    """The event about an item of the foreach at `where`; it still wants the counts."""
    index = int(item.path.rsplit(".", 1)[1])
    about = {"path": where, "visit": item.visit, "step": node.body_node.id, "index": index}
    return {"type": "workflow-step-progress", **about, "status": status}


def _next(plan: Plan, node: Foreach, path: Path, visit: Path) -> StartNextItem:
    """The item that takes a free place.

    A nested workflow enters by an activation of its own: its place is not known yet.
    """
    return StartNextItem(
        format_path(path),
        item_template(plan, node, path, visit),
        items_prefix(format_path(path), format_path(visit), plan.generation),
    )


def _outcome(result: Result) -> UpdateRun:
    match result:
        case Done(output=output):
            return UpdateRun({"outcome": StoredStatus.SUCCESS.value, "output": output})
        case Failed(error=error, tripwire=tripwire):
            state = StoredStatus.TRIPWIRE if tripwire else StoredStatus.FAILED
            return UpdateRun({"outcome": state.value, "error": error, "tripwire": tripwire})
        case _:
            assert_never(result)


# --- steps that do not end -------------------------------------------------------------------------------------------


def retry(claim: ClaimedNode, delay: int) -> Plan:
    """The attempt failed and another follows after `delay` milliseconds."""
    plan = _plan(claim)
    fields = {"status": ActivationStatus.RETRYING.value, "attempt": claim.activation.attempt + 1}
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=delay))
    return plan


def suspend(claim: ClaimedNode, payload: str, label: str) -> Plan:
    """The step holds the run up until somebody resumes it. It stays unfinished; nothing is reported upward."""
    plan = _plan(claim)
    fields = {
        "status": ActivationStatus.SUSPENDED.value,
        "suspend": payload,
        "label": label,
        "resume": "",
        "resumed": False,
    }
    plan.ops.append(UpdateActivation(claim.activation.path, {**fields, "restarted": False}))
    around = claim.graph.node(claim.path[:-1]) if len(claim.path) > 1 else None
    if not isinstance(around, Foreach):
        plan.emit("workflow-step-suspended", claim.activation, input=claim.activation.input, suspend=payload)
    elif not plan.quiet:  # an item tells nothing else of itself, but somebody has to know whom to resume
        item, where = replace(claim.activation, quiet=False), format_path(claim.path[:-1])
        plan.emit("workflow-step-suspended", item, input=item.input, suspend=payload, index=item.index)
        plan.ops.append(EmitProgress(where, _progress(where, around, item, "suspended")))
    return plan


def bail(claim: ClaimedNode, output: str) -> Plan:
    """The step ends, and the whole run with it, well, and with this value."""
    plan = _plan(claim)
    plan.record_result(claim.activation, Done(output))
    plan.ops.append(UpdateRun({"outcome": StoredStatus.SUCCESS.value, "output": output, "closed": True}))
    plan.settle_now = True
    return plan


def abort(claim: ClaimedNode) -> Plan:
    """The step ends the whole run as canceled, whatever it returned."""
    plan = _plan(claim)
    plan.ops.append(UpdateActivation(claim.activation.path, {"status": ActivationStatus.CANCELED.value}))
    plan.ops.append(UpdateRun({"outcome": StoredStatus.CANCELED.value, "closed": True}))
    plan.settle_now = True
    return plan


# --- control activations ---------------------------------------------------------------------------------------------


def on_input_valid(claim: ClaimedNode, given: Done) -> Plan:
    """The input of a nested workflow is fit; its first entry starts with it."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Nested):
        raise TypeError(f"{claim.activation.path} is not a nested workflow")
    plan.ops.append(
        UpdateActivation(claim.activation.path, {"status": ActivationStatus.OPEN.value, "input": given.output})
    )
    begin_node(plan, node.flow[0], (*claim.path, 0), visits(claim.activation), given)
    return plan.end()


def on_branch_chosen(claim: ClaimedNode, arms: Sequence[int]) -> Plan:
    """The conditions of a branch have been evaluated: these arms run. None at all is a success with an empty dict."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Branch):
        raise TypeError(f"{claim.activation.path} is not a branch")
    if not arms:
        return _on_result(plan, claim, _made(plan, claim, values.EMPTY_DICT))
    count = len(arms)
    fields = {"status": ActivationStatus.OPEN.value, "pending_children": count, "total": count, "next_item": count}
    plan.ops.append(UpdateActivation(claim.activation.path, fields))
    for index in arms:
        begin_node(plan, node.arms[index], (*claim.path, index), visits(claim.activation), _given(claim))
    return plan.end()


def on_loop_checked(claim: ClaimedNode, holds: bool) -> Plan:
    """The condition of a loop has been evaluated on the body's output."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Loop):
        raise TypeError(f"{claim.activation.path} is not a loop")
    if holds is node.until:
        return _on_result(plan, claim, _given(claim))
    following = claim.activation.iteration + 1
    plan.ops.append(
        UpdateActivation(claim.activation.path, {"status": ActivationStatus.OPEN.value, "iteration": following})
    )
    begin_node(plan, node.body_node, (*claim.path, 0), (*visits(claim.activation), following), _given(claim))
    return plan.end()


def on_items(claim: ClaimedNode, count: int, concurrency: int) -> Plan:
    """The input of a foreach has `count` items, whose values are written under `items_prefix`."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Foreach):
        raise TypeError(f"{claim.activation.path} is not a foreach")
    if not count:
        return _on_result(plan, claim, _made(plan, claim, values.EMPTY_LIST))
    progress = plan.pending_resumes.progress(claim.activation.path, claim.activation.visit, count)
    fields = {
        "pending_children": progress.pending_children,
        "total": count,
        "next_item": progress.begun,
        "concurrency": concurrency,
    }
    plan.ops.append(UpdateActivation(claim.activation.path, {"status": ActivationStatus.OPEN.value, **fields}))
    begin_items(plan, node, claim.path, visits(claim.activation), progress, concurrency)
    return plan


def on_children_done(claim: ClaimedNode, children: Sequence[Activation]) -> Plan:
    """All children of a block have ended.

    `children` are the activations at its places, in order, as far as there are any.
    """
    plan = _plan(claim)
    mine = [child for child in children if belongs(child, claim.activation) and child.status in _JOINS]
    node = claim.node
    tolerant = isinstance(node, Parallel) and node.allow_failure
    for child in mine:
        if child.status == ActivationStatus.FAILED and not tolerant:
            return _on_result(plan, claim, Failed(child.error, child.tripwire))
    refs = [child.output if child.status == ActivationStatus.SUCCESS else "" for child in mine]
    if isinstance(node, Foreach):
        text = values.refers_list(refs)
    else:
        text = values.refers_dict({child.step: ref for child, ref in zip(mine, refs, strict=True)})
    return _on_result(plan, claim, _made(plan, claim, text, tuple(filter(None, refs))))


_JOINS = frozenset({ActivationStatus.SUCCESS, ActivationStatus.FAILED})


def on_sleep_computed(claim: ClaimedNode, seconds: float) -> Plan:
    """A computed sleep has been computed."""
    plan = _plan(claim)
    fields = {"status": ActivationStatus.SLEEPING.value, "phase": Phase.SLEEP_OVER.value}
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=round(max(seconds, 0.0) * 1000)))
    plan.emit("workflow-step-waiting", claim.activation, input=claim.activation.input)
    return plan


def on_sleep_over(claim: ClaimedNode) -> Plan:
    """The moment of a sleep has come: its input is its output."""
    return on_result(claim, _given(claim))


WAITER = "?"  # what the entries of waiters in a mailbox begin with


def waiter(activation: Activation) -> str:
    """The entry of a waiter in the mailbox of its event."""
    return f"{WAITER}{activation.path}#{activation.lease_token}"


def waiter_path(entry: str) -> str:
    """The path of the waiter that `waiter` wrote."""
    return entry[len(WAITER) :].partition("#")[0]


def on_await(claim: ClaimedNode) -> Plan:
    """Nothing has been sent yet: the run waits, holding nothing, until an event comes or the time is over."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Wait):
        raise TypeError(f"{claim.activation.path} is not a wait")
    fields = {"status": ActivationStatus.WAITING.value, "label": waiter(claim.activation)}
    delay = 0 if node.timeout is None else max(1, round(node.timeout * 1000))  # 0 would mean that it has no end
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=delay))
    plan.emit("workflow-step-waiting", claim.activation, input=claim.activation.input)
    return plan


def on_event(claim: ClaimedNode, value: str) -> Plan:
    """The event has come with this value, which is the wait's output."""
    return on_result(claim, Done(value))


def on_timeout(claim: ClaimedNode, error: str) -> Plan:
    """The event has not come in time: what the workflow has for that runs, or the wait has failed with `error`."""
    node = claim.node
    if not isinstance(node, Wait):
        raise TypeError(f"{claim.activation.path} is not a wait")
    if node.otherwise is None:
        return on_result(claim, Failed(error))
    plan = _plan(claim)
    plan.ops.append(UpdateActivation(claim.activation.path, {"status": ActivationStatus.OPEN.value}))
    begin_node(plan, node.otherwise, (*claim.path, 0), visits(claim.activation), _given(claim))
    return plan.end()


def deliver_event(activation: Activation, value: str) -> list[Op]:
    """The waiting activation has its event."""
    fields = {
        "status": ActivationStatus.QUEUED.value,
        "phase": Phase.EVENT_RECEIVED.value,
        "resume": value,
        "attempt": 0,
    }
    return [*reopen_run(), UpdateActivation(activation.path, fields)]


def time_out_wait(activation: Activation) -> list[Op]:
    """The waiting activation's time is over."""
    fields = {"status": ActivationStatus.QUEUED.value, "phase": Phase.EVENT_TIMEOUT.value, "attempt": 0}
    return [*reopen_run(), UpdateActivation(activation.path, fields)]


def reopen_run() -> list[Op]:
    """A run at rest, or about to rest, goes on."""
    return [
        UpdateActivation("", {"status": ActivationStatus.OPEN.value}),
        UpdateRun({"status": StoredStatus.RUNNING.value}),
    ]


def _given(claim: ClaimedNode) -> Done:
    return Done(claim.activation.input, tuple(claim.activation.needs.split()))


def _made(plan: Plan, claim: ClaimedNode, text: str, needs: tuple[str, ...] = ()) -> Done:
    plan.values[claim.activation.lease_token] = text
    return Done(claim.activation.lease_token, needs)


# --- rest ------------------------------------------------------------------------------------------------------------


def settled_status(header: RunHeader) -> StoredStatus:
    """What a run in which nothing is live has come to: a failure that nothing can catch outranks a suspension."""
    if header.outcome:
        return StoredStatus(header.outcome)
    if header.failure:
        return StoredStatus.TRIPWIRE if header.tripwire else StoredStatus.FAILED
    if header.suspended or header.waiting:
        return StoredStatus.SUSPENDED
    if header.paused:
        return StoredStatus.PAUSED
    raise ValueError(f"run {header.run_id} is at rest with nothing held and no outcome")


def on_settled(claim: ClaimedNode) -> Plan:
    """The run as a whole has come to rest; hooks and delivery are done."""
    header, plan = claim.header, Plan(claim.graph, "")
    state = settled_status(header)
    error = header.error or header.failure
    fields = {"status": state.value, "settle_count": header.settle_count + 1, "error": error if state in _BAD else ""}
    plan.ops.append(UpdateActivation("", {"status": ActivationStatus.OPEN.value}))
    plan.ops.append(UpdateRun(fields))
    plan.events.extend(settled_events(state, header.settle_count + 1))
    return plan


_BAD = frozenset({StoredStatus.FAILED, StoredStatus.TRIPWIRE})


def settled_events(state: StoredStatus, rest: int) -> list[Doc]:
    """The events that tell of a rest. `rest` is its number: a reader who waits for that one knows it by it."""
    words: list[Doc] = []
    if state is StoredStatus.PAUSED:
        words.append({"type": "workflow-paused"})
    if state is StoredStatus.CANCELED:
        words.append({"type": "workflow-canceled"})
    return [*words, {"type": "workflow-finish", "status": state.value, "rest": rest}]


# --- callers ---------------------------------------------------------------------------------------------------------


def resume(activation: Activation, data: str) -> list[Op]:
    """The suspended activation goes on with the value `data`, from the top, with its own input."""
    fields = {"status": ActivationStatus.QUEUED.value, "resume": data, "resumed": True, "attempt": 0}
    return [*reopen_run(), UpdateActivation(activation.path, fields)]
