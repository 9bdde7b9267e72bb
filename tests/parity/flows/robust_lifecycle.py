"""Workflows of the entries about requests of callers: R-DCR, R-CSF, R-EEW, R-EMR, R-EXO, R-HND, R-LER."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, RunInfo, Workflow, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note, note_for

Data = dict[str, Any]
LOST = "lost"
GO = "go"


@step(id="approval")
def approve(data: Data, ctx: Context) -> Data:
    """Wait for a resume."""
    note(ctx, "approval", ctx.resume_data)
    if not ctx.resumed:
        ctx.suspend({"reason": "approve"})
    return {"approved": ctx.resume_data}


@step(id="downstream")
def follow_approval(data: Data, ctx: Context) -> Data:
    """Note what was approved."""
    note(ctx, "downstream", data)
    return data


approval = Workflow("robust-lifecycle-approval").then(approve).then(follow_approval).commit()


@step(id="step1")
def begin(data: Data, ctx: Context) -> Data:
    """Come first."""
    note(ctx, "step1", data)
    return {"value": data["value"] + 1}


@step(id="step2")
def wait_for_the_test(data: Data, ctx: Context) -> Data:
    """Work until the test says so, and hear of an abort."""
    ctx.abort_signal.add_listener(lambda: note(ctx, "heard"))
    note(ctx, "step2", data)
    for _ in range(1500):
        if count(ctx.run_id, GO) or ctx.abort_signal.wait(0.01):
            break
    ctx.raise_if_aborted()
    return {"value": data["value"] + 1}


@step(id="quick")
def be_quick(data: Data, ctx: Context) -> Data:
    """End at once."""
    note(ctx, "quick")
    return data


held = Workflow("robust-lifecycle-held").then(begin).then(wait_for_the_test).commit()
beside = Workflow("robust-lifecycle-beside").parallel(be_quick, wait_for_the_test).commit()


@step(id="step2")
def be_lost(data: Data, ctx: Context) -> Data:
    """Be lost once."""
    if not count(ctx.run_id, LOST):
        note(ctx, LOST)
        raise WorkerLost
    note(ctx, "step2", data)
    return {"value": data["value"] + 1}


lost = Workflow("robust-lifecycle-lost", auto_restart=False).then(begin).then(be_lost).commit()


@step(id="slow")
def take_a_while(ctx: Context) -> None:
    """Take 150 ms."""
    ctx.abort_signal.wait(0.15)


slow = Workflow("robust-lifecycle-slow").then(take_a_while).commit()


@step(id="aborts")
def abort(ctx: Context) -> Data:
    """End the run as canceled."""
    ctx.abort()
    return {}


def tell_end(info: RunInfo) -> None:
    """Note what the run has come to."""
    note_for(info.run_id, "on_finish", [info.status, dict(info.request_context), sorted(info.steps)])


aborting = Workflow("robust-lifecycle-aborting", on_finish=tell_end).then(abort).commit()
told = Workflow("robust-lifecycle-told", on_finish=tell_end).then(begin).then(wait_for_the_test).commit()
