"""The consequences of each outcome: operations, events, and what is claimed in the same commit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import flow, reports
from orchestrator.rules.change import (
    CancelPendingItems,
    CountDown,
    CreateActivation,
    EmitProgress,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.graph import Graph, Route
from orchestrator.rules.iterations import Release
from orchestrator.rules.mailbox import waiter_path
from orchestrator.rules.model import Activation, ActivationStatus, Phase, Role, RunHeader, StoredStatus
from orchestrator.rules.pending_resumes import Progress
from orchestrator.rules.plan import MAX_STARTED, ClaimedNode, Done, Failed, Plan, Result
from orchestrator.rules.value_ids import make_items_prefix
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step, wait

RUNNING = RunHeader(run_id="run", status=StoredStatus.RUNNING)


def claim(of: Graph, path: str, *, inline: bool = False, header: RunHeader = RUNNING, **fields: Any) -> ClaimedNode:
    """Make a claimed activation of this graph."""
    at = tuple(map(int, path.split(".")))
    activation = Activation(
        path=path,
        step=of.node(at).id,
        status=ActivationStatus.RUNNING,
        lease_token="mine",
        input="in",
        route='{"name":"a"}',
    )
    return ClaimedNode(of, header, replace(activation, **{"route": '{"name":"x"}', **fields}), "next", inline)


def ops(plan: Plan) -> list[str]:
    """Write the operations in short: what, where, to which status or phase, and `!` if claimed."""
    return [_short(op) for op in plan.ops]


def _short(op: Any) -> str:
    match op:
        case CreateActivation(activation=activation, claim=claim, delay=delay):
            later = f"+{delay}" if delay else ""
            return f"put {activation.path} {activation.status} {activation.phase}{later}" + "!" * bool(claim)
        case UpdateActivation(path=path, fields=fields, claim=claim, delay=delay):
            later = f"+{delay}" if delay else ""
            words = [path or "root", fields.get("status"), fields.get("phase")]
            return " ".join(["set", *(str(word) for word in words if word)]) + later + "!" * bool(claim)
        case StartNextItem(path=path):
            return f"next {path}"
        case CancelPendingItems(path=path):
            return f"shut {path}"
        case CountDown(path=path, then=then):
            return f"down {path} ({_short(then)})"
        case UpdateRun(fields=fields, unless=unless):
            written = " ".join(f"{key}={value}" for key, value in fields.items() if value)
            return f"run {written}" + (f" unless {unless}" if unless else "")
        case _:
            raise AssertionError(op)


def emitted(plan: Plan) -> list[str]:
    """Write the events in short."""
    return [f"{event['type'].removeprefix('workflow-')} {event.get('path', '')}".strip() for event in plan.events]


GOOD = "set 0 success"
ENDS = ["step-result 0", "step-finish 0"]
NAMES = {
    "a step": (step("b"), ["put 1 queued run"], []),
    "a mapping": (step("b", control=True), ["put 1 queued run!"], []),
    "a sleep": (sleep("b", 1.5), ["put 1 sleeping sleep_over+1500"], ["step-waiting 1"]),
    "a computed sleep": (sleep("b", None), ["put 1 queued compute_sleep!"], []),
    "a nested workflow": (
        nested("b", step("c")),
        ["put 1 open run", "put 1.0 queued run"],
        ["step-start 1"],
    ),
    "a nested workflow that checks": (nested("b", step("c"), checks=True), ["put 1 queued validate_input!"], []),
    "a parallel": (
        parallel("b", step("c"), step("d", control=True)),
        ["put 1 open run", "put 1.0 queued run", "put 1.1 queued run!"],
        [],
    ),
    "two mappings at once": (
        parallel("b", step("c", control=True), step("d", control=True)),
        ["put 1 open run", "put 1.0 queued run!", "put 1.1 queued run"],
        [],
    ),
    "a wait": (wait("b", 1.0), ["put 1 queued await_event!"], []),
    "a branch": (branch("b", (0,), step("c")), ["put 1 queued evaluate_branch!"], []),
    "a loop": (loop("b", 2, step("c")), ["put 1 open run", "put 1.0 queued run"], []),
    "a foreach": (foreach("b", 2, 1, step("c")), ["put 1 queued fan_out!"], []),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_ends_well_starts_what_comes_next(name: str) -> None:
    """A control activation is claimed in the same commit, one at most. Everything else is queued."""
    node, begun, said = NAMES[name]
    plan = flow.on_result(claim(graph(step("a"), node), "0"), Done("out", ("v1", "v2")))
    assert ops(plan) == [GOOD, *begun]
    assert emitted(plan) == ENDS + said
    first = next(op.activation for op in plan.ops if isinstance(op, CreateActivation))
    assert (first.input, first.needs) == ("out", "v1 v2")


def test_the_start_opens_the_run_and_enters_its_first_node() -> None:
    """Nothing is claimed: a caller starts the run, and no worker."""
    plan = flow.start(graph(step("a", control=True)), RunHeader(run_id="run"), "in")
    assert ops(plan) == ["put  open settle", "run status=running input=in", "put 0 queued run"]
    assert emitted(plan) == ["start"]


def test_the_last_entrys_end_is_the_runs_outcome() -> None:
    """The status itself is written when the run settles."""
    assert ops(flow.on_result(claim(graph(step("a")), "0"), Done("out"))) == [GOOD, "run outcome=success output=out"]
    failed = ["set 0 failed", "run failure=e unless failure", "run outcome=failed error=e"]
    assert ops(flow.on_result(claim(graph(step("a"), step("b")), "0"), Failed("e"))) == failed
    plan = flow.on_result(claim(graph(step("a")), "0"), Failed("e", tripwire=True))
    assert ops(plan)[-1] == "run outcome=tripwire error=e tripwire=True"


def test_an_inline_step_is_claimed_where_it_stands_alone_and_fits() -> None:
    """It needs the same queue and limits, no sibling, and a worker that may go on."""
    of = graph(step("a"), step("b", inline=True))
    assert ops(flow.on_result(claim(of, "0", inline=True), Done("o")))[-1] == "put 1 queued run!"
    assert ops(flow.on_result(claim(of, "0"), Done("o")))[-1] == "put 1 queued run"
    other = claim(of, "0", inline=True, route='{"name":"x","queue":"slow"}')
    assert ops(flow.on_result(other, Done("o")))[-1] == "put 1 queued run"
    limited = graph(step("a"), replace(step("b", inline=True), route=Route("b", time_limit=1.0)))
    same = claim(limited, "0", inline=True, route='{"name":"a","time_limit":1.0}')
    assert ops(flow.on_result(same, Done("o")))[-1] == "put 1 queued run"
    two = graph(step("a"), parallel("p", step("b", inline=True), step("c", inline=True)))
    assert not any(op.endswith("!") for op in ops(flow.on_result(claim(two, "0", inline=True), Done("o"))))


@pytest.mark.parametrize(
    "result, expected",
    [
        (Done("o"), ["set 0.0 success", "down 0 (set 0 queued join!)"]),
        (Failed("e"), ["set 0.0 failed", "run failure=e unless failure", "down 0 (set 0 queued join!)"]),
    ],
)
def test_an_arm_that_ends_counts_down_to_the_join(result: Result, expected: list[str]) -> None:
    """The consequence of the last arm is written beforehand."""
    assert ops(flow.on_result(claim(graph(parallel("p", step("a"), step("b"))), "0.0"), result)) == expected


def test_a_failure_that_is_allowed_stays_inside_its_block() -> None:
    """It is not written into the run header."""
    of = graph(parallel("p", step("a"), allow_failure=True))
    assert ops(flow.on_result(claim(of, "0.0"), Failed("e"))) == ["set 0.0 failed", "down 0 (set 0 queued join!)"]


def test_a_nested_workflow_ends_with_its_last_entry() -> None:
    """One commit ends all levels that end with it."""
    of = graph(nested("n", nested("m", step("a"))), step("b"))
    plan = flow.on_result(claim(of, "0.0.0"), Done("o"))
    assert ops(plan) == ["set 0.0.0 success", "set 0.0 success", "set 0 success", "put 1 queued run"]
    assert emitted(plan)[-2:] == ["step-result 0", "step-finish 0"]
    failed = flow.on_result(claim(of, "0.0.0"), Failed("e"))
    assert ops(failed)[-2:] == ["set 0 failed", "run outcome=failed error=e"]


def test_the_body_of_a_loop_leads_to_its_condition() -> None:
    """The condition is claimed in the same commit. A body that fails ends the loop."""
    of = graph(loop("l", 2, step("a")))
    plan = flow.on_result(claim(of, "0.0", visit="2"), Done("o"))
    assert ops(plan) == ["set 0.0 success", "set 0 queued evaluate_loop!"]
    (check,) = (op for op in plan.ops if isinstance(op, UpdateActivation) and op.path == "0")
    assert (check.fields["iteration"], check.fields["input"]) == (2, "o")
    failed = ops(flow.on_result(claim(of, "0.0", visit="2"), Failed("e")))
    assert failed == ["set 0.0 failed", "run failure=e unless failure", "set 0 failed", "run outcome=failed error=e"]


@pytest.mark.parametrize(
    "until, holds, again", [(False, True, True), (False, False, False), (True, True, False), (True, False, True)]
)
def test_a_loop_goes_on_while_or_until_its_condition_holds(until: bool, holds: bool, again: bool) -> None:
    """A new iteration is a new visit of the body."""
    plan = flow.on_loop_checked(claim(graph(loop("l", 2, step("a"), until=until)), "0", iteration=1, input="o"), holds)
    if again:
        assert ops(plan) == ["set 0 open", "put 0.0 queued run"]
        assert [(op.activation.visit, op.activation.input) for op in plan.ops if isinstance(op, CreateActivation)] == [
            ("2", "o")
        ]
    else:
        assert ops(plan) == ["set 0 success", "run outcome=success output=o"]


def test_each_item_that_ends_starts_the_next_until_one_fails() -> None:
    """The commit of the failure cancels the pending items."""
    of = graph(foreach("f", 3, 2, step("a")))
    good = flow.on_result(claim(of, "0.1", index=1), Done("o"))
    assert ops(good) == ["set 0.1 success", "next 0", "down 0 (set 0 queued join!)"]
    bad = flow.on_result(claim(of, "0.1", index=1), Failed("e"))
    assert ops(bad) == [
        "set 0.1 failed", "run failure=e unless failure", "shut 0", "down 0 (set 0 queued join!)",
    ]  # fmt: skip
    progress = next(op.event for op in good.ops if isinstance(op, CountDown))
    assert progress is not None
    assert (progress["type"], progress["index"], progress["output"]) == ("workflow-step-progress", 1, "o")


@pytest.mark.parametrize("count, concurrency, begun", [(5, 2, 2), (1, 4, 1), (3, 3, 3)])
def test_a_foreach_starts_as_many_items_as_it_may(count: int, concurrency: int, begun: int) -> None:
    """The store takes each index from the counter. The inputs are named by the index."""
    plan = flow.on_items(
        claim(graph(foreach("f", count, concurrency, step("a"))), "0", visit="3"), Progress(count), concurrency
    )
    assert ops(plan) == ["set 0 open", *["next 0"] * begun]
    (first, *_) = (op for op in plan.ops if isinstance(op, StartNextItem))
    assert first.prefix == make_items_prefix("0", "3", 0)
    assert (first.template.role, first.template.status, first.template.visit) == (
        Role.ITEM,
        ActivationStatus.QUEUED,
        "3",
    )


def test_a_wide_foreach_starts_in_pieces() -> None:
    """Each commit starts some, and claims the block for the rest; the last one leaves it open."""
    of = graph(foreach("f", 1300, 1200, step("a")))
    plan = flow.on_items(claim(of, "0", visit="3"), Progress(1300), 1200)
    assert ops(plan) == ["set 0 open", *["next 0"] * MAX_STARTED, "set 0 queued start_items!"]
    counts = {"total": 1300, "concurrency": 1200, "phase": Phase.START_ITEMS}
    # 40 items have ended meanwhile, and each has started another.
    plan = flow.on_items_left(claim(of, "0", visit="3", next_item=540, pending_children=1260, **counts))
    assert ops(plan) == ["set 0 open", *["next 0"] * MAX_STARTED, "set 0 queued start_items!"]
    plan = flow.on_items_left(claim(of, "0", visit="3", next_item=1100, pending_children=1200, **counts))
    assert ops(plan) == ["set 0 open", *["next 0"] * 200]
    (first, *_) = (op for op in plan.ops if isinstance(op, StartNextItem))
    assert first.prefix == make_items_prefix("0", "3", 0)
    # One has failed: no further item starts.
    plan = flow.on_items_left(claim(of, "0", next_item=1300, pending_children=400, never_started=800, **counts))
    assert ops(plan) == ["set 0 open"]


def test_a_block_without_children_is_a_success() -> None:
    """No item gives an empty list, and no arm an empty dict."""
    each = flow.on_items(claim(graph(foreach("f", 0, 1, step("a"))), "0"), Progress(0), 1)
    assert ops(each) == ["set 0 success", "run outcome=success output=mine"]
    assert each.values == {"mine": "[]"}
    none = flow.on_branch_chosen(claim(graph(branch("b", (), step("a"))), "0"), ())
    assert ops(none) == ["set 0 success", "run outcome=success output=mine"]
    assert none.values == {"mine": "{}"}


def test_the_chosen_arms_of_a_branch_start_at_once() -> None:
    """The other arms get no activation."""
    plan = flow.on_branch_chosen(claim(graph(branch("b", (), step("a"), step("b"), step("c"))), "0"), (0, 2))
    assert ops(plan) == ["set 0 open", "put 0.0 queued run", "put 0.2 queued run"]
    (opened,) = (op for op in plan.ops if isinstance(op, UpdateActivation))
    assert (opened.fields["pending_children"], opened.fields["total"]) == (2, 2)


def _child(path: str, status: ActivationStatus, visit: str = "", **fields: Any) -> Activation:
    return Activation(path=path, step=f"s{path[-1]}", status=status, visit=visit, **fields)


def test_a_join_refers_to_its_childrens_outputs() -> None:
    """Nothing is copied. Children of an earlier visit are left out."""
    children = [
        _child("0.0", ActivationStatus.SUCCESS, "2", output="v0"),
        _child("0.1", ActivationStatus.SUCCESS, "1", output="old"),
    ]
    inner = graph(parallel("p", step("a"), step("b")), step("c"))
    plan = flow.on_children_done(claim(inner, "0", phase=Phase.JOIN, visit="2"), children)
    assert ops(plan) == ["set 0 success", "put 1 queued run"]
    assert plan.values == {"mine": '{"s0":"v0"}'}
    each = flow.on_children_done(
        claim(graph(foreach("f", 2, 1, step("a"))), "0"), [replace(child, visit="") for child in children]
    )
    assert each.values == {"mine": '["v0","old"]'}


def test_a_join_fails_with_its_first_child_that_failed() -> None:
    """First in the order of places, not of time. Where failures are allowed they count as None."""
    children = [
        _child("0.0", ActivationStatus.SUCCESS, output="v"),
        _child("0.1", ActivationStatus.FAILED, error="e1", tripwire=True),
    ]
    children.append(_child("0.2", ActivationStatus.FAILED, error="e2", output="half"))
    arms = (step("a"), step("b"), step("c"))
    plan = flow.on_children_done(claim(graph(parallel("p", *arms)), "0"), children)
    assert ops(plan)[0] == "set 0 failed"
    assert ops(plan)[-1] == "run outcome=tripwire error=e1 tripwire=True"
    soft = flow.on_children_done(claim(graph(parallel("p", *arms, allow_failure=True)), "0"), children)
    assert soft.values == {"mine": '{"s0":"v","s1":"","s2":""}'}


def test_an_outcome_that_ends_nothing_moves_its_activation_alone() -> None:
    """A retry, a suspension and a sleep are such outcomes."""
    of = graph(step("a", retries=2))
    assert ops(flow.retry(claim(of, "0", attempt=1), 700)) == ["set 0 retrying+700"]
    assert [
        op.fields["attempt"] for op in flow.retry(claim(of, "0", attempt=1), 1).ops if isinstance(op, UpdateActivation)
    ] == [2]
    suspended = flow.suspend(claim(of, "0", resumed=True), "payload", "label")
    assert ops(suspended) == ["set 0 suspended"]
    assert emitted(suspended) == ["step-suspended 0"]
    assert ops(flow.on_sleep_computed(claim(graph(sleep("s", None)), "0"), 2.0)) == ["set 0 sleeping sleep_over+2000"]
    assert ops(flow.on_sleep_computed(claim(graph(sleep("s", None)), "0"), -2.0)) == ["set 0 sleeping sleep_over"]
    assert ops(flow.on_sleep_over(claim(graph(sleep("s")), "0")))[-1] == "run outcome=success output=in"


def test_a_wait_begins_gets_its_event_or_times_out() -> None:
    """A sender finds it by its mailbox entry. An alternative may run after its timeout."""
    of = graph(wait("w", 2.0, step("late")))
    waiting = flow.on_await(claim(of, "0", phase=Phase.AWAIT_EVENT))
    assert ops(waiting) == ["set 0 waiting+2000"]
    (waits,) = (op.fields["waiter"] for op in waiting.ops if isinstance(op, UpdateActivation))
    assert waiter_path(waits) == "0"
    assert ops(flow.on_event(claim(of, "0"), "v")) == ["set 0 success", "run outcome=success output=v"]
    assert ops(flow.on_timeout(claim(of, "0"), "e")) == ["set 0 open", "put 0.0 queued run"]
    assert ops(flow.on_result(claim(of, "0.0"), Done("o")))[-2:] == ["set 0 success", "run outcome=success output=o"]
    assert ops(flow.on_timeout(claim(graph(wait("w", 2.0)), "0"), "e"))[-1] == "run outcome=failed error=e"


@pytest.mark.parametrize(
    "woken, phase",
    [
        (flow.deliver_event(Activation(path="0"), "v"), Phase.EVENT_RECEIVED),
        (flow.time_out_wait(Activation(path="0")), Phase.EVENT_TIMEOUT),
    ],
)
def test_what_ends_a_wait_reopens_the_run(woken: list[Any], phase: Phase) -> None:
    plan = Plan(graph(step("a")), "")
    plan.ops.extend(woken)
    assert ops(plan) == ["set root open", "run status=running", f"set 0 queued {phase}"]


def test_a_step_may_end_the_run_whatever_else_is_going_on() -> None:
    """The outcome is fixed, the run is closed, and it settles at once."""
    of = graph(parallel("p", step("a"), step("b")))
    bail = flow.bail(claim(of, "0.0"), "out")
    assert (ops(bail), bail.settle_now) == (
        ["set 0.0 success", "run outcome=success output=out unless failure", "run closed=True"],
        True,
    )
    abort = flow.abort(claim(of, "0.0"))
    assert (ops(abort), abort.settle_now) == (["set 0.0 canceled", "run outcome=canceled closed=True"], True)


def test_a_loop_that_goes_on_lets_go_of_what_older_iterations_have_made() -> None:
    """The manifest comes and the values go with the commit that begins the next; one that ends drops nothing."""
    of = graph(loop("l", 2, step("a")))
    let_go = Release("m1 m2", {"m2": "=[]"}, ("m0", "x"))
    plan = flow.on_loop_checked(claim(of, "0", iteration=1, input="o"), True, let_go)
    (opened,) = (op for op in plan.ops if isinstance(op, UpdateActivation))
    assert (opened.fields["finished"], plan.values, plan.drop_values) == ("m1 m2", {"m2": "=[]"}, ("m0", "x"))
    for holds, nothing in ((False, let_go), (True, None)):
        plan = flow.on_loop_checked(claim(of, "0", iteration=1, input="o"), holds, nothing)
        assert not any("finished" in op.fields for op in plan.ops if isinstance(op, UpdateActivation))
        assert (plan.values, plan.drop_values) == ({}, ())


def test_a_nested_workflow_begins_with_its_validated_input() -> None:
    plan = flow.on_input_valid(claim(graph(nested("n", step("a"), checks=True)), "0"), Done("fit"))
    assert ops(plan) == ["set 0 open", "put 0.0 queued run"]
    assert [op.activation.input for op in plan.ops if isinstance(op, CreateActivation)] == ["fit"]


@pytest.mark.parametrize(
    "wrong", [flow.on_input_valid, flow.on_branch_chosen, flow.on_loop_checked, flow.on_items, flow.on_await]
)
def test_an_outcome_of_another_kind_of_node_is_refused_as_a_bug(wrong: Any) -> None:
    given = {
        "on_input_valid": (Done("x"),),
        "on_branch_chosen": ((0,),),
        "on_loop_checked": (True,),
        "on_items": (Progress(1), 1),
        "on_await": (),
    }[wrong.__name__]
    with pytest.raises(TypeError, match="is not a"):
        wrong(claim(graph(step("a")), "0"), *given)


@pytest.mark.parametrize(
    "header, state",
    [
        ({"outcome": "success", "failure": "e"}, StoredStatus.SUCCESS),
        ({"failure": "e", "suspended": 1}, StoredStatus.FAILED),
        ({"failure": "e", "tripwire": True}, StoredStatus.TRIPWIRE),
        ({"suspended": 1, "paused": 1}, StoredStatus.SUSPENDED),
        ({"waiting": 1}, StoredStatus.SUSPENDED),
        ({"paused": 1}, StoredStatus.PAUSED),
    ],
)
def test_a_run_settles_as_its_counts_say(header: dict[str, Any], state: StoredStatus) -> None:
    """An outcome comes first, then a failure that nothing tolerates, then what is awaiting."""
    assert flow.settled_status(RunHeader(**header)) is state


def test_a_run_that_settles_with_nothing_awaiting_is_a_bug() -> None:
    """The rules never let it come to that."""
    with pytest.raises(ValueError, match="nothing awaiting"):
        flow.settled_status(RunHeader())


def test_the_settling_writes_the_status_and_is_counted() -> None:
    """A failed run gets its error, too."""
    root = Activation(path="", status=ActivationStatus.RUNNING, phase=Phase.SETTLE, lease_token="mine")
    header = RunHeader(status=StoredStatus.RUNNING, failure="e", settle_count=2)
    plan = flow.on_settled(ClaimedNode(graph(step("a")), header, root, ""))
    assert ops(plan) == ["set root open", "run status=failed settle_count=3 error=e"]
    assert emitted(plan) == ["finish"]


@pytest.mark.parametrize("state, said", [("canceled", ["canceled", "finish"]), ("success", ["finish"])])
def test_the_last_events_are_those_of_the_outcome(state: str, said: list[str]) -> None:
    """A canceled run has an event for that before the last one."""
    root = Activation(path="", status=ActivationStatus.RUNNING, phase=Phase.SETTLE, lease_token="mine")
    assert emitted(flow.on_settled(ClaimedNode(graph(step("a")), RunHeader(outcome=state), root, ""))) == said


def test_a_resume_reopens_the_run_and_queues_the_activation() -> None:
    """Its retries begin again."""
    plan = Plan(graph(step("a")), "")
    plan.ops.extend(flow.resume(Activation(path="0", status=ActivationStatus.SUSPENDED, attempt=2), "data"))
    assert ops(plan) == ["set root open", "run status=running", "set 0 queued"]


def test_a_run_by_single_steps_pauses_what_follows() -> None:
    """The first arm of a block is not paused."""
    header = replace(RUNNING, per_step=True)
    of = graph(step("a", inline=True), step("b", inline=True))
    assert ops(flow.on_result(claim(of, "0", header=header, inline=True), Done("o")))[-1] == "put 1 paused run"
    both = graph(step("a"), parallel("p", step("b"), step("c")))
    plan = flow.on_result(claim(both, "0", header=header), Done("o"))
    assert ops(plan)[-2:] == ["put 1.0 paused run", "put 1.1 paused run"]
    chosen = flow.on_branch_chosen(
        claim(graph(branch("b", (), step("a"), step("b"))), "0", header=header, phase=Phase.EVALUATE_BRANCH), (0, 1)
    )
    assert ops(chosen)[-2:] == ["put 0.0 queued run", "put 0.1 paused run"]


def test_a_quiet_run_emits_no_events_of_its_steps() -> None:
    """Quiet activations, such as items and blocks, emit none either."""
    quiet = replace(RUNNING, quiet=True)
    assert flow.on_result(claim(graph(step("a")), "0", header=quiet), Done("o")).events == []
    assert flow.on_result(claim(graph(step("a")), "0", quiet=True), Done("o")).events == []


# --- everything that is written -----------------------------------------------------------------------------------


def fields_of(plan: Plan, path: str) -> dict[str, Any]:
    """Return what a plan writes into the activation at this path."""
    return {
        key: value
        for op in plan.ops
        if isinstance(op, UpdateActivation) and op.path == path
        for key, value in op.fields.items()
    }


def created_by(plan: Plan) -> list[Activation]:
    """Return what a plan creates."""
    return [op.activation for op in plan.ops if isinstance(op, CreateActivation)]


def test_a_start_writes_what_the_run_begins_with() -> None:
    """By single steps or not, and quiet or not. No value is to be brought but the input itself."""
    of = graph(parallel("p", step("a"), step("b")))
    plan = flow.start(of, RunHeader(per_step=True, quiet=True), "in")
    assert plan.ops[1] == UpdateRun({"status": "running", "input": "in", "per_step": True})
    assert [one.status for one in created_by(plan)] == ["open", "open", "queued", "paused"]
    assert all(one.quiet for one in created_by(plan)[1:])
    assert plan.events == [{"type": "workflow-start", "input": "in"}]
    assert {(one.input, one.needs, one.visit) for one in created_by(plan)[1:]} == {("in", "", "")}
    at_once = flow.start(graph(parallel("p", step("a", control=True), step("b"))), RunHeader(), "in")
    assert [one.status for one in created_by(at_once)] == ["open", "open", "queued", "queued"]
    assert [op.claim for op in at_once.ops if isinstance(op, CreateActivation)] == [""] * 4


def test_the_first_failure_that_nothing_tolerates_is_the_runs() -> None:
    """With whether it is a tripwire. Of a loop in a loop the inner one fails first, in the outer one's iteration."""
    of = graph(parallel("p", step("a"), step("b")))
    plan = flow.on_result(claim(of, "0.0"), Failed("e", tripwire=True))
    assert plan.ops[1] == UpdateRun({"failure": "e", "tripwire": True}, unless="failure")
    loops = graph(loop("l", 2, loop("m", 2, nested("n", loop("o", 2, step("a"))))))
    failed = flow.on_result(claim(loops, "0.0.0.0.0", visit="2.3.4"), Failed("e"))
    assert [(event["path"], event["visit"]) for event in failed.events] == [
        *[("0.0.0.0.0", "2.3.4")] * 2,
        *[("0.0.0", "2.3")] * 2,
    ]
    checked = flow.on_result(claim(loops, "0.0.0.0.0", visit="2.3.4"), Done("o"))
    assert fields_of(checked, "0.0.0.0")["iteration"] == 4


