"""Workflows of the entries that speak of messages, waiters and events: R-ESR, R-ENC, R-EFT, R-EHO and R-WTO."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import count, note

Data = dict[str, Any]
RELEASE = "release"


@step(id="first")
def begin(data: Data, ctx: Context) -> Data:
    """Come before the suspension."""
    note(ctx, "first")
    return {"value": 1}


@step(id="gate")
def gate(data: Data, ctx: Context) -> Data:
    """Wait for a resume."""
    note(ctx, "gate", ctx.resume_data)
    if not ctx.resumed:
        ctx.suspend({"question": "go on?"})
    return {"value": 2}


@step(id="last")
def finish(data: Data, ctx: Context) -> Data:
    """Come after the suspension."""
    note(ctx, "last")
    return {"value": data["value"] + 1}


@step(id="hold")
def hold(data: Data, ctx: Context) -> Data:
    """Keep the run running until the test has seen enough."""
    note(ctx, "hold")
    for _ in range(500):
        if count(ctx.run_id, RELEASE) or ctx.abort_signal.wait(0.02):
            break
    return {"value": 3}


gated = Workflow("robust-gated").then(gate).then(finish).commit()
begun = Workflow("robust-begun").then(begin).parallel(gate, hold).commit()
two_steps = Workflow("robust-two-steps").then(begin).then(finish).commit()
quiet = Workflow("robust-quiet", emit_step_events=False).then(begin).then(finish).commit()
without_host = Workflow("robust-without-host").then(begin).commit()


@step(id="nothing")
def nothing() -> None:
    """Do nothing."""


trivial = Workflow("robust-trivial").then(nothing).commit()


# -------------------------------------------------------------------------------------------- what events carry, R-WTO

LARGE = "a large result of the outer workflow. " * 20


@step(id="large")
def make_large() -> str:
    """Return the result that nobody else is to carry."""
    return LARGE


@step(id="small")
def make_small() -> Data:
    """Return what the nested workflow gets."""
    return {"value": 1}


@step(id="inner")
def work_inside(data: Data, ctx: Context) -> Data:
    """Work inside the nested workflow."""
    note(ctx, "inner")
    return {"value": data["value"] + 1}


_nested = Workflow("nested").then(work_inside).commit()
lean_events = Workflow("robust-lean-events").then(make_large).then(make_small).then(_nested).commit()

_third = Workflow("third-level").then(work_inside).commit()
_second = Workflow("second-level").then(_third).commit()
_first = Workflow("first-level").then(_second).commit()
three_levels = Workflow("robust-three-levels").then(make_small).then(_first).commit()
