"""Mappings: where each value comes from, what its type is, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import RootModel

from orchestrator import Context, GraphInvalid, Workflow, constant, from_context, from_input, from_step, step, template
from orchestrator.codec import ANY, DictOf, Typed
from orchestrator.definitions.sources import Known, map_spec, union_of
from tests.definitions.models import Order, Receipt, Reservation, Scope, charge, reserve


def evaluated(spec: Any, scope: Scope) -> Any:
    """Return what a mapping makes of a scope."""
    return map_spec(spec).evaluate(scope, scope.call)


def test_each_source_gives_its_value() -> None:
    """One mapping has all six kinds."""
    outer = Workflow("outer", input=Order)
    scope = Scope(
        data={"result": "success"},
        inputs={None: {"cool": "test-input"}, "outer": {"sku": "a"}},
        context={"life": 42},
        results={"reserve": {"nested": {"value": 1}}},
    )
    spec = {
        "step": from_step(reserve, "nested.value"),
        "id": from_step("reserve"),
        "input": from_input("cool"),
        "outer": from_input("sku", workflow=outer),
        "outer_id": from_input(workflow="outer"),
        "context": from_context("life"),
        "missing": from_context("none"),
        "empty": constant([]),
        "zero": constant(0),
        "text": template("Hello ${input.result}"),
        "data": lambda data: data["result"],
        "ctx": lambda ctx: ctx.input["result"],
    }
    assert evaluated(spec, scope) == {
        "step": 1,
        "id": {"nested": {"value": 1}},
        "input": "test-input",
        "outer": "a",
        "outer_id": {"sku": "a"},
        "context": 42,
        "missing": None,
        "empty": [],
        "zero": 0,
        "text": "Hello success",
        "data": "success",
        "ctx": "success",
    }


def test_a_function_makes_the_whole_output() -> None:
    """The output may have any shape."""
    assert evaluated(lambda data: [data, data], Scope(data=1)) == [1, 1]
    assert evaluated(lambda: "nothing goes in", Scope()) == "nothing goes in"


def test_whoever_evaluates_calls_the_functions() -> None:
    """The engine has to await them, which a mapping could not."""

    async def fn(data: int) -> int:
        return data + 1

    def call(callback: Any) -> Any:
        try:
            callback.call(1, Context()).send(None)
        except StopIteration as stop:
            return stop.value

    assert map_spec(fn).evaluate(Scope(), call) == 2
    assert map_spec({"a": fn}).evaluate(Scope(), call) == {"a": 2}


def test_a_list_of_steps_takes_the_first_with_a_result() -> None:
    """The order of the list counts; missing results and None are passed over, falsy values are not."""
    source = from_step(["skipped", "none", "zero", "late"])
    assert evaluated({"x": source}, Scope(results={"none": None, "zero": 0, "late": 1})) == {"x": 0}
    assert evaluated({"x": source}, Scope(results={"none": None})) == {"x": None}
    with pytest.raises(ValueError, match="Invalid path 'p' in step 'a' or 'b': it has no result"):
        evaluated({"x": from_step(["a", "b"], "p")}, Scope())


@pytest.mark.parametrize("path", ["", "."])
def test_the_empty_path_is_the_whole_output(path: str) -> None:
    """It is written as `` or `.`, and gives the output also where that is None."""
    assert evaluated({"x": from_step("s", path)}, Scope(results={"s": {"a": 1}})) == {"x": {"a": 1}}
    assert evaluated({"x": from_step("s", path)}, Scope(results={"s": None})) == {"x": None}


@dataclass
class Point:
    """A value with fields."""

    x: int


class Orders(RootModel[list[Order]]):
    """A model that is a list."""


@pytest.mark.parametrize(
    "value, path, found",
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a": [{"b": 1}]}, "a.0.b", 1),
        ({"a": 1}, "b", None),
        ([1], "5", None),
        (Reservation(lines=[Order(sku="x")]), "lines.0.sku", "x"),
        (Order(sku="x"), "none", None),
        (Order(sku="x"), "model_fields", None),
        (Orders([Order(sku="x")]), "0.sku", "x"),
        (Point(1), "x", 1),
        ((1, 2), "1", 2),
    ],
)
def test_a_path_goes_into_dicts_lists_and_models(value: Any, path: str, found: Any) -> None:
    """A last word that is missing gives None."""
    assert evaluated({"x": from_step("s", path)}, Scope(results={"s": value})) == {"x": found}


@pytest.mark.parametrize(
    "value, path",
    [
        (None, "a"),
        ("text", "0"),
        (5, "a"),
        ({"a": None}, "a.b"),
        ({"a": {}}, "a.b.c"),
        ([{}], "x"),
        ([], "0.a"),
    ],
)
def test_a_path_through_what_has_no_parts_is_refused(value: Any, path: str) -> None:
    """The message names the path and the step."""
    with pytest.raises(ValueError, match=f"Invalid path '{path}' in step 's'"):
        evaluated({"x": from_step("s", path)}, Scope(results={"s": value}))


def test_a_path_that_is_missing_in_the_input_names_the_workflow() -> None:
    """This holds for the workflow's own input and for an outer one's."""
    with pytest.raises(ValueError, match=r"Invalid path 'a\.b' in the input: there is no 'a'"):
        evaluated({"x": from_input("a.b")}, Scope(inputs={None: {}}))
    with pytest.raises(ValueError, match="in the input of workflow 'outer'"):
        evaluated({"x": from_input("a", workflow="outer")}, Scope())


def test_types_follow_from_what_is_declared() -> None:
    """The types that the workflow knows by id come first, then the steps' own annotations."""
    known = Known({"charge": Typed(Receipt)}, Typed(Order))
    outer = Workflow("outer", input=Reservation)
    spec = map_spec(
        {
            "known": from_step("charge", "order"),
            "own": from_step(reserve, "lines.0"),
            "unknown": from_step("elsewhere"),
            "input": from_input("sku"),
            "outer": from_input("lines", workflow=outer),
            "either": from_step([charge, reserve]),
            "context": from_context("a"),
            "constant": constant(1),
            "text": template(""),
            "function": always_order,
        }
    )
    assert spec.shape(known) == DictOf(
        {
            "known": Typed(Order | None),
            "own": Typed(Order),
            "unknown": ANY,
            "input": Typed(str),
            "outer": Typed(list[Order]),
            "either": Typed(Receipt | Reservation),
            "context": ANY,
            "constant": ANY,
            "text": ANY,
            "function": ANY,
        }
    )
    assert map_spec(always_order).shape(known) == ANY


