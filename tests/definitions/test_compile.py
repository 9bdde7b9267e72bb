"""From a workflow to its graph: routes, retries, and the shapes of values."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator import Workflow, from_input, from_step, step
from orchestrator.codec import ANY, DictOf, ListOf, Shape, Typed
from orchestrator.definitions.bodies import (
    LoopBody,
    MapBody,
    NestedBody,
    StepBody,
    body_of,
    definition_at,
    shape_given,
    shape_made,
    step_of,
)
from orchestrator.rules import graph
from orchestrator.rules.graph import Retry, Route
from tests.definitions.models import (
    Approval,
    Order,
    Receipt,
    Reservation,
    always,
    charge,
    never,
    notify,
    pack,
    reserve,
)


def flow(workflow: Workflow) -> tuple[Any, ...]:
    """Return the nodes of a workflow."""
    return workflow.commit().compiled.flow


def plain(id: str, **options: Any) -> Any:
    """Make a step of which nothing is declared."""
    return step(lambda data: data, id=id, **options)


def test_a_route_has_the_innermost_workflows_name_and_the_steps_options() -> None:
    """`task_routes` matches this name."""
    routed = plain("pay", queue="payments", priority=3, time_limit=30, soft_time_limit=20)
    inner = Workflow("inner").then(routed).commit()
    [nested] = flow(Workflow("outer").then(inner))
    assert nested.route.name == "outer.inner"
    assert nested.flow[0].route == Route("inner.pay", "payments", 3, 30, 20)


def test_what_is_no_step_goes_to_the_queue_of_the_step_before() -> None:
    """Without one it goes to the queue of the first step, whose workers can do it too."""
    workflow = Workflow("w").map(always).then(plain("a", queue="q")).branch((always, plain("b", queue="r"))).sleep(1)
    assert [node.route.queue for node in flow(workflow)] == ["q", "q", "q", "r"]
    inner = Workflow("inner").sleep(1).then(plain("a", queue="q")).commit()
    [nested] = flow(Workflow("outer").then(inner))
    assert (nested.route.queue, nested.flow[0].route.queue) == ("q", "q")
    [task, mapping] = flow(Workflow("w").then("foreign.task").map(always))
    assert (task.route.queue, mapping.route.queue) == (None, None)


def test_retries_are_the_steps_own_or_those_of_the_innermost_workflow() -> None:
    """Attempts and delay are inherited one by one."""
    inner = Workflow("inner", retries=1, retry_delay=0.5).then(plain("a")).then(plain("b", retries=0)).commit()
    workflow = Workflow("outer", retries=9).then(inner).then(plain("c", retry_delay=2.0)).map(always)
    nested, last, mapping = flow(workflow)
    assert [node.retry for node in nested.flow] == [Retry(1, 0.5), Retry(0, 0.5)]
    assert (last.retry, mapping.retry) == (Retry(9, 2.0), Retry(9))


def test_a_backoff_may_say_its_first_delay() -> None:
    """Celery's option of this name takes a number too."""
    first = plain("a", retries=2, retry_backoff=5, retry_jitter=False)
    second = plain("b", retry_backoff=True, retry_delay=3.0, retry_backoff_max=60)
    [one, two] = flow(Workflow("w", retry_delay=9).then(first).then(second))
    assert one.retry == Retry(2, 5.0, True, 600, False)
    assert two.retry == Retry(0, 3.0, True, 60, True)


def test_inline_is_the_steps_word_or_the_workflows() -> None:
    """It is off by default."""
    [off] = flow(Workflow("w").then(plain("a")))
    on, refused = flow(Workflow("w", inline=True).then(plain("a")).then(plain("b", inline=False)))
    assert (off.inline, on.inline, refused.inline) == (False, True, False)


def test_a_mapping_is_a_control_step() -> None:
    """It runs in the worker that ended its predecessor."""
    [mapping] = flow(Workflow("w").map(always))
    assert (mapping.component, mapping.control) == ("MAP", True)