@pytest.mark.parametrize(
    "phase, statuses",
    [
        (Phase.RUN, ["paused", "paused"]),
        (Phase.JOIN, ["paused", "paused"]),
        (Phase.EVALUATE_BRANCH, ["queued", "paused"]),
        (Phase.FAN_OUT, ["queued", "paused"]),
        (Phase.VALIDATE_INPUT, ["queued", "paused"]),
        (Phase.EVALUATE_LOOP, ["queued", "paused"]),
    ],
)
def test_a_block_that_was_resumed_runs_its_first_step(phase: Phase, statuses: list[str]) -> None:
    """In a run by single steps. What a step leads to is paused."""
    of = graph(step("a"), parallel("p", step("b"), step("c")))
    plan = flow.on_result(claim(of, "0", header=replace(RUNNING, per_step=True), phase=phase), Done("o"))
    assert [one.status for one in created_by(plan)][1:] == statuses


@pytest.mark.parametrize("holds", [True, False])
def test_the_condition_of_a_loop_is_paused_in_a_run_by_single_steps(holds: bool) -> None:
    """It is not claimed then. Otherwise it brings along what it is evaluated on."""
    of, result = graph(loop("l", 2, step("a"))), Done("o", ("x", "y"))
    plan = flow.on_result(claim(of, "0.0", visit="2", header=replace(RUNNING, per_step=holds)), result)
    assert fields_of(plan, "0") == {
        "status": "paused" if holds else "queued",
        "attempt": 0,
        "phase": "evaluate_loop",
        "input": "o",
        "needs": "x y",
        "iteration": 2,
    }
    assert [op.claim for op in plan.ops if isinstance(op, UpdateActivation)] == ["", "" if holds else "next"]


