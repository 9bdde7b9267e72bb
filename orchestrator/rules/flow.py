"""The decisions where a run goes next: what follows from each outcome.

Each function takes the claim of one activation (a `ClaimedNode`) and an outcome, and returns the `Plan` of its commit.
This module must not read a store: whatever depends on siblings is written as a counter and its consequence.

The walk is the same everywhere. `plan.begin_node` starts a node. `_on_node_end` climbs from a node that has ended to
what its surroundings do next: the next entry of a flow, the condition of a loop, the join of a block, the end of a
nested workflow, the end of the run.

A join has three parts. `_on_node_end` and `_on_item_end` write the `CountDown` of the block, with the join as its
consequence. A store applies that consequence when the counter reaches zero, in the commit of the last child (`apply`).
`on_children_done` makes the block's result from its children.

The file has more than 400 lines, because whoever asks what follows from an outcome should look in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from orchestrator.rules import events, reports, sendings, values
from orchestrator.rules.bounds import to_delay
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
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Sleep, Step, Wait
from orchestrator.rules.iterations import Release
from orchestrator.rules.mailbox import make_waiter
from orchestrator.rules.model import (
    Activation,
    ActivationFields,
    ActivationStatus,
    Phase,
    Role,
    RunHeader,
    RunHeaderFields,
    StoredStatus,
    belongs,
    format_path,
    visits,
)
from orchestrator.rules.pending_resumes import Progress
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
    new_activation,
    root_activation,
    start_items,
)
from orchestrator.rules.value_ids import make_items_prefix, make_outcome_id

# --- beginning -------------------------------------------------------------------------------------------------------


def start(graph: Graph, header: RunHeader, input_id: str) -> Plan:
    """Begin the run with the value `input_id`."""
    # Without a lease token: a caller starts a run, and is no worker that could run what the commit claims.
    plan = Plan(graph, "", header.quiet, Admission.ONE if header.per_step else Admission.ALL)
    plan.ops.append(CreateActivation(root_activation(graph)))
    plan.ops.append(UpdateRun({"status": StoredStatus.RUNNING.value, "input": input_id, "per_step": header.per_step}))
    plan.events.append(events.make_workflow_start(input_id))
    begin_node(plan, graph.flow[0], (0,), (), Done(input_id))
    return plan.end()


def _plan(claim: ClaimedNode) -> Plan:
    """Begin the plan of what follows from an outcome of this claim."""
    # In a run that goes by single steps, the outcome of a step starts nothing. A control activation lets one begin: the
    # caller has resumed a block, and expects its first step to run.
    admission = Admission.ALL
    if claim.header.per_step:
        first = claim.activation.phase in (
            Phase.EVALUATE_BRANCH,
            Phase.FAN_OUT,
            Phase.VALIDATE_INPUT,
            Phase.EVALUATE_LOOP,
        )
        admission = Admission.ONE if first else Admission.NONE
    # A step that goes on inline is claimed with its predecessor's commit, so it could not be paused.
    inline = claim.activation.route if claim.inline and not claim.header.per_step else ""
    header = claim.header
    return Plan(
        claim.graph,
        # Under the time limit of a step nothing else runs, be it a condition: it goes into the queue.
        "" if claim.activation.where.has_limit else claim.token,
        header.quiet,
        admission,
        header.generation,
        inline,
    )


# --- ending ----------------------------------------------------------------------------------------------------------


def on_result(claim: ClaimedNode, result: Result) -> Plan:
    """The activation has ended for good: start what comes after it."""
    plan = _plan(claim)
    return _on_result(plan, claim, result)


def _on_result(plan: Plan, claim: ClaimedNode, result: Result) -> Plan:
    """End the activation in this plan, and start what comes after it."""
    plan.record_result(claim.activation, result)
    # Fixed now, not at the end of the run: a suspended sibling may keep the block open for ever, and the run must
    # settle as failed all the same.
    if isinstance(result, Failed) and not claim.graph.tolerates_failure(claim.path):
        plan.ops.append(UpdateRun({"failure": result.error, "tripwire": result.tripwire}, unless="failure"))
    _on_node_end(plan, claim.path, visits(claim.activation), result, claim.activation)
    return plan.end()


def _on_node_end(plan: Plan, path: Path, visit: Path, result: Result, child: Activation) -> None:
    """The node at `path` has ended with `result`: let its surroundings go on."""
    above, index = path[:-1], path[-1]
    around = plan.graph.node(above) if above else None
    match around:
        case None | Nested():
            # A failure skips the rest of the flow.
            flow = plan.graph.entries(above)
            if isinstance(result, Done) and index + 1 < len(flow):
                begin_node(plan, flow[index + 1], (*above, index + 1), visit, result)
            elif around is None:
                plan.ops.append(_run_outcome(result))
            else:
                _on_outer_end(plan, around, above, visit, result)
        case Loop() if isinstance(result, Done):
            # A loop has one child, so it needs no counter: the end of the body claims the condition at once.
            needs = " ".join(result.needs[:MAX_NEEDS])
            fields: ActivationFields = {
                "phase": Phase.EVALUATE_LOOP.value,
                "input": result.output,
                "needs": needs,
                "iteration": visit[-1],
            }
            plan.ops.append(_pause_unless_admitted(plan, plan.reopen_block(format_path(above), fields)))
        case Loop():
            _on_outer_end(plan, around, above, visit[:-1], result)
        case Wait():
            _on_outer_end(plan, around, above, visit, result)
        # The consequence travels with the count (decision 1). A suspended arm has not ended, and counts nothing.
        case Parallel() | Branch():
            join = plan.reopen_block(format_path(above), {"phase": Phase.JOIN.value})
            plan.ops.append(CountDown(format_path(above), join))
        case Foreach():
            _on_item_end(plan, around, above, visit, result, child)
        case Step() | Sleep():
            raise ValueError(f"{around} has no children")
        case _:
            assert_never(around)


def _pause_unless_admitted(plan: Plan, check: UpdateActivation) -> UpdateActivation:
    """Pause the condition of a loop where no further activation may start."""
    if plan.admission is not Admission.NONE:
        return check
    return replace(check, fields={**check.fields, "status": ActivationStatus.PAUSED.value}, claim="")


def _on_outer_end(plan: Plan, node: Node, path: Path, visit: Path, result: Result) -> None:
    """A nested workflow, loop or wait ends as its child has ended."""
    # Its stored activation is not read: a commit writes single fields, and the graph has what the events need.
    role = _role(plan.graph, path)
    activation = new_activation(plan, node, path, visit, Done(""), role)
    plan.record_result(activation, result)
    _on_node_end(plan, path, visit, result, activation)


def _role(graph: Graph, path: Path) -> Role:
    """Return the role of the node at `path`: an item of the foreach around it, or a step."""
    above = path[:-1]
    return Role.ITEM if above and isinstance(graph.node(above), Foreach) else Role.STEP


def _on_item_end(plan: Plan, node: Foreach, path: Path, visit: Path, result: Result, child: Activation) -> None:
    """An item has ended: start the next one, or no more after a failure, and count down to the join."""
    where = format_path(path)
    succeeded = isinstance(result, Done)
    event: Doc | None = None
    if not plan.quiet:
        output = result.output if isinstance(result, Done) else None
        event = _progress_event(where, node, child, "success" if succeeded else "failed", output)
    # The counter has counted all items from the beginning. After a failure no further item starts, because the foreach
    # has failed; the join waits for those that run.
    join = plan.reopen_block(where, {"phase": Phase.JOIN.value})
    plan.ops.append(_next_item(plan, node, path, visit) if succeeded else CancelPendingItems(where))
    plan.ops.append(CountDown(where, join, event))


def _progress_event(where: str, node: Foreach, item: Activation, status: str, output: str | None = None) -> Doc:
    """Make the event about an item of the foreach at `where`; the store adds the counts."""
    # From the path: an item that is a nested workflow ends with an activation that no store has read.
    index = int(item.path.rsplit(".", 1)[1])
    foreach = Activation(path=where, visit=item.visit, step=node.body_node.id)
    return events.make_step_progress(foreach, index, status, output)


def _next_item(plan: Plan, node: Foreach, path: Path, visit: Path) -> StartNextItem:
    """Let an item take the place that has become free, if one is left."""
    return StartNextItem(
        format_path(path),
        item_template(plan, node, path, visit),
        make_items_prefix(format_path(path), format_path(visit), plan.generation),
    )


def _run_outcome(result: Result) -> UpdateRun:
    """Fix the outcome of the run. Its status follows when it settles."""
    match result:
        case Done(output=output):
            return UpdateRun({"outcome": StoredStatus.SUCCESS.value, "output": output})
        case Failed(error=error, tripwire=tripwire):
            status = StoredStatus.TRIPWIRE if tripwire else StoredStatus.FAILED
            return UpdateRun({"outcome": status.value, "error": error, "tripwire": tripwire})
        case _:
            assert_never(result)


# --- steps that do not end -------------------------------------------------------------------------------------------


def retry(claim: ClaimedNode, delay: int) -> Plan:
    """The attempt has failed: let another follow after `delay` milliseconds."""
    plan = _plan(claim)
    # Counted here and nowhere else: an abandoned attempt is no failure of the step.
    fields: ActivationFields = {
        "status": ActivationStatus.RETRYING.value,
        "attempt": claim.activation.attempt + 1,
        **sendings.begin_anew(claim.activation, forget=True),
    }
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=delay))
    # Readers of the stream have the chunks of this attempt, and those of the next are not their continuation.
    count = claim.activation.attempt + 1
    plan.emit(claim.activation, events.make_step_retrying(claim.activation, claim.activation.seq, count))
    return plan


def suspend(claim: ClaimedNode, payload: str, label: str) -> Plan:
    """The step suspends: it stays unfinished until a resume, and nothing is reported upward."""
    plan = _plan(claim)
    # The data of an earlier resume is cleared: the next attempt gets what the next resume brings.
    fields: ActivationFields = {
        "status": ActivationStatus.SUSPENDED.value,
        "suspend": payload,
        "label": label,
        "resume": "",
        "resumed": False,
        "restarted": False,
    }
    plan.ops.append(UpdateActivation(claim.activation.path, fields))
    # No counter changes: the block waits for this child, and the run settles as suspended once nothing is live.
    around = claim.graph.node(claim.path[:-1]) if len(claim.path) > 1 else None
    if not isinstance(around, Foreach):
        plan.emit(claim.activation, events.make_step_suspended(claim.activation, payload))
    elif not plan.quiet:  # items emit nothing else, but a caller must learn which item to resume
        item, where = replace(claim.activation, quiet=False), format_path(claim.path[:-1])
        plan.emit(item, events.make_step_suspended(item, payload, item.index))
        plan.ops.append(EmitProgress(where, _progress_event(where, around, item, "suspended")))
    return plan


def bail(claim: ClaimedNode, output: str) -> Plan:
    """The step ends the whole run, as a success with this value, or as failed where the run has failed already."""
    plan = _plan(claim)
    plan.record_result(claim.activation, Done(output))
    # A failure that nothing tolerates stands when it is committed: the run only waits for what is at work beside it. A
    # bail that comes after it must not hide it, whichever of the two was faster.
    plan.ops.append(UpdateRun({"outcome": StoredStatus.SUCCESS.value, "output": output}, unless="failure"))
    # Closed and settled in this commit: what siblings commit after it is refused.
    plan.ops.append(UpdateRun({"closed": True}))
    plan.settle_now = True
    return plan


def abort(claim: ClaimedNode) -> Plan:
    """The step ends the whole run as canceled, whatever it has returned."""
    plan = _plan(claim)
    plan.ops.append(UpdateActivation(claim.activation.path, {"status": ActivationStatus.CANCELED.value}))
    plan.ops.append(UpdateRun({"outcome": StoredStatus.CANCELED.value, "closed": True}))
    plan.settle_now = True
    return plan


# --- control activations ---------------------------------------------------------------------------------------------


def on_input_valid(claim: ClaimedNode, given: Done) -> Plan:
    """The input of a nested workflow is valid: start its first entry with it."""
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
    """The conditions of a branch are evaluated: start these arms. None at all is a success with an empty dict."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Branch):
        raise TypeError(f"{claim.activation.path} is not a branch")
    if not arms:
        return _on_result(plan, claim, _write_value(plan, claim, values.EMPTY_DICT))
    # Only the chosen arms count: the others get no activation.
    count = len(arms)
    fields: ActivationFields = {
        "status": ActivationStatus.OPEN.value,
        "pending_children": count,
        "total": count,
        "next_item": count,
    }
    plan.ops.append(UpdateActivation(claim.activation.path, fields))
    for index in arms:
        begin_node(plan, node.arms[index], (*claim.path, index), visits(claim.activation), _input_of(claim))
    return plan.end()