def test_steps_are_checked_where_they_declare_an_input_and_the_workflow_says_so() -> None:
    """Each workflow says so for its own steps, and a nested one also for its own input."""
    inner = Workflow("inner", input=Order, validate_inputs=False).then(reserve).commit()
    open_ = Workflow("open").then(reserve).commit()
    checked = Workflow("checked", input=Order).then(reserve).commit()
    nodes = flow(Workflow("outer").then(reserve).then(plain("a")).then(inner).then(open_).then(checked))
    assert [node.body.validate for node in nodes] == [True, False, False, False, True]
    assert [node.checks for node in nodes[2:]] == [False, False, True]
    assert [node.flow[0].body.validate for node in nodes[2:]] == [False, True, True]


def test_the_graph_carries_its_definition() -> None:
    """Each nested node carries its own, as it was when the outer workflow was committed."""
    inner = Workflow("inner").then(pack).commit()
    outer = Workflow("outer").then(inner).commit()
    committed = inner.definition
    inner.then(reserve)
    assert outer.compiled.body is outer.definition is definition_at(outer.compiled, ())
    body = body_of(outer.compiled.flow[0])
    assert isinstance(body, NestedBody)
    assert body.definition is committed is definition_at(outer.compiled, (0,))
    assert inner.definition is not committed


@pytest.mark.parametrize("scope", [(0, 0), (1,), (2,)])
def test_only_a_workflow_has_a_definition(scope: graph.Path) -> None:
    """The places of a step and of a parallel block have none, and there is no third entry."""
    inner = Workflow("inner").then(pack).commit()
    outer = Workflow("outer").then(inner).parallel(charge, notify).commit()
    with pytest.raises(LookupError):
        definition_at(outer.compiled, scope)


def test_a_node_gives_its_body_with_its_type() -> None:
    """A parallel block has none, and neither has a node whose body is not of a definition."""
    step, mapping, block = Workflow("w").then(pack).map(always).parallel(charge, notify).commit().compiled.flow
    assert isinstance(body_of(step), StepBody)
    assert isinstance(body_of(mapping), MapBody)
    assert (body_of(block), shape_given(block)) == (None, ANY)
    assert (step_of(step), step_of(mapping), step_of(block)) == (pack, None, None)
    foreign = graph.Step("s", "STEP", graph.Route("w.s"), body="a body of somebody else's")
    assert (body_of(foreign), shape_given(foreign), shape_made(foreign)) == (None, ANY, ANY)


# Shapes


def shapes(workflow: Workflow) -> list[tuple[Shape, Shape]]:
    """Return the shapes that arrive at and leave each node."""
    return [(shape_given(node), shape_made(node)) for node in flow(workflow)]


def test_a_step_makes_what_it_declares_and_gets_what_the_one_before_makes() -> None:
    """The first one gets the workflow's input."""
    workflow = Workflow("w", input=Order).then(reserve).then(charge).then(plain("a")).sleep(1)
    assert shapes(workflow) == [
        (Typed(Order), Typed(Reservation)),
        (Typed(Reservation), Typed(Receipt)),
        (Typed(Receipt), ANY),
        (ANY, ANY),
    ]
    assert shapes(Workflow("w").then(reserve).sleep(1))[0][0] == ANY
    assert shapes(Workflow("w").then(reserve).sleep(1))[1] == (Typed(Reservation), Typed(Reservation))


def test_parallel_and_branch_make_a_dict_of_their_arms() -> None:
    """Every arm gets what arrives."""
    made = DictOf({"charge": Typed(Receipt), "notify": Typed(type(None))})
    parallel, branch, _ = flow(
        Workflow("w").parallel(charge, notify).branch((always, plain("a")), (always, pack)).then(plain("end"))
    )
    assert shape_made(parallel) == made
    assert branch.body.given == made
    assert [arm.body.given for arm in branch.arms] == [made, made]
    assert shape_made(branch) == DictOf({"a": ANY, "pack": Typed(str)})