def test_what_follows_gets_the_result_with_the_values_that_it_refers_to() -> None:
    """In the same visit, and in the generation of the run."""
    of = graph(loop("l", 2, nested("n", step("a"), step("b"))))
    plan = flow.on_result(claim(of, "0.0.0", visit="3"), Done("o", ("x", "y")))
    (made,) = created_by(plan)
    assert (made.path, made.visit, made.input, made.needs, made.scope) == ("0.0.1", "3", "o", "x y", 2)
    each = graph(step("a"), foreach("f", 2, 2, step("b")))
    header = replace(RUNNING, generation=4)
    items = flow.on_items(claim(each, "1", header=header), Progress(2), 2)
    assert [op.prefix for op in items.ops if isinstance(op, StartNextItem)] == ["1@@4"] * 2


def test_an_iteration_gets_what_the_condition_was_evaluated_on() -> None:
    """With the number of its own."""
    of = graph(loop("l", 3, step("a")))
    plan = flow.on_loop_checked(claim(of, "0", iteration=2, input="o", needs="x y"), holds=True)
    assert fields_of(plan, "0") == {"status": "open", "iteration": 3}
    (made,) = created_by(plan)
    assert (made.path, made.visit, made.input, made.needs) == ("0.0", "3", "o", "x y")
    ended = flow.on_loop_checked(claim(of, "0", iteration=2, input="o", needs="x y"), holds=False)
    assert fields_of(ended, "0") == {"status": "success", "output": "o"}
    after = graph(loop("l", 3, step("a")), step("b"))
    (made,) = created_by(flow.on_loop_checked(claim(after, "0", iteration=2, input="o", needs="x y"), holds=False))
    assert (made.input, made.needs, made.visit) == ("o", "x y", "")