def goes_on(loop: Loop, holds: bool) -> bool:
    """Tell whether a loop runs its body again, now that its condition holds or does not hold."""
    return holds is not loop.until


def on_loop_checked(claim: ClaimedNode, holds: bool, release: Release | None = None) -> Plan:
    """The condition of a loop is evaluated on the body's output: start another iteration, or end the loop.

    `release` says which values of finished iterations go as another one starts; None: the loop keeps them all.
    """
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Loop):
        raise TypeError(f"{claim.activation.path} is not a loop")
    if not goes_on(node, holds):
        return _on_result(plan, claim, _input_of(claim))
    # The new visit makes the activations of the iteration before invisible, so none has to be deleted.
    following = claim.activation.iteration + 1
    fields: ActivationFields = {"status": ActivationStatus.OPEN.value, "iteration": following}
    if release is not None:
        fields["finished"] = release.finished
        plan.values.update(release.values)
        plan.drop_values = release.drop_values
    plan.ops.append(UpdateActivation(claim.activation.path, fields))
    begin_node(plan, node.body_node, (*claim.path, 0), (*visits(claim.activation), following), _input_of(claim))
    return plan.end()


def on_items(claim: ClaimedNode, progress: Progress, concurrency: int) -> Plan:
    """The input of a foreach has `progress.total` items: start as many as may run at once.

    The values of the items have been written under `items_prefix`. After a time travel with resume data, finished items
    of the older generation stay, and suspended ones go on.
    """
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Foreach):
        raise TypeError(f"{claim.activation.path} is not a foreach")
    if not progress.total:
        return _on_result(plan, claim, _write_value(plan, claim, values.EMPTY_LIST))
    fields: ActivationFields = {
        "status": ActivationStatus.OPEN.value,
        "pending_children": progress.pending_children,
        "total": progress.total,
        "next_item": progress.begun,
        # A number from data may be larger than any store or script can hold.
        "concurrency": min(concurrency, progress.total),
    }
    plan.ops.append(UpdateActivation(claim.activation.path, fields))
    begin_items(plan, node, claim.path, visits(claim.activation), progress, concurrency)
    return plan


