"""Time travel on the default runtime, by the public API alone: what is kept, what runs anew, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from orchestrator import (
    Context,
    GraphChanged,
    InputInvalid,
    Orchestrator,
    RunResult,
    Step,
    StepNotFound,
    StepNotSuspended,
    Workflow,
)
from orchestrator import step as as_step
from orchestrator.app import Run
from tests.cli.test_standalone import calling, data, problem

Function = Callable[[Any, Context[Any]], Any]


class A(BaseModel):
    """The input of the first of the typed steps."""

    a: int


class B(BaseModel):
    """The output of the first of the typed steps."""

    b: int


class Calls(list[tuple[str, Any, Any]]):
    """The calls of steps: id, input, and resume data (None unless resumed)."""

    def ids(self) -> list[str]:
        """Their ids, and none the next time."""
        found = [name for name, _, _ in self]
        self.clear()
        return found


@pytest.fixture
def calls() -> Calls:
    """Give the list of the calls that this test's steps got."""
    return Calls()


@pytest.fixture(params=["memory", "sqlite"])
def orchestrator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    """An orchestrator on a store of its own."""
    with Orchestrator(store=f"sqlite:///{tmp_path / 'runs.db'}" if request.param == "sqlite" else None) as found:
        yield found


@pytest.fixture
def make(calls: Calls) -> Callable[..., Step[Any, Any, Any]]:
    """Make a step that calls a function of its input and context, and hands its input on without one."""

    def maker(id_: str, function: Function = lambda x, _: x, **options: Any) -> Step[Any, Any, Any]:
        def call(x: Any, ctx: Context[Any]) -> Any:
            calls.append((id_, x, ctx.resume_data if ctx.resumed else None))
            return function(x, ctx)

        return as_step(call, id=id_, **options)

    return maker


def asks(x: Any, ctx: Context[Any]) -> Any:
    """Suspend until resumed; the resume data is the output."""
    if not ctx.resumed:
        ctx.suspend({"about": x})
    assert ctx.suspend_data == {"about": x}
    return ctx.resume_data


def breaks(*, times: int) -> Function:
    """Fail so often, then hand the input on."""
    left = [times]

    def function(x: Any, _: Context[Any]) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise ValueError("not yet")
        return x

    return function


def ok(output: Any, **more: Any) -> dict[str, Any]:
    """The result of a step that went well, as users give it."""
    return {"status": "success", "output": output, **more}


def outputs(result: RunResult) -> dict[str, Any]:
    """Return the outputs of a result's steps."""
    return {name: found.output for name, found in result.steps.items()}


def statuses(result: RunResult) -> dict[str, str]:
    """Return the statuses of a result's steps."""
    return {name: str(found.status) for name, found in result.steps.items()}


def untouched(run: Run, refusal: type[BaseException], match: str, *target: Any, **options: Any) -> BaseException:
    """The time travel is refused so, and the run is as it was."""
    before = (run.header(), run.orchestrator.store.load(run.run_id), run.orchestrator.store.state(run.run_id))
    with pytest.raises(refusal, match=match) as found:
        run.time_travel(*target, **options)
    assert before == (run.header(), run.orchestrator.store.load(run.run_id), run.orchestrator.store.state(run.run_id))
    return found.value


# --- items ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_foreach_that_had_ended_runs_its_items_anew(
    orchestrator: Orchestrator, make: Any, calls: Calls, depth: int, per_step: bool
) -> None:
    """On every level, and step by step."""
    flow = Workflow("fe").foreach(make("item", lambda x, _: x * 10)).then(make("post")).commit()
    outer = Workflow("pf").then(flow).commit() if depth else flow
    run = orchestrator.create_run(outer)
    run.start([1, 2])
    calls.clear()

    result = run.time_travel("fe.item" if depth else "item", per_step=per_step)

    if per_step:
        assert (result.status, calls.ids()) == ("paused", ["item", "item"])
        result = run.resume()
        assert calls.ids() == ["post"]
    else:
        assert calls.ids() == ["item", "item", "post"]
    assert (result.status, result.result) == ("success", [10, 20])