def test_chosen_arms_get_the_input_of_the_branch() -> None:
    """Only they are counted."""
    plan = flow.on_branch_chosen(
        claim(graph(branch("b", (), step("a"), step("b"), step("c"))), "0", visit="2", needs="x"), (0, 2)
    )
    assert fields_of(plan, "0") == {"status": "open", "pending_children": 2, "total": 2, "next_item": 2}
    assert [(one.path, one.visit, one.input, one.needs) for one in created_by(plan)] == [
        ("0.0", "2", "in", "x"),
        ("0.2", "2", "in", "x"),
    ]


def test_a_foreach_opens_with_what_it_counts() -> None:
    """Of an older generation the finished items count. No more run at once than there are."""
    of = graph(foreach("f", 9, 10**9, step("a")))
    plan = flow.on_items(claim(of, "0"), Progress(9, 4, ((0, 2),)), 10**9)
    assert fields_of(plan, "0") == {
        "status": "open",
        "pending_children": 7,
        "total": 9,
        "next_item": 4,
        "concurrency": 9,
    }
    assert [one.path for one in created_by(plan)] == ["0.2", "0.3"]
    assert sum(isinstance(op, StartNextItem) for op in plan.ops) == 5


def test_the_places_that_items_have_left_are_filled() -> None:
    """As many as may run at once, less those that run, and no more than are left."""
    of = graph(foreach("f", 40, 10, step("a")))
    counts = {"total": 40, "concurrency": 10, "phase": Phase.START_ITEMS}
    for next_item, pending, never, started in (
        (4, 40, 0, 6),
        (6, 37, 0, 7),
        (38, 8, 0, 2),
        (40, 5, 0, 0),
        (14, 30, 0, 6),
        (30, 10, 5, 5),
    ):
        block = {"next_item": next_item, "pending_children": pending, "never_started": never}
        plan = flow.on_items_left(claim(of, "0", **counts, **block))
        assert ops(plan) == ["set 0 open", *["next 0"] * started], block


