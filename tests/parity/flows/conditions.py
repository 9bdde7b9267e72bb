"""COND and COMPLEX: conditions on earlier results, maps that pick one of several steps, chains of workflows."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, from_step, step
from tests.parity.calls import note


class Nothing(BaseModel):
    pass


@step(id="step1")
def partial(ctx: Context) -> dict[str, Any]:
    note(ctx, "step1")
    return {"status": "partial", "score": 75, "flags": {"isValid": True}}


@step(id="step2")
def step2(ctx: Context) -> dict[str, str]:
    note(ctx, "step2")
    return {"result": "step2"}


@step(id="step3")
def step3(ctx: Context) -> dict[str, str]:
    note(ctx, "step3")
    return {"result": "step3"}


def good_enough(ctx: Context) -> bool:
    """Tell whether the first step was a success, or nearly one."""
    seen = ctx.result(partial)
    return seen["status"] == "success" or (seen["status"] == "partial" and seen["score"] >= 70)


def not_good_enough(data: dict[str, Any], ctx: Context) -> bool:
    """Tell whether there is no result, or one from a poor start."""
    return not data["result"] or ctx.result(partial)["score"] < 70


complex_conditions = (
    Workflow("complex-conditions")
    .then(partial)
    .branch((good_enough, step2))
    .map({"result": from_step(step2, "result")})
    .branch((not_good_enough, step3))
    .map({"result": from_step(step3, "result")})
    .commit()
)


@step(id="step1")
def success(ctx: Context) -> dict[str, str]:
    note(ctx, "step1")
    return {"status": "success"}


@step(id="step4")
def echo(data: dict[str, str]) -> dict[str, str]:
    return {"result": data["result"]}


first_of_several = (
    Workflow("cond-first-of-several")
    .then(success)
    .branch((lambda data: data["status"] == "success", step2), (lambda data: data["status"] == "failed", step3))
    .map({"result": from_step([step3, step2], "result")})
    .then(echo)
    .commit()
)


@step(id="step1")
def fail() -> dict[str, str]:
    raise RuntimeError("Failed")


failing = Workflow("cond-failing").then(fail).then(step2).commit()

not_run_yet = (
    Workflow("cond-not-run-yet", input=Nothing, validate_inputs=False)
    .then(success)
    .branch((lambda data: data["status"] == "success", step2))
    .map({"result": from_step(step3, "result")})
    .branch((lambda data: data["result"] == "unexpected value", step3))
    .commit()
)


@step(id="step1")
def five() -> dict[str, int]:
    return {"count": 5}


@step(id="step2")
def return_nothing(ctx: Context) -> None:
    note(ctx, "step2")


on_a_result = (
    Workflow("cond-on-a-result").then(five).branch((lambda ctx: ctx.result(five)["count"] > 3, return_nothing)).commit()
)


def _chained(number: int) -> Any:
    def call(ctx: Context) -> dict[str, str]:
        note(ctx, f"step{number}")
        return {"result": f"success{number}"}

    return step(call, id=f"step{number}")


_nested_a = Workflow("nested-a").then(_chained(1)).then(_chained(2)).then(_chained(3)).commit()
_nested_b = Workflow("nested-b").then(_chained(4)).then(_chained(5)).commit()

two_chains = Workflow("chain-two-chains").parallel(_nested_a, _nested_b).commit()