def test_a_foreach_that_had_failed_keeps_its_finished_items(
    orchestrator: Orchestrator, make: Any, calls: Calls
) -> None:
    """Only those that had not succeeded run again, with their own inputs; also twice."""
    fails = breaks(times=2)
    item = make("item", lambda x, ctx: fails(x, ctx) if x == 2 else x)
    flow = Workflow("fe").foreach(item).then(make("post")).commit()
    run = orchestrator.create_run(flow)
    assert run.start([1, 2, 3]).status == "failed"
    assert calls.ids() == ["item", "item"]
    assert run.time_travel("item").status == "failed"
    assert calls.ids() == ["item"]

    result = run.time_travel("item")

    assert [(name, x) for name, x, _ in calls] == [("item", 2), ("item", 3), ("post", [1, 2, 3])]
    assert result.result == [1, 2, 3]


def test_a_given_list_is_what_a_foreach_works_on(orchestrator: Orchestrator, make: Any) -> None:
    """Given as the output of the step before, or as the input; what was stored does not count then."""
    item = make("item", lambda x, ctx: x * 10 if x < 9 else breaks(times=1)(x, ctx))
    flow = Workflow("fe").then(make("pre")).foreach(item).commit()
    run = orchestrator.create_run(flow)
    assert run.start([1, 9]).status == "failed"

    assert run.time_travel("item", context={"pre": ok([5, 6])}).result == [50, 60]
    assert run.time_travel("item", input=[7]).result == [70]
    untouched(run, InputInvalid, "list", "item", input=7)


def test_a_step_inside_items_is_no_target(orchestrator: Orchestrator, make: Any) -> None:
    """The refusal says what is."""
    child = Workflow("child").then(make("c1", asks)).commit()
    run = orchestrator.create_run(Workflow("w").foreach(child).commit())
    assert run.start([1, 2]).suspended == [["child", "c1"]]

    untouched(run, StepNotFound, "runs once for each item: travel to child as a whole", "child.c1")


# --- resume data ------------------------------------------------------------------------------------------------------


def test_resume_data_goes_to_the_later_step_that_had_suspended(
    orchestrator: Orchestrator, make: Any, calls: Calls
) -> None:
    """The target runs as it always does; so does what comes after both."""
    run = orchestrator.create_run(Workflow("t").then(make("g")).then(make("pa", asks)).then(make("z")).commit())
    run.start(1)
    calls.clear()

    result = run.time_travel("g", resume_data=5)

    assert calls == [("g", 1, None), ("pa", 1, 5), ("z", 5, None)]
    assert result.steps["pa"].resume_payload == 5
    assert run.time_travel("g").status == "suspended", "a pending resume does not outlive its generation"


