"""The workflow of the catalogue's RUNCOUNT entry."""

from __future__ import annotations

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step(id="step1")
def first(ctx: Context) -> dict[str, str]:
    """Note the number of retries so far."""
    note(ctx, "step1", ctx.retry_count)
    return {"result": "success"}


@step(id="step2")
def second(ctx: Context) -> dict[str, str]:
    """Note the number of retries so far."""
    note(ctx, "step2", ctx.retry_count)
    return {"result": "success"}


runcount_01 = Workflow("runcount-01").then(first).then(second).commit()
