"""The consequences of each outcome: operations, events, and what is claimed in the same commit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import flow
from orchestrator.rules.change import (
    CancelPendingItems,
    CountDown,
    CreateActivation,
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
    children.append(_child("0.2", ActivationStatus.FAILED, error="e2"))
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
