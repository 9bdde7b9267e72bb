"""What a commit starts: fresh activations, with everything that a worker, a scheduler or a reader must know of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import events
from orchestrator.rules.change import CreateActivation, StartNextItem, UpdateActivation
from orchestrator.rules.graph import Node, Route
from orchestrator.rules.model import Activation, ActivationStatus, Phase, Role, pack_route
from orchestrator.rules.pending_resumes import Progress
from orchestrator.rules.plan import (
    MAX_NEEDS,
    Admission,
    Done,
    Failed,
    Plan,
    begin_items,
    begin_node,
    item_template,
    new_activation,
    root_activation,
    start_items,
)
from tests.simulation.acts import branch, foreach, graph, loop, nested, parallel, sleep, step, wait

GIVEN = Done("v", ("x", "y"))
FULL = Route("b", queue="slow", priority=3, time_limit=9.0, soft_time_limit=8.0, task="app.b")


def plan_for(node: Node, **how: Any) -> Plan:
    """Make an empty plan of a graph in which the node is the second entry of a nested workflow, the second too."""
    return Plan(graph(step("a"), nested("n", step("c"), node)), "token", **how)


def begun(node: Node, **how: Any) -> Plan:
    """Start the node there, in the third iteration of a loop, say."""
    plan = plan_for(node, **how)
    begin_node(plan, node, (1, 1), (3,), GIVEN)
    return plan


def fresh(id_: str, **fields: Any) -> Activation:
    """What is created there, but for what is said of it."""
    about = {
        "path": "1.1",
        "step": id_,
        "visit": "3",
        "route": pack_route(Route(id_)),
        "input": "v",
        "needs": "x y",
        "scope": 1,
    }
    return Activation(**{**about, **fields})


BLOCK = {"role": "block", "quiet": True, "status": "open"}
KINDS: dict[str, tuple[Node, list[CreateActivation]]] = {
    "step": (step("b"), [CreateActivation(fresh("b", component="STEP"))]),
    "mapping": (
        replace(step("b", control=True), component="MAP"),
        [CreateActivation(fresh("b", component="MAP"), "token")],
    ),
    "sleep": (
        sleep("b", 1.5),
        [CreateActivation(fresh("b", component="SLEEP", phase="sleep_over", status="sleeping"), delay=1_500)],
    ),
    "sleep of no time": (
        sleep("b", 0.0),
        [CreateActivation(fresh("b", component="SLEEP", phase="sleep_over", status="sleeping"))],
    ),
    "computed sleep": (
        sleep("b", None),
        [CreateActivation(fresh("b", component="SLEEP", phase="compute_sleep"), "token")],
    ),
    "wait": (wait("b"), [CreateActivation(fresh("b", component="WAIT", phase="await_event"), "token")]),
    "nested": (
        nested("b", step("c"), step("d")),
        [
            CreateActivation(fresh("b", component="NESTED", status="open")),
            CreateActivation(
                fresh("c", component="STEP", path="1.1.0", scope=2),
            ),
        ],
    ),
    "nested that checks": (
        nested("b", step("c"), checks=True),
        [CreateActivation(fresh("b", component="NESTED", phase="validate_input"), "token")],
    ),
    "parallel": (
        parallel("b", step("c"), step("d")),
        [
            CreateActivation(fresh("b", component="PARALLEL", **BLOCK, pending_children=2, total=2, next_item=2)),
            CreateActivation(fresh("c", component="STEP", path="1.1.0")),
            CreateActivation(fresh("d", component="STEP", path="1.1.1")),
        ],
    ),
    "branch": (
        branch("b", (0,), step("c")),
        [CreateActivation(fresh("b", component="BRANCH", phase="evaluate_branch", role="block", quiet=True), "token")],
    ),
    "loop": (
        loop("b", 2, step("c")),
        [
            CreateActivation(fresh("b", component="LOOP", **BLOCK, iteration=1)),
            CreateActivation(fresh("c", component="STEP", path="1.1.0", visit="3.1")),
        ],
    ),
    "foreach": (
        foreach("b", 2, 1, step("c")),
        [CreateActivation(fresh("c", component="FOREACH", phase="fan_out", route=pack_route(Route("b"))), "token")],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_starts_with_all_that_is_to_be_known_of_it(kind: str) -> None:
    """A foreach is known by the step that it runs for each item."""
    node, created = KINDS[kind]
    assert begun(node).ops == created


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_paused_is_one_activation(kind: str) -> None:
    """Nothing inside a nested workflow exists before it is resumed. Its first arms are, in a block."""
    ops = begun(KINDS[kind][0], admission=Admission.NONE).ops
    statuses = [op.activation.status for op in ops if isinstance(op, CreateActivation)]
    assert [op.claim for op in ops if isinstance(op, CreateActivation)] == [""] * len(ops)
    match kind:
        case "parallel":
            assert statuses == ["open", "paused", "paused"]
        case "loop":
            assert statuses == ["open", "paused"]
        case _:
            assert statuses == ["paused"]
    if kind == "nested":
        (op,) = ops
        assert isinstance(op, CreateActivation)
        assert op.activation.phase == Phase.VALIDATE_INPUT
    if kind == "sleep":
        (op,) = ops
        assert isinstance(op, CreateActivation)
        assert (op.activation.phase, op.delay) == (Phase.COMPUTE_SLEEP, 0)


def test_a_sleep_that_never_ends_is_refused() -> None:
    """It is checked as it is written; here it would be kept for ever."""
    with pytest.raises(ValueError, match="a sleep takes inf seconds"):
        begun(sleep("b", float("inf")))


def test_the_first_of_several_is_not_paused_where_one_may_start() -> None:
    plan = begun(parallel("b", step("c"), step("d")), admission=Admission.ONE)
    assert [op.activation.status for op in plan.ops if isinstance(op, CreateActivation)] == ["open", "queued", "paused"]
    assert plan.admission is Admission.NONE


def test_what_begins_unseen_by_a_worker_is_told_at_once() -> None:
    """A nested workflow and a sleep; all else is told when it is claimed. A quiet run tells nothing."""
    inside, asleep = fresh("b", component="NESTED"), fresh("b", component="SLEEP")
    assert begun(KINDS["nested"][0]).events == [events.make_step_start(inside)]
    assert begun(KINDS["sleep"][0]).events == [events.make_step_waiting(asleep)]
    assert not any(begun(node).events for kind, (node, _) in KINDS.items() if kind in ("step", "wait", "loop"))
    for kind in ("nested", "sleep"):
        plan = begun(KINDS[kind][0], quiet=True)
        assert plan.events == []
        assert all(op.activation.quiet for op in plan.ops if isinstance(op, CreateActivation))


def test_a_claim_brings_a_bounded_number_of_values() -> None:
    """The step itself reads the others."""
    many = Done("v", tuple(f"v{number}" for number in range(MAX_NEEDS + 1)))
    made = new_activation(plan_for(step("b")), step("b"), (1, 1), (), many)
    assert made.needs.split() == [f"v{number}" for number in range(MAX_NEEDS)]
    assert made.visit == ""


def test_an_item_emits_no_events_of_its_own() -> None:
    """Its foreach tells of it. One that is a nested workflow checks its input first, or opens."""
    each = foreach("b", 2, 1, step("c"))
    item = item_template(plan_for(each), each, (1, 1), (3,))
    about = {"role": Role.ITEM.value, "quiet": True, "input": "", "needs": ""}
    assert item == fresh("c", component="STEP", path="1.1.0", **about)
    flows = foreach("b", 2, 1, nested("m", step("c")))
    item = item_template(plan_for(flows), flows, (1, 1), (3,))
    assert item == fresh("m", component="NESTED", path="1.1.0", phase="validate_input", **about)


def test_the_settling_runs_where_the_first_step_runs_without_its_limits() -> None:
    """Under the name of the workflow. It is no message of the task that a step may be."""
    first = replace(step("a"), route=FULL)
    expected = Activation(
        step="workflow",
        component="RUN",
        role="block",
        phase="settle",
        status="open",
        route=pack_route(Route("workflow", queue="slow", priority=3)),
    )
    assert root_activation(graph(first, step("b"))) == expected


# --- what one commit does with the token of its worker ------------------------------------------------------------


def test_a_block_that_is_opened_again_is_claimed_once() -> None:
    """Its attempts begin anew. What comes second goes into the queue."""
    plan = plan_for(step("b"))
    phase = {"phase": Phase.JOIN.value}
    expected = {"status": "queued", "attempt": 0, "phase": "join"}
    assert plan.reopen_block("1", {"phase": phase["phase"]}) == UpdateActivation("1", expected, "token")
    assert plan.reopen_block("2", {"phase": phase["phase"]}) == UpdateActivation("2", expected, "")


@pytest.mark.parametrize(
    "here, there, fits",
    [
        (Route("x"), Route("b"), True),
        (Route("x", queue="q", priority=1), Route("b", queue="q", priority=1), True),
        (Route("x", queue="q"), Route("b"), False),
        (Route("x"), Route("b", queue="q"), False),
        (Route("x", priority=1), Route("b"), False),
        (Route("x", time_limit=1.0), Route("b", time_limit=1.0), False),
        (Route("x", time_limit=1.0), Route("b"), False),
        (Route("x", soft_time_limit=1.0), Route("b", soft_time_limit=1.0), False),
        (Route("x", task="t"), Route("b", task="t"), False),
        (Route("x"), Route("b", task="t"), False),
    ],
)
def test_a_step_goes_on_inline_where_its_message_would_go_the_same_way(here: Route, there: Route, fits: bool) -> None:
    """The same queue and priority, and no limit of its own. The name is for monitors only."""
    node = replace(step("b", inline=True), route=there)
    plan = begun(node, inline=pack_route(here)).end()
    (op,) = plan.ops
    assert isinstance(op, CreateActivation)
    assert op.claim == ("token" if fits else "")


@pytest.mark.parametrize(
    "node, how",
    [
        (step("b"), {}),
        (sleep("b"), {}),
        (parallel("b", step("c", inline=True), step("d", inline=True)), {}),
        (step("b", inline=True), {"inline": ""}),
        (step("b", inline=True), {"admission": Admission.NONE}),
    ],
)
def test_what_does_not_go_on_inline_is_left_to_any_worker(node: Node, how: dict[str, Any]) -> None:
    """A step that is not marked so, several at once, and whatever is paused or sleeps."""
    plan = begun(node, **{"inline": pack_route(Route("x")), **how})
    before = list(plan.ops)
    assert plan.end() is plan
    assert plan.ops == before
    assert plan.token == "token"


def test_one_arm_that_may_run_goes_on_inline_beside_a_sleep() -> None:
    """The other needs no worker yet."""
    plan = begun(parallel("b", sleep("c"), step("d", inline=True)), inline=pack_route(Route("x"))).end()
    assert [op.claim for op in plan.ops if isinstance(op, CreateActivation)] == ["", "", "token"]
    assert plan.token == ""


# --- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result, fields, event",
    [
        (Done("o", ("x",)), {"status": "success", "output": "o"}, {"status": "success", "output": "o"}),
        (Failed("e"), {"status": "failed", "error": "e", "tripwire": False}, {"status": "failed", "error": "e"}),
        (
            Failed("e", tripwire=True),
            {"status": "failed", "error": "e", "tripwire": True},
            {"status": "failed", "error": "e"},
        ),
    ],
)
def test_a_result_is_written_and_told(result: Any, fields: dict[str, Any], event: dict[str, Any]) -> None:
    """Of a quiet activation, or in a quiet run, it is only written."""
    activation = Activation(path="1.1", step="b", visit="3")
    plan = plan_for(step("b"))
    plan.record_result(activation, result)
    assert plan.ops == [UpdateActivation("1.1", fields)]  # type: ignore[arg-type]
    about = {"path": "1.1", "visit": "3", "step": "b"}
    assert plan.events == [
        {"type": "workflow-step-result", **about, **event},
        {"type": "workflow-step-finish", **about},
    ]
    for quiet in (plan_for(step("b"), quiet=True), plan_for(step("b"))):
        quiet.record_result(replace(activation, quiet=not quiet.quiet), result)
        assert (len(quiet.ops), quiet.events) == (1, [])


# --- items -----------------------------------------------------------------------------------------------------


def test_items_that_had_begun_take_their_old_places_and_others_follow() -> None:
    """As many as may run at once. Their inputs are named by place, visit, generation and index."""
    each = foreach("b", 9, 4, step("c"))
    plan = plan_for(each, generation=2)
    begin_items(plan, each, (1, 1), (3,), Progress(9, 4, ((0, 1), (2, 3))), 4)
    template = item_template(plan, each, (1, 1), (3,))
    assert plan.ops == [
        CreateActivation(replace(template, path="1.1.1", index=1, input="1.1@3@2.1")),
        CreateActivation(replace(template, path="1.1.3", index=3, input="1.1@3@2.3")),
        *[StartNextItem("1.1", template, "1.1@3@2")] * 2,
    ]
    few = plan_for(each)
    begin_items(few, each, (1, 1), (3,), Progress(5, 4, ((0, 4),)), 4)
    assert few.ops == [StartNextItem("1.1", template, "1.1@3@0")]


@pytest.mark.parametrize("free, started, more", [(0, 0, False), (3, 3, False), (200, 200, False), (201, 200, True)])
def test_a_commit_starts_a_bounded_number_of_items(free: int, started: int, more: bool) -> None:
    """The block itself has the rest to start, and so a timer until then."""
    each = foreach("b", 900, 900, step("c"))
    plan = plan_for(each)
    start_items(plan, each, (1, 1), (3,), free)
    again = [op for op in plan.ops if isinstance(op, UpdateActivation)]
    assert len(plan.ops) - len(again) == started
    expected = {"status": ActivationStatus.QUEUED.value, "attempt": 0, "phase": Phase.START_ITEMS.value}
    assert again == ([UpdateActivation("1.1", expected, "token")] if more else [])  # type: ignore[arg-type]
