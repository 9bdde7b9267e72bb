"""Workflows of the catalogue's RETRY entries: how often a failing step is tried."""

from __future__ import annotations

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step(id="step1")
def go_well(ctx: Context) -> dict[str, str]:
    """Succeed at once."""
    note(ctx, "step1")
    return {"result": "success"}


@step(id="step2")
def fail(ctx: Context) -> None:
    """Fail each time."""
    note(ctx, "step2", ctx.retry_count)
    raise RuntimeError("Step failed")


@step(id="step2", retries=5)
def fail_with_own_retries(ctx: Context) -> None:
    """Fail each time, with a number of retries of its own."""
    note(ctx, "step2", ctx.retry_count)
    raise RuntimeError("Step failed")


retry_01 = Workflow("retry-01").then(go_well).then(fail).commit()
retry_02 = Workflow("retry-02", retries=5, retry_delay=0.01).then(go_well).then(fail).commit()
retry_03 = Workflow("retry-03", retries=10, retry_delay=0.01).then(go_well).then(fail_with_own_retries).commit()
