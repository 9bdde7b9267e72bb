"""Who is meant by a resume: the words of a caller, and the steps that are suspended."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from orchestrator.errors import ResumeAmbiguous, RunNotSuspended, StepNotSuspended, SuspensionOver
from orchestrator.rules.addressing import (
    Target,
    ancestor_paths,
    id_path,
    make_resume_token,
    paths_below_which,
    select,
    step_ids,
)
from orchestrator.rules.model import Activation, RunHeader
from tests.simulation.acts import foreach, graph, nested, parallel, step

HEADER = RunHeader(run_id="run", workflow_id="flow", status="suspended")


class Task:
    """An existing task, which has no id."""

    name = "app.tasks.charge"


class Short:
    name = "charge"


class Entry:
    id = "ask"
    name = "other.name"


@pytest.mark.parametrize(
    "given, ids",
    [
        (None, []),
        ("ask", ["ask"]),
        ("inner.ask", ["inner", "ask"]),
        (Entry(), ["ask"]),
        (Task(), ["charge"]),
        (Short(), ["charge"]),
        (["inner", "ask"], ["inner", "ask"]),
        (["outer.inner", Entry()], ["outer", "inner", "ask"]),
        ((), []),
    ],
)
def test_a_step_is_named_by_ids_from_the_outside_in(given: Any, ids: list[str]) -> None:
    """However it is given."""
    assert step_ids(given) == ids
    assert Target(step=given).normalize() == Target(step=ids)


@pytest.mark.parametrize("wrong", [5, b"ask", {"ask": 1}, object(), ["ask", 5]])
def test_what_names_no_step_is_refused(wrong: Any) -> None:
    """Bytes and dicts too, which could be gone through."""
    with pytest.raises(TypeError, match="`step` is an id"):
        Target(step=wrong).normalize()


@pytest.mark.parametrize("wrong", [{"token": 5}, {"label": b"x"}, {"index": "1"}, {"index": True}])
def test_labels_and_tokens_are_texts_and_indices_numbers(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(TypeError, match=f"`{name}` is "):
        Target(**wrong).normalize()
    assert Target(token="t", label="l", index=0).normalize() == Target([], "l", 0, token="t")


@pytest.mark.parametrize(
    "target, text",
    [
        (Target(), ""),
        (Target("inner.ask"), "inner.ask"),
        (Target(label="l", index=0), "label 'l' item 0"),
        (Target("ask", "l", 3, token="t"), "ask label 'l' item 3 token 't'"),
    ],
)
def test_a_target_is_shown_by_what_it_names(target: Target, text: str) -> None:
    """One that names nothing means whatever waits."""
    assert str(target) == text
    assert target.is_open is (text == "")


@pytest.mark.parametrize("target", [Target("a"), Target(label="l"), Target(index=0), Target(token="t")])
def test_whoever_names_anything_does_not_mean_all(target: Target) -> None:
    assert not target.is_open
    assert Target(scope=(1,)).is_open


def test_a_token_is_made_of_the_payload_and_tells_nothing_of_it() -> None:
    """It is shown to people; so it is short, and the same in each release."""
    token = make_resume_token("lease-token.1")
    assert token == hashlib.sha256(b"lease-token.1").hexdigest()[:20]


# --- where to look ----------------------------------------------------------------------------------------------

WIDE = graph(
    step("ask"),
    nested("inner", step("ask"), foreach("each", 9, 9, step("ask"))),
    foreach("flows", 9, 9, nested("item", step("ask"), foreach("deep", 9, 9, step("ask")))),
    parallel("both", step("ask"), step("other")),
)


@pytest.mark.parametrize(
    "target, paths",
    [
        (Target(), None),
        (Target(label="l"), None),
        (Target(token="t"), None),
        (Target("ask"), ["0", "3.0"]),
        (Target("other"), ["3.1"]),
        (Target("inner.ask"), ["1.0", "1.1"]),
        (Target("inner"), ["1.0", "1.1"]),
        (Target("item.ask"), ["2"]),
        (Target("item.ask", index=4), ["2.4.0", "2"]),
        (Target("nowhere"), []),
        (Target("ask", scope=(1,)), ["1.0", "1.1"]),
    ],
)
def test_where_a_step_may_be_is_known_as_far_as_the_caller_names_it(target: Target, paths: list[str] | None) -> None:
    """So that among ten thousand steps that wait only those are read. A label says nothing of a path."""
    found = paths_below_which(WIDE, target)
    assert found == (None if paths is None else sorted(paths))


def test_an_index_alone_is_that_of_the_innermost_item() -> None:
    """Where no item is around a step, nothing is known by it."""
    assert paths_below_which(WIDE, Target(index=4)) == sorted({"0", "1.0", "1.1.4", "2.4.0", "2", "3.0", "3.1"})


def test_the_ids_of_a_path_are_those_of_the_workflows_around_it() -> None:
    """Blocks have none."""
    assert id_path(WIDE, (0,)) == ["ask"]
    assert id_path(WIDE, (1, 1, 0)) == ["inner", "ask"]
    assert id_path(WIDE, (3, 1)) == ["other"]
    assert id_path(WIDE, (1,)) == ["inner"]


# --- who is meant -----------------------------------------------------------------------------------------------


def suspended(path: str, name: str = "ask", **fields: Any) -> Activation:
    return Activation(
        **{
            "path": path,
            "step": name,
            "status": "suspended",
            "component": "STEP",
            "index": -1,
            "suspend": path,
            **fields,
        }
    )


def around(path: str, name: str, component: str = "NESTED", index: int = -1) -> Activation:
    return Activation(path=path, step=name, component=component, status="open", index=index)


def meant(
    target: Target, *awaiting: Activation, above: tuple[Activation, ...] = (), per_step: bool = False
) -> list[str]:
    """Return the paths of those who are meant."""
    found = select(HEADER, awaiting, {one.at: one for one in above}, target, per_step=per_step)
    return [one.path for one in found]


def test_the_activations_around_those_that_wait_are_read_once() -> None:
    assert ancestor_paths([suspended("1.0.2"), suspended("1.3"), suspended("4")]) == ["1", "1.0"]


def test_the_only_step_that_waits_is_meant() -> None:
    """By whoever names nothing, or something that it is."""
    one = suspended("0", label="l")
    for target in (Target(), Target("ask"), Target(label="l"), Target(token=make_resume_token("0"))):
        assert meant(target, one) == ["0"]


def test_a_step_inside_is_meant_by_the_workflows_around_it() -> None:
    """Beginning with the outermost; of the inside nothing need be said."""
    above = (around("1", "outer"), around("1.0", "p", "PARALLEL"), around("1.0.0", "inner"))
    one, other = suspended("1.0.0.0"), suspended("2")
    for ids in ("outer", "outer.inner", "outer.inner.ask"):
        assert meant(Target(ids), one, other, above=above) == ["1.0.0.0"]
    assert meant(Target("ask"), one, other, above=above) == ["2"]
    assert meant(Target("inner", scope=(1,)), one, above=above) == ["1.0.0.0"]
    with pytest.raises(StepNotSuspended, match=r"outer\.ask is not suspended in run 'run': ask, outer\.inner\.ask is"):
        meant(Target("outer.ask"), one, other, above=above)


def test_all_items_of_a_step_are_meant_together_or_one_by_its_index() -> None:
    """The index of an item whose body is a workflow is that of the workflow."""
    items = [suspended(f"0.{index}", index=index) for index in range(3)]
    each = around("0", "ask", "FOREACH")
    assert meant(Target(), *items, above=(each,)) == ["0.0", "0.1", "0.2"]
    assert meant(Target(index=0), *items, above=(each,)) == ["0.0"]
    assert meant(Target("ask", index=2), *items, above=(each,)) == ["0.2"]
    flows = (around("0", "item", "FOREACH"), *(around(f"0.{index}", "item", index=index) for index in range(2)))
    assert meant(Target(index=1), suspended("0.0.0"), suspended("0.1.0"), above=flows) == ["0.1.0"]
    with pytest.raises(StepNotSuspended, match="item 7 is not suspended") as caught:
        meant(Target(index=7), *items, above=(each,))
    assert {"run_id": "run", "workflow_id": "flow"}.items() <= caught.value.details.items()


def refused(target: Target, *awaiting: Activation, above: tuple[Activation, ...] = ()) -> ResumeAmbiguous:
    with pytest.raises(ResumeAmbiguous) as caught:
        meant(target, *awaiting, above=above)
    assert (caught.value.details["run_id"], caught.value.details["workflow_id"]) == ("run", "flow")
    return caught.value


def test_of_several_steps_one_must_be_named() -> None:
    """The candidates are told once each, in the order in which they stand."""
    error = refused(Target(), suspended("1", "b"), suspended("0.0", index=0), suspended("0.1", index=1))
    assert error.candidates == ("b", "ask")
    assert "pass `step`" in str(error)
    inside = refused(Target(), suspended("0"), suspended("1.0"), above=(around("1", "inner"),))
    assert inside.candidates == ("ask", "inner.ask")


def test_items_with_one_label_are_told_apart_by_their_index() -> None:
    items = [suspended(f"0.{index}", index=index, label="l") for index in range(2)]
    error = refused(Target(label="l"), *items)
    assert error.candidates == ("ask[0]", "ask[1]")
    assert "have label 'l': pass `index`" in str(error)


def test_a_step_in_an_item_is_named_with_the_item() -> None:
    """It has no index of its own."""
    above = (around("0", "item", "FOREACH"), *(around(f"0.{index}", "item", index=index) for index in range(2)))
    error = refused(Target(label="l"), *(suspended(f"0.{index}.0", label="l") for index in range(2)), above=above)
    assert error.candidates == ("item[0].ask", "item[1].ask")


def test_items_with_one_index_are_told_apart_by_the_workflow_around_them() -> None:
    """Of a foreach in a foreach; the index is that of the innermost."""
    above = (around("0", "item", "FOREACH"), *(around(f"0.{index}", "item", index=index) for index in range(2)))
    inner = [suspended(f"0.{index}.0.5", index=5, scope=2) for index in range(2)]
    error = refused(Target(index=5), *inner, above=above)
    assert error.candidates == ("item[0].ask[5]", "item[1].ask[5]")
    assert "which is the run run/0.0 or run/0.1" in str(error)


def test_paused_activations_go_on_together_or_one_at_a_time() -> None:
    """Where a step is suspended, or the caller names anything, they are not meant."""
    paused = [Activation(path=path, step="b", status="paused") for path in ("0", "1")]
    assert meant(Target(), *paused) == ["0", "1"]
    assert meant(Target(), *paused, per_step=True) == ["0"]
    assert meant(Target(), *paused, suspended("2")) == ["2"]
    with pytest.raises(RunNotSuspended):
        meant(Target("b"), *paused)


def test_a_token_of_a_suspension_that_is_over_means_nobody() -> None:
    """Not whoever waits there now."""
    with pytest.raises(SuspensionOver, match="with the token 'old'") as caught:
        meant(Target(token="old"), suspended("0"))
    assert caught.value.details["actual_status"] == "suspended"
    assert meant(Target("ask", token=make_resume_token("1")), suspended("0"), suspended("1")) == ["1"]


def test_where_nothing_is_suspended_the_reason_is_told() -> None:
    """Waits for events are named: they are no steps to be resumed."""
    waits = [Activation(path=str(at), step=name, status="waiting") for at, name in enumerate(["b", "a", "b"])]
    with pytest.raises(RunNotSuspended, match="no step of run 'run' is suspended: a, b wait for an event") as caught:
        meant(Target(), *waits)
    assert caught.value.details["actual_status"] == "suspended"
    with pytest.raises(RunNotSuspended, match=r"nothing in run 'run' is suspended \(it is suspended\)"):
        meant(Target())
