"""`commit`: the whole graph is checked, and every problem is listed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ForwardRef
from typing import TypedDict as TypingTypedDict

import pytest
from pydantic import BaseModel

from orchestrator import (
    FlowNotCommitted,
    FlowNotDefined,
    GraphInvalid,
    Step,
    Workflow,
    clone_step,
    clone_workflow,
    from_step,
    step,
    template,
)
from orchestrator.rules.bounds import MAX_NESTING
from tests.definitions.models import Order, always, charge, never, notify, pack, reserve


def problems(workflow: Workflow) -> list[str]:
    """Return what `commit` says is wrong."""
    with pytest.raises(GraphInvalid) as caught:
        workflow.commit()
    assert not workflow.committed
    assert caught.value.details == {"workflow_id": workflow.id}
    return list(caught.value.problems)


def test_a_workflow_without_a_flow_cannot_be_used() -> None:
    """It can neither be committed nor run."""
    workflow = Workflow("w")
    for use in (workflow.commit, workflow.require_committed, workflow.graph, lambda: workflow.compiled):
        with pytest.raises(FlowNotDefined, match="Execution flow of workflow is not defined"):
            use()


def test_an_uncommitted_workflow_cannot_be_run() -> None:
    workflow = Workflow("w").then(reserve)
    assert not workflow.committed
    with pytest.raises(FlowNotCommitted, match="Uncommitted step flow changes detected"):
        workflow.require_committed()
    workflow.commit().require_committed()
    assert workflow.committed


def test_an_addition_after_a_commit_is_uncommitted() -> None:
    """The committed graph is not used any more until the next commit."""
    workflow = Workflow("w").then(reserve).commit().then(charge)
    assert not workflow.committed
    with pytest.raises(FlowNotCommitted):
        _ = workflow.compiled
    assert len(workflow.commit().compiled.flow) == 2


def test_a_second_commit_without_a_change_does_nothing() -> None:
    """The graph is still the same object."""
    workflow = Workflow("w").then(reserve).commit()
    assert workflow.compiled is workflow.commit().compiled


def test_every_problem_is_listed_at_once() -> None:
    """Each names its place."""
    remedy = "give one of them another id: clone_step"
    nowhere = "no entry of this workflow has that id (those of nested workflows do not count)"
    reserved, charged = '(reserve, id="reserve_2")', '(charge, id="charge_2")'
    arms = "arm 1 of parallel_bad id_0, arm 2 of parallel_bad id_0"
    empty = Workflow("empty")
    open_ = Workflow("open").then(pack)
    workflow = (
        Workflow("bad id")
        .then(reserve)
        .parallel(reserve, charge, charge)
        .parallel()
        .branch()
        .then(empty)
        .then(open_)
        .then(step(always, id="input"))
        .then(step(always, id="a.b"))
        .foreach(pack, concurrency=0)
        .sleep(float("inf"))
        .wait_for_event("go now")
        .wait_for_event("late", on_timeout=notify)
        .wait_for_event("never", timeout=float("nan"))
        .map({"x": from_step("nope")}, id="mapped")
    )
    assert problems(workflow) == [
        "the workflow's id 'bad id' must match [A-Za-z0-9_-]+",
        "parallel_bad id_1 has no entries",
        "branch_bad id_0 has no arms",
        "the nested workflow 'empty' has no flow",
        "the nested workflow 'open' has uncommitted changes: call its .commit() first",
        "the concurrency of foreach_bad id_0 (pack) must be 1 or more, not 0",
        "sleep_bad id_0 sleeps inf seconds, which never end",
        "the wait 'late' has on_timeout, but no timeout",
        "the timeout of the wait 'never' is nan, which never ends",
        f"the id 'reserve' is used 2 times: an entry of its own, arm 0 of parallel_bad id_0; {remedy}{reserved}",
        f"the id 'charge' is used 2 times: {arms}; {remedy}{charged}",
        "the id 'input' (an entry of its own) is reserved",
        "the id 'a.b' (an entry of its own) must match [A-Za-z0-9_-]+",
        "the id 'sleep_bad id_0' (a sleep) must match [A-Za-z0-9_-]+",
        "the id 'go now' (a wait) must match [A-Za-z0-9_-]+",
        f"the mapping 'mapped' takes 'x' from the step 'nope', but {nowhere}",
    ]


def test_the_message_has_every_problem() -> None:
    """One line each, under the workflow's name."""
    with pytest.raises(GraphInvalid, match=r"(?s)The graph of the workflow 'w' is not valid:\n- the id.*\n- the id"):
        Workflow("w").parallel(reserve, reserve, charge, charge).commit()