def test_an_item_tells_its_foreach_how_it_has_ended() -> None:
    """By the step and the visit of the foreach. A quiet run is told nothing, and counts all the same."""
    of = graph(foreach("f", 3, 2, step("a")))
    about = {"type": "workflow-step-progress", "path": "0", "visit": "2", "step": "a", "index": 1}
    for result, said in (
        (Done("o"), {"status": "success", "output": "o"}),
        (Failed("e"), {"status": "failed"}),
    ):
        plan = flow.on_result(claim(of, "0.1", index=1, visit="2", quiet=True), result)
        (down,) = (op for op in plan.ops if isinstance(op, CountDown))
        assert down.event == {**about, **said}
        assert down.then == UpdateActivation("0", {"status": "queued", "attempt": 0, "phase": "join"}, "next")
        silent = flow.on_result(claim(of, "0.1", index=1, header=replace(RUNNING, quiet=True)), result)
        assert [op.event for op in silent.ops if isinstance(op, CountDown)] == [None]
    (following,) = (
        op
        for op in flow.on_result(claim(of, "0.1", index=1, visit="2"), Done("o")).ops
        if isinstance(op, StartNextItem)
    )
    assert (following.prefix, following.template.visit, following.template.path) == ("0@2@0", "2", "0.0")


def test_an_item_that_is_a_workflow_ends_as_an_item() -> None:
    """It emits no events of its own, but its foreach is told of it by its index."""
    of = graph(nested("m", foreach("f", 3, 2, nested("n", step("a")))))
    plan = flow.on_result(claim(of, "0.0.2.0"), Done("o"))
    assert ops(plan) == ["set 0.0.2.0 success", "set 0.0.2 success", "next 0.0", "down 0.0 (set 0.0 queued join!)"]
    assert emitted(plan) == ["step-result 0.0.2.0", "step-finish 0.0.2.0"]
    (down,) = (op for op in plan.ops if isinstance(op, CountDown))
    assert down.event is not None
    assert (down.event["index"], down.event["step"]) == (2, "n")