def on_items_left(claim: ClaimedNode) -> Plan:
    """Start further items of a foreach that may run at once: more than one commit starts."""
    plan, block, node = _plan(claim), claim.activation, claim.node
    if not isinstance(node, Foreach):
        raise TypeError(f"{block.path} is not a foreach")
    plan.ops.append(UpdateActivation(block.path, {"status": ActivationStatus.OPEN.value}))
    # An item that ends starts the next one in its place. So the number of places that are taken does not change while
    # this plan is made, though items may end meanwhile; and a worker that takes this over finds it in the counters.
    ended = block.total - block.pending_children - block.never_started
    free = min(block.concurrency - (block.next_item - ended), block.total - block.next_item)
    start_items(plan, node, claim.path, visits(block), max(0, free))
    return plan


def on_children_done(claim: ClaimedNode, children: Sequence[Activation]) -> Plan:
    """All children of a block have ended: join them, and end the block with the result.

    `children` are the activations at its places, in order, as far as there are any.
    """
    plan = _plan(claim)
    # An arm that a time travel has skipped is at a place of the block, but has no part in its output.
    mine = [child for child in children if belongs(child, claim.activation) and child.status in _JOINED]
    node = claim.node
    tolerant = isinstance(node, Parallel) and node.allow_failure
    # The first in the order of places, not of time: the result must not depend on which worker was faster.
    for child in mine:
        if child.status == ActivationStatus.FAILED and not tolerant:
            return _on_result(plan, claim, Failed(child.error, child.tripwire))
    # A list of references: nothing is copied, however large the outputs are.
    refs = [child.output if child.status == ActivationStatus.SUCCESS else "" for child in mine]
    if isinstance(node, Foreach):
        text = values.refers_list(refs)
    else:
        text = values.refers_dict({child.step: ref for child, ref in zip(mine, refs, strict=True)})
    return _on_result(plan, claim, _write_value(plan, claim, text, tuple(filter(None, refs))))


