"""Workflows of the catalogue's R-ECR and R-CST entries: several callers want to start or to resume the same run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator import Context, RunInfo, Workflow, step
from tests.parity.calls import count, note, note_for

Data = dict[str, Any]


@step(id="approval")
def approve(data: Data, ctx: Context) -> Data:
    """Wait for a resume."""
    note(ctx, "approval", ctx.resume_data)
    if not ctx.resumed:
        ctx.suspend({"reason": "approve"})
    return {"approved": ctx.resume_data["approved"]}


@step(id="downstream")
def follow_approval(data: Data, ctx: Context) -> Data:
    """Note what was approved."""
    note(ctx, "downstream", data)
    return {"done": data["approved"]}


approval = Workflow("robust-approval").then(approve).then(follow_approval).commit()


@step(id="work")
def work(data: Data, ctx: Context) -> Data:
    """Note everything that a run starts with."""
    note(ctx, "work", {"input": data, "state": dict(ctx.state), "tenant": ctx.request_context.get("tenant")})
    return {"doubled": data["value"] * 2}


start = Workflow("robust-start").then(work).commit()


class Number(BaseModel):
    """The input of the checked workflow."""

    value: int


def refuse_the_first(info: RunInfo) -> None:
    """Reject the first start that comes as far as the hook."""
    note_for(info.run_id, "hook")
    if count(info.run_id, "hook") == 1:
        raise PermissionError("not today")


@step(id="work")
def work_on_number(data: Number, ctx: Context) -> int:
    """Note the call."""
    note(ctx, "work")
    return data.value * 2


checked = Workflow("robust-start-checked", input=Number, on_start=refuse_the_first).then(work_on_number).commit()
