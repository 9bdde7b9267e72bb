"""BASIC: one step, sequences, parallel steps, state, bail, definitions that are not finished."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


class Value(BaseModel):
    value: str


@step(id="step1")
def succeed(ctx: Context) -> dict[str, str]:
    note(ctx, "step1")
    return {"result": "success"}


one_step = Workflow("basic-one-step").then(succeed).commit()
second_name = Workflow("basic-one-step-again").then(succeed).commit()
reusable = Workflow("basic-reusable").then(succeed).commit()


@step(id="step1")
def write_state(ctx: Context) -> dict[str, str]:
    note(ctx, "step1")
    value = ctx.state["value"] + "!!!"
    ctx.set_state({"value": value})
    return {"result": "success", "value": value}


with_state = Workflow("basic-state", state=Value).then(write_state).commit()


@step(id="step1")
def first(ctx: Context) -> dict[str, str]:
    note(ctx, "step1")
    return {"value": "step1-result"}


@step(id="step2")
def second(ctx: Context) -> dict[str, str]:
    note(ctx, "step2")
    return {"value": "step2-result"}


sequence = Workflow("basic-sequence").then(first).then(second).commit()


@step(id="step1")
def left(ctx: Context) -> dict[str, str]:
    note(ctx, "step1")
    return {"value": "step1"}


@step(id="step2")
def right(ctx: Context) -> dict[str, str]:
    note(ctx, "step2")
    return {"value": "step2"}


side_by_side = Workflow("basic-parallel").parallel(left, right).commit()


@step(id="step1")
def bail_if_asked(data: dict[str, str], ctx: Context) -> dict[str, str]:
    if data["value"] == "bail":
        ctx.bail({"result": "bailed"})
    return {"result": "step1: " + data["value"]}


@step(id="step2")
def after_bail(data: dict[str, str]) -> dict[str, str]:
    return {"result": "step2: " + data["result"]}


bailing = Workflow("basic-bail").then(bail_if_asked).then(after_bail).commit()


@step(id="step1")
def tell_run_id(ctx: Context) -> dict[str, str]:
    note(ctx, "run_id", ctx.run_id)
    return {"result": "success"}


knows_run_id = Workflow("basic-run-id").then(tell_run_id).commit()


@step(id="step1")
def nested_value() -> dict[str, Any]:
    return {"nested": {"value": "step1-data"}}


nested_result = Workflow("basic-nested-result").then(nested_value).commit()


@step(id="step1")
def take_input(data: dict[str, Any], ctx: Context) -> dict[str, str]:
    note(ctx, "input", data)
    return {"result": "success"}


takes_input = Workflow("basic-input").then(take_input).commit()

not_defined = Workflow("basic-not-defined")
not_committed = Workflow("basic-not-committed").then(succeed)


@step(id="step1", suspend=Value)
def read_suspend_data(data: Value, ctx: Context) -> dict[str, str]:
    known = "Suspended" if ctx.suspend_data else "No suspend data"
    return {"result": f"{data.value}: {known}"}


never_suspended = Workflow("basic-suspend-data", input=Value).then(read_suspend_data).commit()
