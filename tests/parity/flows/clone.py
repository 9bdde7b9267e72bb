"""CLONE: one step in two nested workflows, and copies of a step and of a workflow under another id."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, clone_step, clone_workflow, step
from tests.parity.calls import note


@step
def start(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "start")
    return {"newValue": data["startValue"] + 1}


@step
def other(ctx: Context) -> dict[str, int]:
    note(ctx, "other")
    return {"other": 26}


@step
def final(ctx: Context) -> dict[str, int]:
    note(ctx, "final")
    return {"finalValue": ctx.result("start")["newValue"] + ctx.result("other-clone")["other"]}


@step(id="final-b")
def final_b(data: dict[str, int]) -> dict[str, int]:
    return {"finalValue": data["newValue"]}


@step(id="last-step")
def last(data: dict[str, Any], ctx: Context) -> dict[str, bool]:
    note(ctx, "last")
    return {"success": True}


_wf_a = Workflow("clone-nested-wf-a").then(start).then(clone_step(other, id="other-clone")).then(final).commit()
_wf_b = Workflow("clone-nested-wf-b").then(start).then(final_b).commit()

clones = (
    Workflow("clone-main", validate_inputs=False)
    .parallel(clone_workflow(_wf_a, id="clone-nested-wf-a-clone"), _wf_b)
    .then(last)
    .commit()
)