def always_order(data: Any) -> Order:
    return Order(sku="a")


def test_one_of_several_types_is_their_union() -> None:
    """Where one of them is unknown, so is the union."""
    assert union_of(Typed(int), Typed(int)) == Typed(int)
    assert union_of(Typed(int), Typed(str)) == Typed(int | str)
    assert union_of(Typed(int), ANY) == ANY


def test_anything_else_in_a_mapping_is_refused_by_name() -> None:
    """The message has the remedy."""
    with pytest.raises(TypeError, match="the map target 'x' is 3, which is no source: use from_step"):
        Workflow("w").map({"x": 3})
    with pytest.raises(TypeError, match=r"the map target 'x' is an entry.*from_step\(\)"):
        Workflow("w").map({"x": reserve})
    with pytest.raises(TypeError, match=r"\.map\(\) is an entry.*\.then\(\)"):
        Workflow("w").map(reserve)
    with pytest.raises(TypeError, match="takes a function, a source or a dict of sources, not 3"):
        Workflow("w").map(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the map target 1 is not a text"):
        Workflow("w").map({1: constant(1)})  # type: ignore[dict-item]


def test_one_source_is_the_whole_output() -> None:
    """As an existing task wants it, which takes a number and not a dict. It has the source's type and words."""
    scope = Scope(data=None, inputs={None: {"expense_id": 7}}, context={}, results={})
    spec = map_spec(from_input("expense_id"))
    assert spec.evaluate(scope, scope.call) == 7
    assert spec.describe() == "input at expense_id"
    assert map_spec(from_step(reserve)).shape(Known({}, ANY)) == Typed(Reservation)
    with pytest.raises(GraphInvalid, match="takes its value from the step 'gone'"):
        Workflow("w").then(reserve).map(from_step("gone")).commit()


def test_sources_refuse_what_they_cannot_use() -> None:
    """The source raises, before any `.map` or `commit`."""
    with pytest.raises(TypeError, match="takes a step or its id, not 3"):
        from_step(3)
    with pytest.raises(TypeError, match="needs a step"):
        from_step([])
    with pytest.raises(TypeError, match="a step or its id"):
        from_step(lambda: None)
    with pytest.raises(TypeError, match="takes a dotted path, not 0"):
        from_step("s", 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a key, not ''"):
        from_context("")


def test_a_step_is_named_in_whatever_way_it_is_used() -> None:
    """It is given as a step, a workflow, a plain function or an id."""
    named = from_step([reserve, Workflow("w"), always_order, "id"])
    assert named.steps == ("reserve", "w", "always_order", "id")
    assert named.outputs == (Reservation, None, None, None)


def test_a_description_cuts_long_texts() -> None:
    """The mapping itself has all of it."""
    spec = map_spec({"x": template("a" * 2000), "y": constant(1), "z": from_step([reserve, "b"], "p")})
    described = spec.describe()
    assert isinstance(described, dict)
    assert len(described["x"]) == 1001
    assert (described["y"], described["z"]) == ("constant 1", "step reserve or b at p")
    assert map_spec(step(lambda: 1, id="x").fn).describe() == "function <lambda>"
