"""The builder methods: what they add, what they take as an entry, and what they refuse at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import Workflow, clone_step, constant, step
from orchestrator.definitions.bodies import ForeachBody, SleepBody, WaitBody
from orchestrator.rules import graph
from tests.definitions.models import Order, always, charge, count, never, notify, pack, reserve


def only(workflow: Workflow) -> graph.Node:
    """Return the one node of a workflow's flow."""
    [node] = workflow.commit().compiled.flow
    return node


def test_every_builder_method_returns_the_workflow() -> None:
    workflow = Workflow("w")
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    assert workflow.then(reserve).parallel(charge, notify).map({"a": constant(1)}) is workflow
    assert workflow.branch((always, count)).do_while(pack, never).do_until(step(never), always) is workflow
    assert workflow.foreach(step(always)).sleep(1).sleep_until(moment).wait_for_event("go").commit() is workflow
    assert [type(node).__name__ for node in workflow.compiled.flow] == [
        *("Step", "Parallel", "Step", "Branch", "Loop", "Loop", "Foreach", "Sleep", "Sleep", "Wait"),
    ]


def test_the_entries_of_a_workflow_stand_under_their_ids() -> None:
    """They include mappings, sleeps, waits and timeouts, but not what is inside nested workflows."""
    inner = Workflow("inner").then(pack).commit()
    late = clone_step(pack, id="late")
    workflow = (
        Workflow("w")
        .then(reserve)
        .parallel(charge, inner)
        .map(always)
        .sleep(1)
        .wait_for_event("go", Order, timeout=1, on_timeout=late)
    )
    steps = workflow.steps
    assert list(steps) == ["reserve", "charge", "inner", "mapping_w_0", "sleep_w_0", "go", "late"]
    assert (steps["charge"], steps["inner"], steps["late"]) == (charge, inner, late)
    components = [entry.component for entry in steps.values()]
    assert components == ["STEP", "STEP", "WORKFLOW", "MAP", "SLEEP", "WAIT", "STEP"]
    assert steps["go"].output is Order


def test_a_plain_function_is_an_entry_under_its_name() -> None:
    """A lambda has no name, so it needs an id."""
    assert list(Workflow("w").then(always).then(lambda: 1, id="one").steps) == ["always", "one"]
    with pytest.raises(TypeError, match="a lambda needs an id"):
        Workflow("w").parallel(lambda: 1)


def test_an_entry_can_run_under_another_id() -> None:
    """This holds for a step, a workflow, a function and a task."""
    inner = Workflow("inner").then(pack).commit()
    workflow = Workflow("w").then(reserve, "a").then(inner, "b").then(always, "c").then("proj.tasks.add", id="d")
    assert list(workflow.steps) == ["a", "b", "c", "d"]
    assert isinstance(workflow.commit().compiled.flow[1], graph.Nested)


def test_one_step_can_stand_in_several_workflows() -> None:
    """It can also stand on several levels of one workflow."""
    inner = Workflow("inner").then(reserve).commit()
    outer = Workflow("outer").then(reserve).then(inner).commit()
    assert outer.compiled.find((), "reserve") == (0,)
    assert outer.compiled.find((1,), "reserve") == (1, 0)


@pytest.mark.parametrize("entry", [3, None, "", {}, [reserve], object()])
def test_what_is_no_entry_is_refused(entry: Any) -> None:
    """The message says what an entry is."""
    with pytest.raises(TypeError, match="is no entry: use a Step, a Workflow"):
        Workflow("w").then(entry)


@pytest.mark.parametrize("condition", [True, None, reserve, Workflow("w"), "name"])
def test_a_condition_must_be_a_function(condition: Any) -> None:
    """An entry in its place means that the two were swapped."""
    with pytest.raises(TypeError, match="the condition of do_while takes a function"):
        Workflow("w").do_while(pack, condition)
    with pytest.raises(TypeError, match=r"the condition of arm 1 of branch\(\) takes a function"):
        Workflow("w").branch((always, pack), (condition, reserve))


@pytest.mark.parametrize("arm", [reserve, (always,), (always, reserve, pack), [always, reserve]])
def test_an_arm_of_a_branch_is_a_pair(arm: Any) -> None:
    """The message names the arm by its place."""
    with pytest.raises(TypeError, match=r"arm 0 of branch\(\) is .*, not a pair"):
        Workflow("w").branch(arm)


def test_the_two_loops_differ_in_what_their_condition_means() -> None:
    """`do_while` goes on while it holds, `do_until` until it does."""
    loops = [only(Workflow("w").do_while(count, always)), only(Workflow("w").do_until(count, always))]
    assert [loop.until for loop in loops if isinstance(loop, graph.Loop)] == [False, True]


