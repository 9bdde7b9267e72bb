"""Workflows of the entries about messages that come again and workers that do not come back: R-EDI, R-ERB, R-ERF."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note

Data = dict[str, Any]
GO = "go"


@step(id="work")
def be_lost_always(ctx: Context) -> Data:
    """Be lost, every time."""
    note(ctx, "work")
    raise WorkerLost


lost_always = Workflow("robust-lost-always").then(be_lost_always).commit()


@step(id="work", retries=1)
def be_lost_twice_and_fail(ctx: Context) -> Data:
    """Be lost twice in each attempt; fail in the first attempt, succeed in the second."""
    note(ctx, "work", [ctx.retry_count, ctx.restarted])
    if count(ctx.run_id, "work") % 3:
        raise WorkerLost
    if not ctx.retry_count:
        raise ValueError("the first attempt fails")
    return {"attempts": ctx.retry_count + 1}


lost_twice = Workflow("robust-lost-twice").then(be_lost_twice_and_fail).commit()


@step(id="work")
def be_lost_once(ctx: Context) -> Data:
    """Be lost once."""
    note(ctx, "work", ctx.restarted)
    if not ctx.restarted:
        raise WorkerLost
    return {"done": True}


lost_once = Workflow("robust-lost-once").then(be_lost_once).commit()


@step(id="work")
def wait_for_the_test(ctx: Context) -> Data:
    """Work until the test says so."""
    note(ctx, "work")
    for _ in range(1500):
        if count(ctx.run_id, GO) or ctx.abort_signal.wait(0.01):
            break
    return {"done": True}


@step(id="behind")
def follow(data: Data, ctx: Context) -> Data:
    """Come behind the work."""
    note(ctx, "behind")
    return data


held = Workflow("robust-redelivery-held").then(wait_for_the_test).then(follow).commit()


@step(id="quick")
def be_quick(ctx: Context) -> None:
    """End at once."""


quick = Workflow("robust-redelivery-quick").then(be_quick).commit()


@step(id="late")
def come_late(ctx: Context) -> str:
    """Run where the workflow is known."""
    note(ctx, "late")
    return "late, but here"


_late = Workflow("robust-redelivery-late").then(come_late).commit()  # not registered in the workers of the suite