# The statuses of children that have a part in a join.
_JOINED = frozenset({ActivationStatus.SUCCESS, ActivationStatus.FAILED})


def on_sleep_computed(claim: ClaimedNode, seconds: float) -> Plan:
    """The length of a computed sleep is known: sleep. Raises ValueError for one that is none, or that never ends."""
    plan = _plan(claim)
    fields: ActivationFields = {"status": ActivationStatus.SLEEPING.value, "phase": Phase.SLEEP_OVER.value}
    delay = to_delay(seconds, f"the sleep {claim.activation.step!r}")
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=delay))
    plan.emit(claim.activation, events.make_step_waiting(claim.activation))
    return plan


def on_sleep_over(claim: ClaimedNode) -> Plan:
    """The sleep is over: its input is its output."""
    return on_result(claim, _input_of(claim))


def waiter_of(claim: ClaimedNode) -> str:
    """Name the wait that this claim begins, in the mailbox of its event."""
    return make_waiter(claim.path, claim.activation.lease_token)


def on_await(claim: ClaimedNode) -> Plan:
    """No event is there yet: wait, without a worker, until one comes or the time is over."""
    plan = _plan(claim)
    node = claim.node
    if not isinstance(node, Wait):
        raise TypeError(f"{claim.activation.path} is not a wait")
    fields: ActivationFields = {"status": ActivationStatus.WAITING.value, "waiter": waiter_of(claim)}
    delay = 0 if node.timeout is None else max(1, to_delay(node.timeout, "a timeout"))  # 0 would mean no timeout
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=delay))
    plan.emit(claim.activation, events.make_step_waiting(claim.activation))
    return plan


