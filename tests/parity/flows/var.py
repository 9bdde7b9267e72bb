"""Workflows of the catalogue's VAR entries: what a step is given, maps, and templates."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator import (
    Context,
    Workflow,
    constant,
    from_context,
    from_input,
    from_step,
    step,
    template,
)
from tests.parity.calls import note


class Phase(BaseModel):
    """State with a default that no caller gives."""

    phase: str = "initial"


# ------------------------------------------------------------------------------------------------------------- VAR-01


def succeed(data: Any) -> dict[str, str]:
    """Return the same whatever comes in."""
    return {"result": "success"}


var_01 = Workflow("var-01").then(step(succeed, id="step1")).then(step(succeed, id="step2")).commit()

# ------------------------------------------------------------------------------------------------------------- VAR-02


@step(id="step1")
def one_result() -> dict[str, str]:
    """Return what step2 looks up."""
    return {"value": "step1-result"}


@step(id="stranger")
def stranger() -> dict[str, str]:
    """Stand in no run."""
    return {"value": "never"}


@step(id="step2")
def look_up(ctx: Context) -> dict[str, Any]:
    """Return what is found by object, by id, and of a step that is not in the run."""
    return {
        "by_object": ctx.result(one_result),
        "by_id": ctx.result("step1"),
        "stranger": ctx.result(stranger),
        "unknown_id": ctx.result("no-such-step"),
    }


var_02 = Workflow("var-02").then(one_result).then(look_up).commit()

# ------------------------------------------------------------------------------------------------------------- VAR-03


@step(id="step1")
def see_input(data: dict[str, Any], ctx: Context) -> dict[str, str]:
    """Note the input as the argument and as the context has it."""
    note(ctx, "argument", data)
    note(ctx, "context", ctx.input)
    return {"result": "success"}


var_03 = Workflow("var-03").then(see_input).commit()

# ------------------------------------------------------------------------------------------------------------- VAR-04


@step(id="step2")
def give_init_data(ctx: Context) -> dict[str, Any]:
    """Return the run's input."""
    return {"result": ctx.init_data}


var_04 = Workflow("var-04").then(see_input).then(give_init_data).commit()

# ------------------------------------------------------------------------------------------------------------- VAR-05


@step(id="step1")
def nest_data() -> dict[str, Any]:
    """Return a value one level down."""
    return {"nested": {"value": "step1-data"}}


@step(id="step2")
def note_input(data: Any, ctx: Context) -> dict[str, str]:
    """Note the input."""
    note(ctx, "step2", data)
    return {"result": "success"}


var_05 = (
    Workflow("var-05")
    .then(nest_data)
    .map({"previous_value": from_step(nest_data, "nested.value")})
    .then(note_input)
    .commit()
)

# ------------------------------------------------------------------------------------------------------ VAR-06, VAR-07


@step(id="step1")
def give_text() -> str:
    """Return a bare string."""
    return "step1-data"


@step(id="step1")
def give_list() -> list[dict[str, str]]:
    """Return a bare list."""
    return [{"str": "step1-data"}]


@step(id="step2")
def take_text(data: str) -> dict[str, str]:
    """Return the string it was given."""
    return {"result": "success", "input": data}


@step(id="step2")
def take_list(data: list[dict[str, str]]) -> dict[str, Any]:
    """Return the list it was given."""
    return {"result": "success", "input": data}


var_06 = Workflow("var-06").then(give_text).then(take_text).commit()
var_07 = Workflow("var-07").then(give_list).then(take_list).commit()

# ------------------------------------------------------------------------------------------------------------- VAR-08


@step(id="step1")
def begin() -> dict[str, str]:
    """Return a result for later steps to read."""
    return {"result": "success"}


@step(id="step2")
def join_candidates(data: dict[str, Any]) -> dict[str, Any]:
    """Join the names, or say that there are none."""
    names = ", ".join(candidate["name"] for candidate in data["candidates"])
    return {"result": names or "none", "second": data["iteration"]}