def test_a_retry_tells_which_attempt_is_of_no_use_any_more() -> None:
    plan = flow.retry(claim(graph(step("a", retries=3)), "0", attempt=1, seq=7, visit="2"), 700)
    assert plan.ops == [UpdateActivation("0", {"status": "retrying", "attempt": 2}, delay=700)]
    about = {"path": "0", "visit": "2", "step": "a"}
    assert plan.events == [{"type": "workflow-step-retrying", **about, "attempt": 7, "retry_count": 2}]


SUSPENDS = {
    "status": "suspended",
    "suspend": "payload",
    "label": "label",
    "resume": "",
    "resumed": False,
    "restarted": False,
}


def test_a_suspension_clears_what_the_resume_before_has_brought() -> None:
    """The next attempt gets what the next resume brings."""
    plan = flow.suspend(claim(graph(step("a")), "0", resumed=True, resume="old", restarted=True), "payload", "label")
    assert plan.ops == [UpdateActivation("0", SUSPENDS)]  # type: ignore[arg-type]
    about = {"path": "0", "visit": "", "step": "a", "input": "in"}
    assert plan.events == [{"type": "workflow-step-suspended", **about, "suspend": "payload"}]


def test_an_item_that_suspends_is_told_by_its_index() -> None:
    """A caller must learn which one to resume, although items emit nothing else. A quiet run tells nobody."""
    path, of = "0.0.1", graph(nested("m", foreach("f", 3, 2, step("a"))))
    plan = flow.suspend(claim(of, path, index=1, quiet=True), "payload", "label")
    assert plan.ops[0] == UpdateActivation(path, SUSPENDS)  # type: ignore[arg-type]
    (told,) = plan.ops[1:]
    about = {"path": "0.0", "visit": "", "step": "a"}
    progress = {"type": "workflow-step-progress", **about, "index": 1, "status": "suspended"}
    assert told == EmitProgress("0.0", progress)
    (event,) = plan.events
    assert (event["path"], event["index"], event["suspend"]) == (path, 1, "payload")
    silent = flow.suspend(claim(of, path, index=1, header=replace(RUNNING, quiet=True)), "payload", "label")
    assert (len(silent.ops), silent.events) == (1, [])