def on_event(claim: ClaimedNode, value: str) -> Plan:
    """The event has come with this value: it is the output of the wait."""
    return on_result(claim, Done(value))


def on_timeout(claim: ClaimedNode, error: str) -> Plan:
    """The event has not come in time: start the alternative, or fail the wait with `error`."""
    node = claim.node
    if not isinstance(node, Wait):
        raise TypeError(f"{claim.activation.path} is not a wait")
    if node.otherwise is None:
        return on_result(claim, Failed(error))
    plan = _plan(claim)
    plan.ops.append(UpdateActivation(claim.activation.path, {"status": ActivationStatus.OPEN.value}))
    begin_node(plan, node.otherwise, (*claim.path, 0), visits(claim.activation), _input_of(claim))
    return plan.end()


def deliver_event(activation: Activation, value: str) -> list[Op]:
    """Put a waiting activation into the queue with its event."""
    fields: ActivationFields = {
        "status": ActivationStatus.QUEUED.value,
        "phase": Phase.EVENT_RECEIVED.value,
        "resume": value,
        "attempt": 0,
    }
    return [*reopen_run(), UpdateActivation(activation.path, fields)]


def time_out_wait(activation: Activation) -> list[Op]:
    """Put a waiting activation into the queue because its time is over."""
    fields: ActivationFields = {
        "status": ActivationStatus.QUEUED.value,
        "phase": Phase.EVENT_TIMEOUT.value,
        "attempt": 0,
    }
    return [*reopen_run(), UpdateActivation(activation.path, fields)]