def test_the_concurrency_of_a_foreach_is_a_number_or_computed() -> None:
    """It is 1 by default."""
    nodes = [only(Workflow("w").foreach(pack)), only(Workflow("w").foreach(pack, concurrency=4))]
    nodes.append(only(Workflow("w").foreach(pack, concurrency=len)))
    assert [node.concurrency for node in nodes if isinstance(node, graph.Foreach)] == [1, 4, None]
    body = nodes[2].body if isinstance(nodes[2], graph.Foreach) else None
    assert isinstance(body, ForeachBody)
    assert body.concurrency is not None
    assert body.concurrency.call([1, 2], None) == 2
    with pytest.raises(TypeError, match="the concurrency of foreach takes a function"):
        Workflow("w").foreach(pack, concurrency="2")  # type: ignore[arg-type]


@pytest.mark.parametrize("given, seconds", [(2, 2.0), (0.5, 0.5), (-1, 0.0), (timedelta(minutes=1), 60.0)])
def test_a_sleep_takes_seconds_or_a_timedelta(given: Any, seconds: float) -> None:
    """A negative time counts as 0."""
    node = only(Workflow("w").sleep(given))
    assert isinstance(node, graph.Sleep)
    assert node.seconds == seconds


def test_a_computed_sleep_and_a_moment_are_for_the_engine() -> None:
    """The node has no seconds; its body has the function or the moment."""
    moment = datetime(2030, 1, 1, 12, tzinfo=UTC)
    computed, until = only(Workflow("w").sleep(len)), only(Workflow("w").sleep_until(moment))
    later = only(Workflow("w").sleep_until(always))
    assert isinstance(computed, graph.Sleep)
    assert isinstance(until, graph.Sleep)
    assert isinstance(later, graph.Sleep)
    bodies = [node.body for node in (computed, until, later)]
    assert [node.seconds for node in (computed, until, later)] == [None, None, None]
    assert all(isinstance(body, SleepBody) for body in bodies)
    found = [(body.callback and body.callback.name, body.until) for body in bodies if isinstance(body, SleepBody)]
    assert found == [("len", None), (None, moment), ("always", None)]


def test_a_moment_without_a_zone_is_local_time() -> None:
    naive = datetime(2030, 1, 1, 12)
    node = only(Workflow("w").sleep_until(naive))
    assert isinstance(node, graph.Sleep)
    assert isinstance(node.body, SleepBody)
    assert node.body.until == naive.astimezone(UTC)


@pytest.mark.parametrize("given", ["1", None, True])
def test_a_sleep_refuses_other_things(given: Any) -> None:
    """The builder method raises, before any commit."""
    with pytest.raises(TypeError, match="sleep takes seconds or a timedelta"):
        Workflow("w").sleep(given)
    with pytest.raises(TypeError, match="sleep_until takes a function"):
        Workflow("w").sleep_until(given)


def test_a_wait_is_named_by_its_event() -> None:
    """An id of its own takes the place of the event's name."""
    plain = only(Workflow("w").wait_for_event("go"))
    named = only(Workflow("w").wait_for_event("order paid!", Order, timedelta(minutes=1), pack, id="paid"))
    assert isinstance(plain, graph.Wait)
    assert isinstance(named, graph.Wait)
    assert (plain.id, plain.event, plain.timeout, plain.otherwise) == ("go", "go", None, None)
    assert (named.id, named.event, named.timeout) == ("paid", "order paid!", 60.0)
    assert named.otherwise is not None
    assert named.otherwise.id == "pack"
    assert isinstance(named.body, WaitBody)
    assert named.body.schema is Order
    with pytest.raises(TypeError, match="the name of an event"):
        Workflow("w").wait_for_event("")
    with pytest.raises(TypeError, match="the timeout of wait_for_event takes seconds"):
        Workflow("w").wait_for_event("go", timeout="1")  # type: ignore[arg-type]


def test_ids_are_generated_in_a_row() -> None:
    """They count by kind and workflow, and are the same whenever the workflow is built again."""

    def build(id: str) -> Workflow:
        inner = Workflow(f"{id}-inner").map(always).commit()
        return Workflow(id).map(always).map(always, id="named").map(always).sleep(1).then(inner).sleep(2).commit()

    ids = ["mapping_a_0", "named", "mapping_a_2", "sleep_a_0", "a-inner", "sleep_a_1"]
    assert [node.id for node in build("a").compiled.flow] == ids == [node.id for node in build("a").compiled.flow]
    nested = build("b").compiled.flow[4]
    assert isinstance(nested, graph.Nested)
    assert nested.flow[0].id == "mapping_b-inner_0"
    blocks = Workflow("w").parallel(pack).branch((always, reserve)).do_while(count, never).foreach(charge)
    blocks.parallel(notify)
    found = [node.id for node in blocks.commit().compiled.flow]
    assert found == ["parallel_w_0", "branch_w_0", "loop_w_0", "foreach_w_0", "parallel_w_1"]