def test_a_foreach_makes_a_list_of_what_its_body_makes() -> None:
    """The body gets one item of the list."""
    workflow = Workflow("w", input=list[Order]).foreach(reserve).foreach(charge).foreach(plain("a")).then(plain("end"))
    first, second, third, end = flow(workflow)
    assert (first.body.given, first.body_node.body.given) == (Typed(list[Order]), Typed(Order))
    assert shape_made(first) == ListOf(Typed(Reservation)) == second.body.given
    assert second.body_node.body.given == Typed(Reservation)
    assert (third.body_node.body.given, end.body.given) == (Typed(Receipt), ListOf(ANY))


@pytest.mark.parametrize("given", [tuple[int, str], str, Any])
def test_an_item_of_something_else_has_no_type(given: Any) -> None:
    """A tuple may have another type at each place."""
    [node] = flow(Workflow("w", input=given).foreach(plain("a")))
    assert node.body_node.body.given == ANY


def test_the_body_of_a_loop_gets_its_own_output_too() -> None:
    """Where its output has another type than its input, either may arrive."""

    def loop(input: Any, body: Any) -> tuple[Shape, Shape]:
        [node] = flow(Workflow("w", input=input).do_while(body, always))
        assert isinstance(node.body, LoopBody)
        assert node.body.given == shape_made(node.body_node) == shape_made(node)
        return node.body_node.body.given, node.body.given

    assert loop(Receipt, charge) == (Typed(Receipt), Typed(Receipt))
    assert loop(Reservation, charge) == (Typed(Reservation | Receipt), Typed(Receipt))
    assert loop(None, charge) == (ANY, Typed(Receipt))
    passes_on = Workflow("inner").sleep(1).commit()
    assert loop(Order, passes_on) == (Typed(Order), Typed(Order))
    wraps = Workflow("inner").map({"x": from_input()}).commit()
    assert loop(Order, wraps) == (ANY, DictOf({"x": ANY}))


def test_a_nested_workflow_makes_what_it_declares_or_what_its_last_entry_makes() -> None:
    """Its first entry gets its declared input, or what arrives."""
    open_ = Workflow("open").then(plain("a")).then(charge).commit()
    said = Workflow("said", input=Order, output=Approval).then(plain("a")).commit()
    first, second, last = flow(Workflow("w", input=Reservation).then(open_).then(said).then(plain("b")))
    assert (first.body.given, first.body.made) == (Typed(Reservation), Typed(Receipt))
    assert first.flow[0].body.given == Typed(Reservation)
    assert (second.body.given, second.body.made) == (Typed(Receipt), Typed(Approval))
    assert second.flow[0].body.given == Typed(Order)
    assert last.body.given == Typed(Approval)


def test_a_wait_makes_its_event_or_what_its_timeout_makes() -> None:
    """Where the two types differ, either may leave."""
    assert shapes(Workflow("w").wait_for_event("go"))[0][1] == ANY
    assert shapes(Workflow("w").wait_for_event("go", Order))[0][1] == Typed(Order)
    late = Workflow("w", input=Receipt).wait_for_event("go", Order, 1, on_timeout=charge)
    [node] = flow(late)
    assert node.otherwise.body.given == Typed(Receipt)
    assert shape_made(node) == Typed(Order | Receipt)


def test_a_mapping_knows_the_results_of_the_steps_before() -> None:
    """It also knows those in blocks (the list of a foreach, the arms) and the workflow's input."""
    inner = Workflow("inner").then(charge).commit()
    untyped = step(lambda data: data, id="untyped")
    workflow = (
        Workflow("w", input=list[Order])
        .foreach(reserve)
        .then(inner)
        .map(
            {
                "list": from_step("reserve"),
                "line": from_step("reserve", "0.lines.1.sku"),
                "inner": from_step("inner", "total"),
                "input": from_input("0"),
                "later": from_step("untyped"),
            }
        )
        .then(untyped)
    )
    made = shape_made(flow(workflow)[-2])
    assert isinstance(made, DictOf)
    assert made.items["list"] == ListOf(Typed(Reservation))
    assert (made.items["line"], made.items["input"], made.items["later"]) == (Typed(str), Typed(Order), ANY)
    assert made.items["inner"] != ANY