def reopen_run() -> list[Op]:
    """Let a run go on that has settled, or is about to settle."""
    # The run's own activation opens whatever it is doing. A settling that was queued or claimed has lost its lease by
    # that, so it cannot write a status that is no longer true.
    return [
        UpdateActivation("", {"status": ActivationStatus.OPEN.value}),
        UpdateRun({"status": StoredStatus.RUNNING.value}),
    ]


def _input_of(claim: ClaimedNode) -> Done:
    """Return the input of the claimed activation as a result."""
    return Done(claim.activation.input, tuple(claim.activation.needs.split()))


def _write_value(plan: Plan, claim: ClaimedNode, text: str, needs: tuple[str, ...] = ()) -> Done:
    """Write a value that the rules make, and return it as a result."""
    key = make_outcome_id(claim.activation.lease_token)
    plan.values[key] = text
    return Done(key, needs)


# --- settling --------------------------------------------------------------------------------------------------------


def settled_status(header: RunHeader) -> StoredStatus:
    """Return the status of a run in which nothing is live: its outcome, else a failure, else what it is awaiting.

    A failure outranks a suspension. It is in the run header only if nothing can tolerate it any more.
    """
    if header.outcome:
        return StoredStatus(header.outcome)
    if header.failure:
        return StoredStatus.TRIPWIRE if header.tripwire else StoredStatus.FAILED
    if header.suspended or header.waiting:
        return StoredStatus.SUSPENDED
    if header.paused:
        return StoredStatus.PAUSED
    raise ValueError(f"run {header.run_id} settles with nothing awaiting and no outcome")


def on_settled(claim: ClaimedNode, told: reports.Told = reports.NOBODY) -> Plan:
    """Write the status that the run has settled with, and begin to tell of it.

    First it is recorded: a hook that fails, or a result backend that is away, keeps no run from its end (decision 11).
    """
    header, plan = claim.header, Plan(claim.graph, "")
    status = settled_status(header)
    error = header.error or header.failure
    fields: RunHeaderFields = {
        "status": status.value,
        "settle_count": header.settle_count + 1,
        "error": error if status in _KEEP_ERROR else "",
    }
    # Open again, ready for the next settling: a resume may let the run go on.
    plan.ops.append(UpdateActivation("", {"status": ActivationStatus.OPEN.value}))
    plan.ops.append(UpdateRun(fields))
    plan.events.extend(settled_events(status, header.settle_count + 1))
    plan.ops.extend(reports.begin(header.settle_count + 1, status, told, claim.activation.route, claim.token))
    return plan


# Only these statuses keep the error: a `bail` may end a run as a success although another step has failed.
_KEEP_ERROR = frozenset({StoredStatus.FAILED, StoredStatus.TRIPWIRE})


def settled_events(status: StoredStatus, settle_count: int) -> list[Doc]:
    """Make the events of a run that has settled.

    The `settle_count` is in them: a reader who waits for a certain settling knows it by its number.
    """
    made: list[Doc] = []
    if status is StoredStatus.PAUSED:
        made.append(events.make_workflow_paused())
    if status is StoredStatus.CANCELED:
        made.append(events.make_workflow_canceled())
    return [*made, events.make_workflow_finish(status.value, settle_count)]


# --- resume ----------------------------------------------------------------------------------------------------------


def resume(activation: Activation, data: str) -> list[Op]:
    """Put a suspended activation into the queue with the value `data`. It runs from the top, with its own input."""
    # Its retries begin again: the failures before the suspension say nothing about the call with the data.
    fields: ActivationFields = {"status": ActivationStatus.QUEUED.value, "resume": data, "resumed": True, "attempt": 0}
    return [*reopen_run(), UpdateActivation(activation.path, fields)]
