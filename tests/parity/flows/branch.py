"""BRANCH: conditions choose the arm, which may be a nested workflow."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step
def start(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "start")
    return {"newValue": data["startValue"] + 1}


@step
def other(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "other")
    return {"newValue": data["newValue"], "other": 26}


@step(id="finalIf")
def final_if(ctx: Context) -> dict[str, int]:
    note(ctx, "final")
    further = ctx.result(other) or {}
    return {"finalValue": ctx.result(start)["newValue"] + further.get("other", 0)}


@step(id="finalElse")
def final_else(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "final")
    return {"finalValue": data["newValue"] + data["other"]}


_otherwise = Workflow("branch-else-nested").then(other).then(final_else).commit()

nested_arm = (
    Workflow("branch-nested-arm", validate_inputs=False)
    .then(start)
    .branch(
        (lambda data: not data["newValue"] or data["newValue"] < 5, final_if),
        (lambda data: data["newValue"] >= 5, _otherwise),
    )
    .commit()
)


@step
def check(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "check")
    return {"category": data["value"]}


def leaf(name: str) -> Any:
    def call(ctx: Context) -> dict[str, str]:
        note(ctx, name)
        return {"result": name}

    return step(call, id=name)


low, medium, high = leaf("low"), leaf("medium"), leaf("high")

three_arms = (
    Workflow("branch-three-arms")
    .then(check)
    .branch(
        (lambda data: data["category"] < 33, low),
        (lambda data: 33 <= data["category"] < 66, medium),
        (lambda data: data["category"] >= 66, high),
    )
    .commit()
)


@step
def initial(data: dict[str, int], ctx: Context) -> dict[str, Any]:
    note(ctx, "initial")
    return {"processedValue": data["rawValue"] * 2, "flag": data["rawValue"] > 50}


def _tell(name: str) -> Any:
    def call(data: dict[str, Any], ctx: Context) -> dict[str, str]:
        note(ctx, name)
        return {"final": f"processed: {data['processedValue']}, flag: {str(data['flag']).lower()}"}

    return step(call, id=name)


true_path, false_path = _tell("truePath"), _tell("falsePath")

on_a_flag = (
    Workflow("branch-on-a-flag")
    .then(initial)
    .branch(
        (lambda data: data["flag"] is True, true_path),
        (lambda data: data["flag"] is False, false_path),
    )
    .commit()
)