def test_a_step_inside_an_item_that_suspends_is_told_as_any_other() -> None:
    """Its foreach is not around it at once."""
    of = graph(foreach("f", 3, 2, nested("n", step("a"))))
    plan = flow.suspend(claim(of, "0.1.0"), "payload", "label")
    assert (len(plan.ops), emitted(plan)) == (1, ["step-suspended 0.1.0"])


def test_what_opens_a_block_writes_its_input() -> None:
    """That of a nested workflow is the validated one; it is the input of its first step too."""
    of = graph(nested("n", step("a"), checks=True))
    plan = flow.on_input_valid(claim(of, "0", visit="2"), Done("fit", ("x",)))
    assert fields_of(plan, "0") == {"status": "open", "input": "fit"}
    assert [(one.visit, one.input, one.needs, one.scope) for one in created_by(plan)] == [("2", "fit", "x", 1)]
    late = flow.on_timeout(claim(graph(wait("w", 2.0, step("late"))), "0", visit="2", needs="x"), "e")
    assert fields_of(late, "0") == {"status": "open"}
    assert [(one.path, one.visit, one.input, one.needs) for one in created_by(late)] == [("0.0", "2", "in", "x")]


@pytest.mark.parametrize("timeout, delay", [(None, 0), (0.0, 1), (-5.0, 1), (2.0, 2_000)])
def test_a_wait_has_a_timeout_or_none(timeout: float | None, delay: int) -> None:
    """One that is over at once is none that never is."""
    plan = flow.on_await(claim(graph(wait("w", timeout)), "0"))
    assert plan.ops == [UpdateActivation("0", {"status": "waiting", "waiter": "?a0#mine"}, delay=delay)]
    assert plan.events == [{"type": "workflow-step-waiting", "path": "0", "visit": "", "step": "w", "input": "in"}]