def test_a_mapping_in_a_nested_workflow_knows_its_own_input() -> None:
    """That is the declared input, or else what arrives."""
    inner = Workflow("inner").map({"sku": from_input("sku")}).commit()
    [nested] = flow(Workflow("w", input=Order).then(inner))
    assert shape_made(nested) == DictOf({"sku": Typed(str)})


def test_loops_around_loops_are_compiled_in_no_time() -> None:
    """Where a loop's body gets something else from the second time on, it is compiled twice; those inside are not."""

    def count(number: int) -> str:
        return str(number)

    workflow = Workflow("w0", input=int).then(step(count)).commit()
    began = time.perf_counter()
    for level in range(1, 40):
        workflow = Workflow(f"w{level}", input=int).do_while(workflow, never).commit()
    assert time.perf_counter() - began < 5
    [loop] = workflow.compiled.flow
    assert shape_made(loop) == Typed(str)


def test_both_times_the_body_of_a_loop_is_compiled_for_the_same_queue() -> None:
    """Whether the types of a loop differ says nothing of the workers that take it."""
    routes = []
    for made in (int, str):
        body = Workflow("body").map(always).then(step(always, id="s", queue="behind", output=made)).commit()
        outer = Workflow("w", input=int).then(step(always, id="f", queue="before", output=int)).do_while(body, never)
        loop = outer.commit().compiled.flow[-1]
        assert isinstance(loop, graph.Loop)
        assert isinstance(loop.body_node, graph.Nested)
        routes.append(loop.body_node.flow[0].route.queue)
    assert routes == ["before", "before"]


# The fingerprint


def test_the_fingerprint_is_the_same_for_the_same_shape() -> None:
    """Functions, options and descriptions are no part of the shape."""
    one = Workflow("w").then(plain("a")).branch((always, plain("b"))).foreach(plain("c")).sleep(1)
    two = Workflow("w", description="Said.", retries=4)
    two.then(plain("a", queue="q")).branch((len, plain("b", retries=1))).foreach(plain("c"), concurrency=9).sleep(5)
    assert one.fingerprint == two.fingerprint == one.commit().fingerprint == one.compiled.fingerprint
    assert len(one.fingerprint) == 16
    assert int(one.fingerprint, 16) >= 0


def test_the_fingerprint_differs_with_the_shape() -> None:
    """Ids, kinds, structure, events, tasks and versions are parts of the shape."""
    inner = [Workflow("in", version=version).then(plain("a")).commit() for version in (None, 1)]
    workflows = [
        Workflow("w").then(plain("a")),
        Workflow("w", version="2").then(plain("a")),
        Workflow("v").then(plain("a")),
        Workflow("w").then(plain("b")),
        Workflow("w").then(plain("a")).then(plain("b")),
        Workflow("w").then(plain("b")).then(plain("a")),
        Workflow("w").parallel(plain("a")),
        Workflow("w").branch((always, plain("a"))),
        Workflow("w").do_while(plain("a"), always),
        Workflow("w").do_until(plain("a"), always),
        Workflow("w").foreach(plain("a")),
        Workflow("w").then("x.a"),
        Workflow("w").then("y.a"),
        Workflow("w").sleep(1, id="a"),
        Workflow("w").map(always, id="a"),
        Workflow("w").wait_for_event("a"),
        Workflow("w").wait_for_event("b", id="a"),
        Workflow("w").wait_for_event("a", timeout=1, on_timeout=plain("b")),
        *(Workflow("w").then(each) for each in inner),
    ]
    assert len({workflow.fingerprint for workflow in workflows}) == len(workflows)


def test_a_step_body_has_what_the_engine_needs() -> None:
    """It has the step itself and both shapes."""
    [node] = flow(Workflow("w", input=Order).then(reserve))
    assert node.body == StepBody(reserve, Typed(Order), Typed(Reservation), True)
    assert isinstance(node, graph.Step)