def test_the_same_id_in_a_nested_workflow_is_no_conflict() -> None:
    """Each workflow has its own ids."""
    inner = Workflow("inner").then(reserve).commit()
    assert Workflow("w").then(reserve).then(inner).commit().committed


def test_a_name_of_a_mapping_or_timeout_counts() -> None:
    """It is an id like that of any entry."""
    workflow = Workflow("w").then(pack).map(always, id="pack").wait_for_event("go", timeout=1, on_timeout=pack)
    [problem] = problems(workflow)
    assert problem.startswith("the id 'pack' is used 3 times: an entry of its own, a mapping, the timeout of go")


def test_a_workflow_nested_in_itself_is_refused() -> None:
    """It may be so directly, or through another workflow."""
    direct = Workflow("a").then(reserve)
    assert problems(direct.then(direct)) == ["the workflow 'a' is nested in itself: a in a"]
    first = Workflow("first").then(reserve).commit()
    second = Workflow("second").then(first).commit()
    assert problems(first.then(second)) == ["the workflow 'first' is nested in itself: first in second in first"]


def nest(workflow: Workflow, levels: int) -> Workflow:
    """Put a committed workflow into as many others, one inside the next."""
    for level in range(levels):
        workflow = Workflow(f"w{level}").then(workflow).commit()
    return workflow


def test_workflows_may_stand_inside_each_other_up_to_a_limit() -> None:
    """Far more than anybody writes; what a limit of Python's would say names nothing."""
    deepest = nest(Workflow("innermost").then(reserve).commit(), MAX_NESTING - 1)
    assert len(list(deepest.compiled.walk())) == MAX_NESTING
    assert deepest.mermaid()
    assert deepest.graph()
    [problem] = problems(Workflow("one").then(deepest))
    assert problem.startswith(
        f"the nested workflow 'w{MAX_NESTING - 2}' makes more than {MAX_NESTING} workflows inside"
    )


def test_a_circle_further_down_is_no_endless_search() -> None:
    """It is the mistake of another workflow, whose commit names it."""
    first = Workflow("first").then(reserve).commit()
    second = Workflow("second").then(first).commit()
    first.then(second)
    [problem] = problems(Workflow("outer").then(second))
    assert "nested in itself" in problem


def test_a_nested_workflow_that_was_changed_must_be_committed_again() -> None:
    """The outer one that was committed before keeps its graph."""
    inner = Workflow("inner").then(reserve).commit()
    outer = Workflow("outer").then(inner).commit()
    inner.then(charge)
    assert len(problems(Workflow("other").then(inner))) == 1
    assert outer.committed
    assert outer.compiled.find((0,), "charge") is None


def test_a_mapping_may_speak_of_steps_that_run_later_or_never() -> None:
    """The run decides if they have a result; a template may even name a step that does not exist."""
    late = clone_step(reserve, id="late")
    spec = {"late": from_step([late, "notify"]), "wait": from_step("go"), "text": template("${steps.nonexistent}")}
    workflow = Workflow("w").map(spec).then(late).branch((never, notify))
    workflow.wait_for_event("go", timeout=1, on_timeout=pack)
    assert workflow.map({"late": from_step(pack), "map": from_step("mapping_w_0")}).commit().committed