def test_a_wait_that_never_ends_is_refused() -> None:
    """It would have no timeout, or one that no store can hold."""
    with pytest.raises(ValueError, match="a timeout takes nan seconds"):
        flow.on_await(claim(graph(wait("w", float("nan"))), "0"))


def test_a_sleep_without_an_end_is_refused_by_name() -> None:
    """The length comes from data."""
    with pytest.raises(ValueError, match="the sleep 's' takes inf seconds"):
        flow.on_sleep_computed(claim(graph(sleep("s", None)), "0"), float("inf"))
    plan = flow.on_sleep_computed(claim(graph(sleep("s", None)), "0"), 2.0)
    assert emitted(plan) == ["step-waiting 0"]
    over = flow.on_sleep_over(claim(graph(sleep("s"), step("a")), "0", needs="x y"))
    assert [(one.input, one.needs) for one in created_by(over)] == [("in", "x y")]


@pytest.mark.parametrize(
    "woken, fields",
    [
        (flow.deliver_event, {"phase": "event_received", "resume": "v", "attempt": 0}),
        (lambda one, _: flow.time_out_wait(one), {"phase": "event_timeout", "attempt": 0}),
        (flow.resume, {"resume": "v", "resumed": True, "attempt": 0}),
    ],
)
def test_what_was_awaiting_begins_its_attempts_anew(woken: Any, fields: dict[str, Any]) -> None:
    """The run goes on with it, whatever it was doing."""
    assert woken(Activation(path="0", attempt=3), "v") == [
        UpdateActivation("", {"status": "open"}),
        UpdateRun({"status": "running"}),
        UpdateActivation("0", {"status": "queued", **fields}),
    ]


def test_what_ends_the_run_writes_its_outcome() -> None:
    """A bail has an output, which is the step's too."""
    of = graph(parallel("p", step("a"), step("b")))
    bail = flow.bail(claim(of, "0.0"), "out")
    assert bail.ops[1:] == [
        UpdateRun({"outcome": "success", "output": "out"}, unless="failure"),
        UpdateRun({"closed": True}),
    ]
    assert fields_of(bail, "0.0") == {"status": "success", "output": "out"}
    assert emitted(bail) == ["step-result 0.0", "step-finish 0.0"]


def test_a_join_of_a_foreach_and_of_arms_brings_what_it_refers_to() -> None:
    """For the step that follows. Places without an output refer to nothing."""
    children = [
        _child("0.0", ActivationStatus.SUCCESS, output="v0"),
        _child("0.1", ActivationStatus.SKIPPED),
        _child("0.2", ActivationStatus.SUCCESS),
        _child("0.3", ActivationStatus.SUCCESS, output="v3"),
    ]
    arms = tuple(step(f"s{index}") for index in range(4))
    plan = flow.on_children_done(claim(graph(parallel("p", *arms), step("z")), "0"), children)
    assert plan.values == {"mine": '{"s0":"v0","s2":"","s3":"v3"}'}
    assert [(one.input, one.needs) for one in created_by(plan)] == [("mine", "v0 v3")]


@pytest.mark.parametrize(
    "header, written",
    [
        ({"outcome": "success", "error": "old", "failure": "e"}, {"status": "success", "error": ""}),
        ({"outcome": "canceled", "error": "old"}, {"status": "canceled", "error": ""}),
        ({"outcome": "failed", "error": "e"}, {"status": "failed", "error": "e"}),
        ({"failure": "first"}, {"status": "failed", "error": "first"}),
        ({"failure": "first", "error": "e"}, {"status": "failed", "error": "e"}),
        ({"failure": "e", "tripwire": True}, {"status": "tripwire", "error": "e"}),
        ({"suspended": 1}, {"status": "suspended", "error": ""}),
        ({"paused": 1}, {"status": "paused", "error": ""}),
    ],
)
def test_a_settling_keeps_the_error_of_a_run_that_has_failed(header: dict[str, Any], written: dict[str, Any]) -> None:
    """A `bail` may end a run as a success although another step has failed."""
    root = Activation(path="", status=ActivationStatus.RUNNING, phase=Phase.SETTLE, lease_token="mine", route="r")
    told = reports.Told({"on_finish", "on_error"}, delivers=True)
    plan = flow.on_settled(ClaimedNode(graph(step("a")), RunHeader(settle_count=2, **header), root, "next"), told)
    assert plan.ops[:2] == [
        UpdateActivation("", {"status": "open"}),
        UpdateRun({"settle_count": 3, **written}),  # type: ignore[typeddict-item]
    ]
    assert plan.events[-1] == {"type": "workflow-finish", "status": written["status"], "settle_count": 3}
    assert plan.ops[2:] == reports.begin(3, StoredStatus(written["status"]), told, "r", "next")
    assert emitted(plan)[:-1] == (
        ["paused"] if written["status"] == "paused" else ["canceled"] * (written["status"] == "canceled")
    )