var_08 = (
    Workflow("var-08")
    .then(begin)
    .map({"candidates": constant([]), "iteration": constant(0)})
    .then(join_candidates)
    .commit()
)

# ------------------------------------------------------------------------------------------------------ VAR-10, VAR-11


@step(id="step2")
def take_two(data: dict[str, Any]) -> dict[str, Any]:
    """Return the two mapped values."""
    return {"result": data["test"], "second": data["test2"]}


var_10 = (
    Workflow("var-10")
    .then(begin)
    .map({"test": from_input("cool"), "test2": from_context("life")})
    .then(take_two)
    .commit()
)

var_11 = (
    Workflow("var-11")
    .then(begin)
    .map({"test": from_input("cool"), "test2": lambda data: f"Hello {data['result']}"})
    .then(take_two)
    .map({"result": from_step(take_two, "result"), "second": lambda ctx: ctx.result(begin)["result"]})
    .commit()
)

# ------------------------------------------------------------------------------------------------- templates, VAR-13 on


@step(id="weather")
def weather() -> dict[str, Any]:
    """Return a string and an integer."""
    return {"place": "Oslo", "degrees": 22}


var_13 = (
    Workflow("var-13").then(weather).map({"text": template("In ${input.place} it is ${input.degrees} °C.")}).commit()
)


@step(id="step1")
def cheer_up(ctx: Context) -> dict[str, str]:
    """Set the phase and return a tone."""
    ctx.set_state({"phase": "analyzing"})
    return {"tone": "cheerful"}


var_14 = (
    Workflow("var-14", state=Phase)
    .then(cheer_up)
    .map({"line": template("${init.city} | ${input.tone} | ${state.phase} | ${context.user_id}")})
    .commit()
)


@step(id="early-step")
def go_deep() -> dict[str, Any]:
    """Return a value two levels down."""
    return {"value": {"nested": "deep"}}


@step(id="middle-step")
def go_elsewhere() -> dict[str, str]:
    """Return something unrelated."""
    return {"unrelated": "output"}


var_15 = (
    Workflow("var-15")
    .then(go_deep)
    .then(go_elsewhere)
    .map({"text": template("It is ${steps.early-step.value.nested}")})
    .commit()
)


@step(id="source")
def give_none() -> dict[str, Any]:
    """Return one value and one None."""
    return {"present": "x", "absent": None}


var_16 = Workflow("var-16").then(give_none).map({"text": template("${input.present} [${input.absent}]")}).commit()


@step(id="source")
def give_dict() -> dict[str, Any]:
    """Return a dict inside a dict."""
    return {"data": {"a": 1, "b": 2}}


var_17 = Workflow("var-17").then(give_dict).map({"text": template("${input.data}")}).commit()


@step(id="stringy")
def stringy() -> dict[str, Any]:
    """Return strings and a list, the source of most templates."""
    return {"a": "A", "b": "B", "list": [{"name": "first"}, {"name": "second"}]}


var_18 = Workflow("var-18").then(stringy).map({"text": template("${steps.nonexistent.value}")}).commit()
var_19 = Workflow("var-19").then(stringy).map({"text": template("")}).commit()
var_20 = Workflow("var-20").then(stringy).map({"text": template("no placeholder at all")}).commit()
var_21 = (
    Workflow("var-21")
    .then(stringy)
    .map(
        {
            "both": template("${input.a}${input.b}"),
            "start": template("${input.a} at the start"),
            "end": template("at the end ${input.b}"),
        }
    )
    .commit()
)
var_22 = Workflow("var-22").then(stringy).map({"text": template("It costs $5 for ${input.a}")}).commit()
var_23 = Workflow("var-23").then(stringy).map({"text": template("${input.list.0.name}")}).commit()
var_25 = Workflow("var-25").then(stringy).map({"text": template("." * 1200 + "value=${input.a}")}).commit()
