"""A definition is frozen data: the builder makes a new one, and checks and graphs are functions of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import FrozenInstanceError, replace
from functools import partial
from typing import Any

import pytest

from orchestrator import FlowNotDefined, GraphInvalid, Workflow
from orchestrator.definitions.check import check
from orchestrator.definitions.compile import compile_definition
from orchestrator.definitions.definition import Definition, Then
from tests.definitions.models import Order, charge, pack, reserve


def test_each_builder_method_leaves_the_definition_before_as_it_was() -> None:
    """The workflow goes on with a new one, and is as committed as that is."""
    workflow = Workflow("w").then(reserve).commit()
    before = workflow.definition
    workflow.then(charge)
    assert (before.blocks, workflow.committed) == ((Then(reserve),), False)
    assert workflow.definition.blocks == (Then(reserve), Then(charge))


def test_a_definition_is_frozen() -> None:
    """A run that has begun relies on it."""
    with pytest.raises(FrozenInstanceError):
        Workflow("w").definition.retries = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["id", "input", "retries", "on_finish"])
def test_an_option_of_a_workflow_is_read_and_never_set(name: str) -> None:
    """Once it is committed it stays what was checked; the message names the option and the workflow."""
    workflow = Workflow("w", input=Order, retries=2)
    assert getattr(workflow, name) == getattr(workflow.definition, name)
    with pytest.raises(AttributeError, match=f"{name} of the workflow 'w' cannot be set: give it to Workflow"):
        setattr(workflow, name, None)


def test_a_definition_is_checked_and_compiled_without_a_workflow() -> None:
    """The graph is the one that the workflow of this definition would have."""
    definition = Definition("w", input=Order, blocks=(Then(reserve), Then(charge)))
    check(definition)
    workflow = Workflow("w", input=Order).then(reserve).then(charge).commit()
    assert compile_definition(definition) == workflow.compiled


def test_the_same_data_under_another_id_is_another_graph() -> None:
    """A clone is a replacement of the id, and nothing is shared with the original but frozen values."""
    definition = Definition("w", blocks=(Then(pack),))
    graph, clone = (compile_definition(each) for each in (definition, replace(definition, id="v")))
    assert (graph.id, clone.id, graph.flow[0].route.name, clone.flow[0].route.name) == ("w", "v", "w.pack", "v.pack")
    assert graph.fingerprint != clone.fingerprint


def test_a_definition_that_cannot_run_is_refused() -> None:
    """One has no entry, the other uses an id twice."""
    with pytest.raises(FlowNotDefined, match="workflow 'w' has no entries"):
        check(Definition("w"))
    with pytest.raises(GraphInvalid, match="'pack' is used 2 times"):
        check(Definition("w", blocks=(Then(pack), Then(pack))))


def test_a_number_below_zero_is_refused_at_once() -> None:
    """A definition that is made from another one is checked again."""
    with pytest.raises(ValueError, match="retries must be 0 or more"):
        replace(Definition("w"), retries=-1)
    with pytest.raises(TypeError, match="a workflow's id is a text, not 3"):
        Workflow(3)  # type: ignore[arg-type]


def takes_nothing() -> None: ...


def takes_two(info: Any, more: Any) -> None: ...


def yields(info: Any) -> Iterator[Any]:
    yield info


async def yields_later(info: Any) -> AsyncIterator[Any]:
    yield info


@pytest.mark.parametrize("option", ["on_start", "on_finish", "on_error"])
@pytest.mark.parametrize(
    "hook, words",
    [
        ("shop.tell", "is a function that takes a RunInfo, not 'shop.tell'"),
        (takes_nothing, r"is called with one RunInfo, and takes_nothing\(\) -> 'None' is not"),
        (takes_two, "is called with one RunInfo, and takes_two.* is not: missing a required argument: 'more'"),
        (yields, "yields is a generator"),
        (partial(yields), "yields is a generator"),
        (yields_later, "yields_later is a generator"),
    ],
)
def test_a_hook_that_could_only_fail_is_refused_at_once(option: str, hook: Any, words: str) -> None:
    """It would be called when a run has ended, nine times, and then be given up."""
    with pytest.raises(TypeError, match=f"workflow 'w': {option}:? {words}"):
        Workflow("w", **{option: hook})


@pytest.mark.parametrize("hook", [print, partial(takes_two, more=1), list[int]().append, lambda *infos: None])
def test_whatever_takes_a_run_info_is_a_hook(hook: Any) -> None:
    """Builtins, methods and partials too."""
    assert Workflow("w", on_finish=hook).on_finish is hook


@pytest.mark.parametrize("option", ["validate_inputs", "auto_restart", "emit_step_events", "inline"])
def test_a_text_is_no_truth_value(option: str) -> None:
    """Every text but the empty one counts as true, "no" as well."""
    with pytest.raises(TypeError, match=f"workflow 'w': {option} is True or False, not 'no'"):
        Workflow("w", **{option: "no"})