def test_resume_data_for_a_suspended_target(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """It begins as a resumed one, with its own input."""
    run = orchestrator.create_run(Workflow("t").then(make("g")).then(make("pa", asks)).commit())
    run.start(1)
    calls.clear()

    assert run.time_travel("pa", resume_data=0).result == 0
    assert calls == [("pa", 1, 0)]


def test_resume_data_for_a_nested_workflow(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """It reaches the step inside that had suspended."""
    nested = Workflow("n").then(make("a")).then(make("s", asks)).commit()
    run = orchestrator.create_run(Workflow("w").then(nested).then(make("z")).commit())
    run.start(1)
    calls.clear()

    assert run.time_travel("n", resume_data=7).result == 7
    assert calls == [("a", 1, None), ("s", 1, 7), ("z", 7, None)]


def test_resume_data_for_two_arms(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """Each of those that had suspended gets it; the arm between them runs anew."""
    arms = make("a", asks), make("m"), make("b", asks)
    run = orchestrator.create_run(Workflow("w").then(make("g")).parallel(*arms).commit())
    run.start(1)
    calls.clear()

    assert run.time_travel("g", resume_data=7).result == {"a": 7, "m": 1, "b": 7}
    assert sorted(calls.ids()) == ["a", "b", "g", "m"]


@pytest.mark.parametrize("target", ["g", "item"])
@pytest.mark.parametrize("nested", [False, True])
def test_resume_data_for_items(orchestrator: Orchestrator, make: Any, calls: Calls, target: str, nested: bool) -> None:
    """Those that had suspended get it, finished ones stay, those that had not begun run without it."""
    body = make("item", lambda x, ctx: x if x % 2 else asks(x, ctx))
    if nested:
        body = (
            Workflow("item")
            .then(make("inner"))
            .then(make("leaf", lambda x, ctx: x if x % 2 else asks(x, ctx)))
            .commit()
        )
    flow = Workflow("w").then(make("g")).foreach(body, concurrency=2).then(make("z")).commit()
    run = orchestrator.create_run(flow)
    assert run.start([1, 2, 3, 4, 6]).status == "suspended"
    calls.clear()

    result = run.time_travel(target, resume_data="r")

    leaf = "leaf" if nested else "item"
    ran = [(x, said) for name, x, said in calls if name == leaf]
    assert (result.status, sorted(ran)) == ("suspended", [(2, "r"), (4, "r"), (6, None)])
    assert run.resume("s").result == [1, "r", 3, "r", "s"]


def test_resume_data_in_a_list_of_another_length(orchestrator: Orchestrator, make: Any) -> None:
    """It is another list: its items begin anew."""
    flow = Workflow("w").then(make("g", lambda x, _: x)).foreach(make("item", asks), concurrency=2).commit()
    run = orchestrator.create_run(flow)
    run.start([1, 2])

    assert run.time_travel("g", input=[1, 2, 3], resume_data="r").status == "suspended"
    assert run.resume("s").status == "suspended"
    assert run.resume("t").result == ["s", "s", "t"]


def test_resume_data_in_a_loop(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """Of a suspended body, the iteration goes on; a loop behind the target has it in its first one, and no other."""

    def body(_: Any, ctx: Context[Any]) -> Any:
        return ctx.resume_data if ctx.resumed else ctx.suspend()

    flow = Workflow("w").then(make("g")).do_while(make("body", body), lambda x: x < 9).commit()
    run = orchestrator.create_run(flow)
    run.start(0)
    run.resume(1)
    calls.clear()

    assert run.time_travel("body", resume_data=2).status == "suspended"
    assert calls == [("body", 1, 2), ("body", 2, None)]
    calls.clear()
    assert run.time_travel("g", resume_data=3).status == "suspended"
    assert calls == [("g", 0, None), ("body", 0, 3), ("body", 3, None)]


def test_resume_data_is_checked_against_the_step_that_gets_it(orchestrator: Orchestrator, make: Any) -> None:
    """Against the type of the step that had suspended; where there is none, it is refused."""
    nested = Workflow("n").then(make("inner")).commit()
    flow = Workflow("w").then(make("g")).then(make("pa", asks, resume=A)).then(nested).commit()
    run = orchestrator.create_run(flow)
    run.start(1)

    untouched(run, InputInvalid, "Invalid resume data", "g", resume_data={"b": 1})
    assert run.resume({"a": 1}).status == "success"
    untouched(run, StepNotSuspended, "nobody for the resume data", "n", resume_data=1)


def test_a_given_suspended_result_gets_the_resume_data(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """On a run that was never seen, too."""
    run = orchestrator.create_run(Workflow("t").then(make("g")).then(make("pa", asks)).commit())
    record = {"status": "suspended", "suspend_payload": {"about": 3}}

    assert run.time_travel("g", input=3, context={"pa": record}, resume_data=5).result == 5
    assert calls == [("g", 3, None), ("pa", 3, 5)]


# --- arms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_step", [False, True])
def test_suspended_arms_beside_the_target_stay_suspended(
    orchestrator: Orchestrator, make: Any, calls: Calls, per_step: bool
) -> None:
    """They are resumed as ever, and the block is joined when all have ended."""
    flow = Workflow("p").parallel(make("a", asks), make("b", asks), make("c")).then(make("z")).commit()
    run = orchestrator.create_run(flow)
    run.start(1)
    calls.clear()

    result = run.time_travel("c", per_step=per_step)

    assert (result.status, calls.ids()) == ("suspended", ["c"])
    assert statuses(result) == {"a": "suspended", "b": "suspended", "c": "success"}
    run.resume(2, step="a")
    assert run.resume(3, step="b").result == {"a": 2, "b": 3, "c": 1}


def test_a_suspended_foreach_beside_the_target_goes_on(orchestrator: Orchestrator, make: Any) -> None:
    """Its items that had not begun have their inputs in the new generation too; also after two travels."""
    items = Workflow("items").foreach(make("item", asks)).commit()
    run = orchestrator.create_run(Workflow("p").parallel(items, make("c", lambda *_: 0)).commit())
    run.start([1, 2, 3])
    run.time_travel("c")
    run.time_travel("c")

    results = [run.resume(word) for word in "xyz"]

    assert results[-1].result == {"items": ["x", "y", "z"], "c": 0}


def test_failed_arms_beside_the_target_run_anew(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """An arm that had succeeded stays; where failures are allowed, a failed one does too."""
    arms = make("a", breaks(times=1)), make("b", breaks(times=1)), make("c")
    run = orchestrator.create_run(Workflow("p").parallel(*arms).commit())
    assert run.start(1).status == "failed"
    calls.clear()
    assert run.time_travel("a").result == {"a": 1, "b": 1, "c": 1}
    assert sorted(calls.ids()) == ["a", "b"]

    tolerant = Workflow("q").parallel(make("a"), make("b", breaks(times=1)), allow_failure=True).commit()
    run = orchestrator.create_run(tolerant)
    assert run.start(1).result == {"a": 1, "b": None}
    calls.clear()
    assert run.time_travel("a").result == {"a": 1, "b": None}
    assert calls.ids() == ["a"]


def test_a_new_run_begins_in_an_arm(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """The other arms of a parallel belong to it, given or not; step by step they wait for their turn."""
    flow = Workflow("p").parallel(make("a"), make("b"), make("c")).then(make("z")).commit()

    run = orchestrator.create_run(flow)
    assert run.time_travel("b", input=1, context={"a": ok(5)}).result == {"a": 5, "b": 1, "c": 1}
    assert sorted(calls.ids()) == ["b", "c", "z"]

    run = orchestrator.create_run(flow)
    paused = run.time_travel("b", input=1, per_step=True)
    assert (paused.status, calls.ids(), statuses(paused)) == ("paused", ["b"], {"b": "success"})
    assert run.resume().result == {"a": 1, "b": 1, "c": 1}


def test_arms_that_the_conditions_had_not_chosen_are_skipped(orchestrator: Orchestrator, make: Any) -> None:
    """The output of the arm that had run instead of the target does not leak; one that had run with it stays."""
    arms = (lambda x: x > 0, make("A")), (lambda x: x < 0, make("B")), (lambda x: x > 1, make("C"))
    flow = Workflow("b").branch(*arms).commit()
    run = orchestrator.create_run(flow)
    assert run.start(-1).result == {"B": -1}
    result = run.time_travel("A")
    assert (result.result, result.steps["B"].status) == ({"A": -1}, "skipped")

    run = orchestrator.create_run(flow)
    assert run.start(2).result == {"A": 2, "C": 2}
    assert run.time_travel("A").result == {"A": 2, "C": 2}
    assert run.time_travel("A", input=1).result == {"A": 1}, "the conditions may say something else of another input"
    assert run.time_travel("A", context={"C": ok(3)}).result == {"A": 1, "C": 3}


# --- what does not fit ------------------------------------------------------------------------------------------------


def typed(orchestrator: Orchestrator, **options: Any) -> Run:
    """A finished run of two typed steps."""

    def one(given: A) -> B:
        return B(b=given.a + 3)

    def two(given: B) -> A:
        return A(a=given.b + 1)

    steps = as_step(one, id="one"), as_step(two, id="two")
    run = orchestrator.create_run(Workflow(f"typed-{uuid4().hex}", **options).then(steps[0]).then(steps[1]).commit())
    assert run.start({"a": 7}).result == A(a=11)
    return run


def test_a_context_that_does_not_fit_is_refused(orchestrator: Orchestrator) -> None:
    """The refusal names the step, and the run can travel on."""
    run = typed(orchestrator)

    untouched(run, InputInvalid, "output of step 'one'", "two", context={"one": ok({"zzz": 1})})
    untouched(run, InputInvalid, "output of step 'two'", "one", context={"two": ok(1)})
    assert run.time_travel("two", context={"one": ok({"b": 1})}).result == A(a=2)


def test_an_input_that_does_not_fit_is_refused(orchestrator: Orchestrator) -> None:
    """Unless the workflow does not check inputs; what is not typed takes all."""
    untouched(typed(orchestrator), InputInvalid, "input of step 'two'(.|\n)*b", "two", input={"x": 1})

    def lax(given: B) -> Any:
        return given

    for flow in (
        Workflow("lax", validate_inputs=False).then(as_step(lax, id="lax")),
        Workflow("any").then(as_step(lambda x: x, id="lax")),
    ):
        run = orchestrator.create_run(flow.commit())
        assert run.time_travel("lax", input={"x": 1}).result == {"x": 1}


def test_a_state_that_does_not_fit_is_refused(orchestrator: Orchestrator, make: Any) -> None:
    """The model's defaults are filled in."""

    class State(BaseModel):
        count: int
        more: int = 2

    flow = Workflow("s", state=State).then(make("a")).then(make("b", lambda _, ctx: dict(ctx.state))).commit()
    run = orchestrator.create_run(flow)
    run.start(1, state={"count": 1})

    untouched(run, InputInvalid, "State does not fit", "b", state={"count": "x"})
    assert run.time_travel("b", state={"count": 5, "other": 1}).result == {"count": 5, "more": 2}
    assert run.result().state == {"count": 5, "more": 2, "other": 1}
    fresh = orchestrator.create_run(flow)
    untouched(fresh, InputInvalid, "State does not fit", "a", input=1)
    assert fresh.time_travel("a", input=1, state={"count": 3}).result == {"count": 3, "more": 2}


@pytest.mark.parametrize(
    "target, options",
    [
        ("b", {"context": {"a": "x"}}),
        ("b", {"context": [1]}),
        ("b", {"context": {1: ok(1)}}),
        ("b", {"context": {"a": ok(1, ended_at="noon")}}),
        ("b", {"context": {"a": {"status": "fine"}}}),
        ("b", {"nested_context": {"inc": 5}}),
        ("b", {"nested_context": {"inc": {"x": 5}}}),
        ("b", {"nested_context": [1]}),
        ("b", {"state": 3}),
        ("b", {"request_context": [1]}),
        (5, {}),
        (["b", 5], {}),
    ],
)
def test_what_has_the_wrong_shape_is_refused(
    orchestrator: Orchestrator, make: Any, target: Any, options: dict[str, Any]
) -> None:
    """By a TypeError that names it."""
    run = orchestrator.create_run(Workflow("w").then(make("a")).then(make("b")).commit())
    run.start(1)
    name = next(iter(options), "step")

    error = untouched(run, TypeError, name.removeprefix("nested_"), target, **options)

    assert "attribute" not in str(error)


def test_a_new_run_cannot_begin_where_nothing_is_known(orchestrator: Orchestrator, make: Any) -> None:
    """It stays pending; the first step begins like any run."""
    flow = Workflow("w").then(make("a")).sleep(0).then(make("b")).then(make("c")).commit()
    run = orchestrator.create_run(flow)

    untouched(run, GraphChanged, "give `input`, or step 'b'", "c")
    untouched(run, GraphChanged, "give `input`, or step 'a'", "b")
    assert run.time_travel("a").result is None

    declared = Workflow("v", input=A).then(make("a")).then(make("b")).commit()
    run = orchestrator.create_run(declared)
    untouched(run, InputInvalid, "Invalid input", "a")
    untouched(run, InputInvalid, "a", "a", input={"b": 1})
    assert run.start({"a": 1}).status == "success"


def test_the_input_of_a_workflow_has_to_be_what_it_declares(orchestrator: Orchestrator, make: Any) -> None:
    """Of the whole one or of a nested one; defaults are filled in."""

    class Told(BaseModel):
        a: int
        more: int = 2

    inner = Workflow("n", input=Told).then(make("x")).commit()
    run = orchestrator.create_run(Workflow("w", input=Told).then(make("pre")).then(inner).commit())

    untouched(run, InputInvalid, "a: Field required", "pre", input={})
    untouched(run, InputInvalid, "a: Field required", "n.x", input={})
    untouched(run, InputInvalid, "a: Field required", "n", input={})
    result = run.time_travel("n.x", input={"a": 1})
    assert (result.input, result.result) == (None, {"a": 1, "more": 2})
    assert run.time_travel("pre", input={"a": 3}).input == Told(a=3)

    lenient = Workflow("v", input=Told | None).then(make("x")).commit()
    assert orchestrator.create_run(lenient).time_travel("x").result is None


# --- the input --------------------------------------------------------------------------------------------------------


def test_the_input_is_what_the_step_before_has_made(orchestrator: Orchestrator, make: Any) -> None:
    """On a new run and on a finished one; also where that step had failed."""
    seen = make("s3", lambda x, ctx: [x, ctx.result("s2")])
    flow = Workflow("w").then(make("s1")).then(make("s2")).then(seen).commit()
    run = orchestrator.create_run(flow)

    result = run.time_travel("s3", input={"q": 1})
    assert outputs(result) == {"s2": {"q": 1}, "s3": [{"q": 1}, {"q": 1}]}

    run = orchestrator.create_run(flow)
    before = run.start(1)
    result = run.time_travel("s3", input=2)
    assert outputs(result) == {"s1": 1, "s2": 2, "s3": [2, 2]}
    assert result.steps["s2"].payload == 1
    assert result.steps["s2"].ended_at == before.steps["s2"].ended_at
    assert result.execution_path == ["s1", "s2", "s3"]

    failing = Workflow("f").then(make("s1")).then(make("s2", breaks(times=1))).then(seen).commit()
    run = orchestrator.create_run(failing)
    assert run.start(1).status == "failed"
    result = run.time_travel("s3", input=2)
    assert (outputs(result), result.steps["s2"].error) == ({"s1": 1, "s2": 2, "s3": [2, 2]}, None)


def test_what_had_failed_before_the_target_counts_as_a_success(orchestrator: Orchestrator, make: Any) -> None:
    """It has made nothing, which has to fit what takes it; what waits has to be given."""
    flow = Workflow("f").then(make("s1", breaks(times=9))).then(make("s2")).commit()
    run = orchestrator.create_run(flow)
    run.start(1)
    result = run.time_travel("s2")
    assert (statuses(result), result.result) == ({"s1": "success", "s2": "success"}, None)

    def wants(given: A) -> int:
        return given.a

    flow = Workflow("g").then(make("s1", breaks(times=9))).then(as_step(wants, id="s2")).commit()
    run = orchestrator.create_run(flow)
    run.start(1)
    untouched(run, InputInvalid, "input of step 's2'", "s2")

    run = orchestrator.create_run(Workflow("h").then(make("s1", asks)).then(make("s2")).commit())
    run.start(1)
    untouched(run, GraphChanged, "'s1' stands before the target and has not ended", "s2")
    assert run.resume(4).result == 4


def test_the_input_of_the_first_step_is_the_runs(orchestrator: Orchestrator, make: Any) -> None:
    """Of a new run and of a finished one; in a nested workflow it is that one's."""
    flow = Workflow("w").then(make("a", lambda _, ctx: ctx.init_data)).commit()
    run = orchestrator.create_run(flow)
    result = run.time_travel("a", input={"q": 1})
    assert (result.input, result.result) == ({"q": 1}, {"q": 1})
    result = run.time_travel("a", input=2)
    assert (result.input, result.result) == (2, 2)
    assert run.time_travel("a").result == 2

    outer = Workflow("o").then(make("pre")).then(flow).commit()
    run = orchestrator.create_run(outer)
    run.start(1)
    result = run.time_travel("w.a", input=5)
    assert (result.input, result.result, result.steps["w"].payload) == (1, 5, 5)


def test_the_input_behind_a_block_is_what_its_arms_have_made(orchestrator: Orchestrator, make: Any) -> None:
    """A dict is taken apart; behind a loop it is what the body made, behind a sleep what it passes on."""
    seen = make("z", lambda x, ctx: [x, ctx.result("a"), ctx.result("b")])
    run = orchestrator.create_run(Workflow("w").parallel(make("a"), make("b")).then(seen).commit())
    assert run.time_travel("z", input={"a": 1, "b": 2}).result == [{"a": 1, "b": 2}, 1, 2]
    assert run.time_travel("z", input=3).result == [3, 1, 2]

    loops = Workflow("l").do_until(make("body"), lambda _: True).then(make("z")).commit()
    run = orchestrator.create_run(loops)
    run.start(1)
    assert outputs(run.time_travel("z", input=4)) == {"body": 4, "z": 4}

    naps = Workflow("n").then(make("a")).sleep(0, id="nap").then(make("z")).commit()
    run = orchestrator.create_run(naps)
    run.start(1)
    assert outputs(run.time_travel("z", input=4)) == {"a": 1, "nap": 4, "z": 4}
    assert outputs(run.time_travel("z", context={"a": ok(5)})) == {"a": 5, "nap": 5, "z": 5}


def test_a_given_past_reaches_a_step_inside_a_nested_workflow(orchestrator: Orchestrator, make: Any) -> None:
    """The output of the step before the nested workflow is its input."""
    inner = Workflow("n").then(make("a")).then(make("b", lambda x, ctx: [x, ctx.init_data])).commit()
    run = orchestrator.create_run(Workflow("w").then(make("pre")).then(inner).commit())
    run.start(1)

    assert run.time_travel("n.a", context={"pre": ok(2)}).result == [2, 2]
    assert run.time_travel("n.b", nested_context={"n": {"a": ok(3)}}).result == [3, 2]


# --- results that users give ------------------------------------------------------------------------------------------


def test_given_results_keep_payload_and_times(orchestrator: Orchestrator) -> None:
    """As dicts, and as a result has them."""
    run = typed(orchestrator)
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    record = ok({"b": 10}, payload={"a": 7}, started_at=moment, ended_at=moment.timestamp() * 1000 + 5)

    one = run.time_travel("two", context={"one": record}).steps["one"]

    assert (one.payload, one.output, one.started_at) == ({"a": 7}, B(b=10), moment)
    assert one.ended_at == moment.replace(microsecond=5000)


def test_results_can_be_passed_back(orchestrator: Orchestrator, make: Any) -> None:
    """On a new run: with all that they say, and the run's input."""
    flow = Workflow("w").then(make("one", asks)).then(make("two", lambda x, ctx: [x, ctx.init_data])).commit()
    run = orchestrator.create_run(flow)
    run.start(7)
    result = run.resume(8)

    copy = orchestrator.create_run(flow).time_travel("two", context=result.steps)

    assert copy.steps["one"] == result.steps["one"]
    assert (copy.input, copy.result) == (7, [8, 7])


# --- loops ------------------------------------------------------------------------------------------------------------


def test_a_loop_that_had_failed_goes_on_where_it_was(orchestrator: Orchestrator, make: Any, calls: Calls) -> None:
    """With the number and the stored input of that iteration; one that had ended begins anew."""
    fails = breaks(times=1)
    seen: list[int | None] = []

    def body(x: Any, ctx: Context[Any]) -> Any:
        seen.append(ctx.iteration)
        return fails(x, ctx) + 1 if x == 2 else x + 1

    flow = Workflow("w").do_until(make("body", body), lambda x: x >= 4).then(make("z")).commit()
    run = orchestrator.create_run(flow)
    assert run.start(0).status == "failed"
    calls.clear()
    seen.clear()

    assert run.time_travel("body").result == 4
    assert [x for name, x, _ in calls if name == "body"] == [2, 3]
    assert seen == [3, 4]
    calls.clear()
    seen.clear()
    assert run.time_travel("body").result == 4
    assert [x for name, x, _ in calls if name == "body"] == [0, 1, 2, 3]
    assert seen == [1, 2, 3, 4]
    seen.clear()
    assert run.time_travel("body", input=3).result == 4
    assert seen == [1]


# --- around it --------------------------------------------------------------------------------------------------------


def test_a_refused_travel_leaves_what_was_delivered(
    orchestrator: Orchestrator, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime forgets the result of the older generation once the new one has begun, and not before."""
    run = orchestrator.create_run(Workflow("w").then(make("a")).commit())
    run.start(1)
    lives: list[int] = []
    monkeypatch.setattr(
        orchestrator.executor.runtime, "discard_result", lambda _: lives.append(run.header().generation)
    )

    untouched(run, StepNotFound, "nowhere", "nowhere")
    untouched(run, TypeError, "state", "a", state=1)
    assert lives == []
    run.time_travel("a")
    assert lives == [1]


def test_nested_results_on_the_command_line() -> None:
    """Like those of the outermost workflow."""
    call = calling("--store", f"memory://cli-{uuid4().hex}", "--workflows", "tests.cli.flows:ALL")
    call("start", "adding", "1", "--run-id", "one")

    assert "JSON object" in problem(call("travel", "one", "add", "--nested-context", "[1]"), 2)
    assert "no step result" in problem(call("travel", "one", "add", "--nested-context", '{"n": {"a": 1}}'), 2)
    assert "has no step results" in problem(call("travel", "one", "add", "--nested-context", '{"n": 1}'), 2)
    assert "'n'" in call("travel", "one", "add", "--nested-context", '{"n": {"a": {"output": 1}}}').output
    assert data(call("travel", "one", "add", "--nested-context", "{}", "--json"))["result"] == 2