def test_a_mapping_from_a_step_that_is_nowhere_is_a_problem() -> None:
    """Other sources of the mapping do not matter; steps inside a nested workflow are that workflow's own."""
    inner = Workflow("inner").then(charge).commit()
    spec = {"inner": from_step(inner), "a": from_step([reserve, "chrage"]), "b": from_step(charge, "total")}
    workflow = Workflow("w").then(reserve).then(inner).map(spec)
    assert [problem.partition(", but")[0] for problem in problems(workflow)] == [
        "the mapping 'mapping_w_0' takes 'a' from the step 'chrage'",
        "the mapping 'mapping_w_0' takes 'b' from the step 'charge'",
    ]


def test_a_copy_names_its_own_generated_ids() -> None:
    """The generated ids of the original are unknown in it."""
    flow = Workflow("w").map(always).map({"first": from_step("mapping_w_0")}).commit()
    with pytest.raises(GraphInvalid, match="from the step 'mapping_w_0'"):
        clone_workflow(flow, id="other")


REPEATED: dict[str, tuple[Workflow, str]] = {
    "then": (Workflow("w").then(pack).then(pack), '.then(pack, id="pack_2")'),
    "third": (Workflow("w").then(pack).then(pack, id="pack_2").then(pack), '.then(pack, id="pack_3")'),
    "no name": (Workflow("w").then(pack, id="a-b").then(pack, id="a-b"), '.then(..., id="a-b_2")'),
    "body": (Workflow("w").then(pack).foreach(pack), 'clone_step(pack, id="pack_2")'),
    "task": (Workflow("w").then("shop.pack").parallel("shop.pack"), 'step(..., id="pack_2")'),
    "workflow": (
        Workflow("w").then(pack).parallel(Workflow("pack").then(reserve).commit()),
        'clone_workflow(..., id="pack_2")',
    ),
    "map": (Workflow("w").then(pack).map(always, id="pack"), '.map(..., id="pack_2")'),
    "sleep": (Workflow("w").then(pack).sleep(1, id="pack"), '.sleep(..., id="pack_2")'),
    "wait": (Workflow("w").wait_for_event("pack").wait_for_event("pack"), '.wait_for_event(..., id="pack_2")'),
    "timeout": (Workflow("w").wait_for_event("pack", timeout=1, on_timeout=pack), 'clone_step(pack, id="pack_2")'),
}


@pytest.mark.parametrize("name", REPEATED)
def test_an_id_that_is_used_twice_comes_with_a_remedy(name: str) -> None:
    """The remedy is code for the last use, with an id that is free."""
    workflow, remedy = REPEATED[name]
    [problem] = problems(workflow)
    assert problem.endswith(f"; give one of them another id: {remedy}")


def test_uses_that_look_alike_are_named_once() -> None:
    """The same place said twice would tell nothing."""
    [problem] = problems(Workflow("w").then(pack).then(reserve).then(pack))
    assert problem.startswith("the id 'pack' is used 2 times: each is an entry of its own; give")


TEXTS: dict[str, Any] = {"text": "int", "name": "Nowhere", "reference": ForwardRef("int"), "part": list["Nowhere"]}  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("name", TEXTS)
def test_a_type_that_is_text_is_refused_where_it_is_written(name: str) -> None:
    """There is no function in whose module the name could be looked up."""
    for keyword in ("input", "output", "state"):
        with pytest.raises(TypeError, match=f"workflow 'w': {keyword}.*the types? themselves|the type itself"):
            Workflow("w", **{keyword: TEXTS[name]})
    with pytest.raises(TypeError, match=r"the schema of wait_for_event.*give the type"):
        Workflow("w").wait_for_event("go", schema=TEXTS[name])


def test_types_are_taken_as_they_are() -> None:
    """None and Any declare nothing."""
    workflow = Workflow("w", input=list[Order], output=Any, state=None)
    assert (workflow.input, workflow.output, workflow.state) == (list[Order], None, None)
    assert Workflow("w", input=list["int"]).input == list[int]


