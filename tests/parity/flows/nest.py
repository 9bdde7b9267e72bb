"""Workflows of the catalogue's NEST entries: a workflow as a step of another."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from tests.parity.calls import note

# ------------------------------------------------------------------------------------------------------------ NEST-01


@step(id="step1")
def first(ctx: Context) -> dict[str, str]:
    """Run before the nested workflow."""
    note(ctx, "step1")
    return {"result": "step1"}


@step(id="step2")
def second(ctx: Context) -> dict[str, str]:
    """Run first inside the nested workflow."""
    note(ctx, "step2")
    return {"result": "step2"}


@step(id="step3")
def third(ctx: Context) -> dict[str, str]:
    """Run last inside the nested workflow."""
    note(ctx, "step3")
    return {"result": "step3"}


_nested_01 = Workflow("nested-workflow").then(second).then(third).commit()
nest_01 = Workflow("nest-01").then(first).then(_nested_01).commit()

# ------------------------------------------------------------------------------------------------------------ NEST-02


@step(id="failing-inner")
def fail() -> None:
    """Fail inside the nested workflow."""
    raise RuntimeError("Step execution failed")


_nested_02 = Workflow("failing-nested").then(fail).commit()
nest_02 = Workflow("nest-02").then(first).then(_nested_02).commit()

# ------------------------------------------------------------------------------------------------------------ NEST-03


@step(id="outer-step")
def append_outer(data: dict[str, str]) -> dict[str, str]:
    """Append a word in the outer workflow."""
    return {"value": f"{data['value']}-outer"}


@step(id="inner-step")
def append_inner(data: dict[str, str]) -> dict[str, str]:
    """Append a word in the nested workflow."""
    return {"value": f"{data['value']}-inner"}


_nested_03 = Workflow("inner-workflow").then(append_inner).commit()
nest_03 = Workflow("nest-03").then(append_outer).then(_nested_03).commit()

# ------------------------------------------------------------------------------------------------------------ NEST-05


@step(id="level1-step")
def level_one() -> dict[str, str]:
    """Return the first word."""
    return {"value": "level1"}


@step(id="level2-step")
def level_two(data: dict[str, str]) -> dict[str, str]:
    """Append the second word."""
    return {"value": f"{data['value']}-level2"}


@step(id="level3-step")
def level_three(data: dict[str, str]) -> dict[str, str]:
    """Append the third word."""
    return {"value": f"{data['value']}-level3"}


_deepest_05 = Workflow("deepest-workflow").then(level_three).commit()
_middle_05 = Workflow("middle-workflow").then(level_two).then(_deepest_05).commit()
nest_05 = Workflow("nest-05").then(level_one).then(_middle_05).commit()

# ------------------------------------------------------------------------------------------------------------ NEST-06


class InnerState(BaseModel):
    """The part of the state that the nested workflow knows."""

    value: str


class OuterState(InnerState):
    """The whole state."""

    other_value: str


@step(id="step1")
def see_state(ctx: Context) -> dict[str, Any]:
    """Return the value of the state."""
    return {"result": "success", "value": ctx.state["value"]}


@step(id="step2")
def see_shared_state(ctx: Context) -> dict[str, Any]:
    """Return the value that the nested workflow shares with its outer one."""
    return {"result": "success", "value": ctx.state["value"]}


_nested_06 = Workflow("nested-state", state=InnerState).then(see_shared_state).commit()
nest_06 = Workflow("nest-06", state=OuterState).then(see_state).then(_nested_06).commit()