def test_wrong_options_are_refused_at_once() -> None:
    """An id that is no text and a negative number are such."""
    with pytest.raises(TypeError, match="a workflow's id is a text"):
        Workflow(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workflow 'w': retries must be 0 or more, not -1"):
        Workflow("w", retries=-1)
    with pytest.raises(TypeError, match="workflow 'w': retry_delay is a number, not '3'"):
        Workflow("w", retry_delay="3")  # type: ignore[arg-type]


class Address(BaseModel):
    """One thing that an event may bring."""

    street: str


class Dated(TypingTypedDict):
    """A TypedDict that pydantic takes from Python 3.12 on only."""

    amount: int


class Holder:
    """A class that pydantic knows nothing of."""


@dataclass
class Held:
    """A dataclass with such a class in it, which pydantic cannot check."""

    holder: Holder


def _wait(schema: Any, id: str | None = None) -> Workflow:
    return Workflow(f"inner-{id}").wait_for_event("reply", schema=schema).commit()


def _typed(id: str, **types: Any) -> Step[Any, Any, Any]:
    return step(lambda data: data, id=id, **types)


WAITS = {
    "in one flow": lambda: (
        Workflow("w").wait_for_event("reply", schema=Address).wait_for_event("reply", schema=int, id="second")
    ),
    "one of them of any type": lambda: (
        Workflow("w").wait_for_event("reply", schema=Address).wait_for_event("reply", id="second")
    ),
    "in nested workflows": lambda: Workflow("w").parallel(_wait(Address, "a"), _wait(int, "b")),
    "behind a timeout": lambda: Workflow("w").wait_for_event("reply", timeout=1, on_timeout=_wait(int, "a"), id="x"),
    "in a loop": lambda: Workflow("w").do_until(_wait(Address, "a"), lambda _: True).wait_for_event("reply"),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_for_one_event_take_one_type(name: str) -> None:
    """An event may be sent before a wait has begun: nobody knows then of which type it should be."""
    (problem,) = problems(WAITS[name]())
    assert problem.startswith("the waits for the event 'reply' take different data: ")
    assert problem.endswith("give them one schema (`A | B` takes either), or give each an event of its own")


def test_waits_for_one_event_may_share_a_type() -> None:
    """Also one that takes either."""
    flow = Workflow("w").wait_for_event("reply", schema=Address | int)
    assert flow.wait_for_event("reply", schema=int | Address, id="second").commit().committed


UNCHECKABLE: dict[str, tuple[Callable[[], Workflow], str]] = {
    "input": (lambda: Workflow("w", input=Held).then(reserve), "the input of the workflow is Held"),
    "state": (lambda: Workflow("w", state=Held).then(reserve), "the state of the workflow is Held"),
    "output": (lambda: Workflow("w", output=Held).then(reserve), "the output of the workflow is Held"),
    "of a step": (lambda: Workflow("w").then(_typed("s", input=Held)), "the input of the step 's' is Held"),
    "a resume": (lambda: Workflow("w").foreach(_typed("s", resume=Held)), "the resume of the step 's' is Held"),
    "a suspend": (lambda: Workflow("w").parallel(_typed("s", suspend=Held)), "the suspend of the step 's' is Held"),
    "an event": (lambda: Workflow("w").wait_for_event("go", schema=Held), "the schema of the wait for 'go' is Held"),
}


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_a_type_that_pydantic_cannot_build_is_refused(name: str) -> None:
    """At the commit, and not when the run comes to it."""
    make, words = UNCHECKABLE[name]
    (problem,) = problems(make())
    assert re.match(words, problem)
    assert "a class inside is unknown to pydantic" in problem


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it there")
def test_a_typed_dict_of_typing_is_refused_with_its_remedy() -> None:
    """Below Python 3.12."""
    (problem,) = problems(Workflow("w").then(reserve).then(_typed("ship", input=Dated)))
    assert problem.startswith("the input of the step 'ship' is Dated, which pydantic cannot check")
    assert "take TypedDict from `typing_extensions`" in problem


def test_a_workflow_shows_what_it_is() -> None:
    """Its repr is for debuggers."""
    assert repr(Workflow("w").then(reserve)) == "<Workflow 'w': 1 blocks, not committed>"
    assert repr(Workflow("w").then(reserve).commit()) == "<Workflow 'w': 1 blocks>"
