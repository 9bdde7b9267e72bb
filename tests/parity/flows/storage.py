"""Workflows of the catalogue's STORAGE entries: what is kept of a run."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step(id="step1")
def first() -> dict[str, str]:
    """Return the first result."""
    return {"value": "result1"}


@step(id="step2")
def second() -> dict[str, str]:
    """Return the second result."""
    return {"value": "result2"}


@step(id="suspendingStep")
def wait_for_data(ctx: Context) -> dict[str, Any]:
    """Suspend, and return what the run is resumed with."""
    if not ctx.resumed:
        ctx.suspend({})
    return {"resumed": True, "data": ctx.resume_data}


@step(id="finalStep")
def finish(data: dict[str, Any]) -> dict[str, Any]:
    """Return what the step before got."""
    return {"final": data["data"]}


@step(id="loopStep")
def count_up(data: dict[str, int], ctx: Context) -> dict[str, int]:
    """Add one, and note the resource that the stored record has at this moment."""
    note(ctx, "resource_id", ctx.orchestrator.runs.get(ctx.run_id).resource_id)
    return {"value": data["value"] + 1}


storage_01 = Workflow("storage-01").then(first).then(second).commit()
storage_02 = Workflow("storage-02").then(first).commit()
storage_03 = Workflow("storage-03").then(first).commit()
storage_04 = Workflow("storage-04").then(wait_for_data).then(finish).commit()
storage_05 = Workflow("storage-05").do_until(count_up, lambda data: data["value"] >= 3).commit()
storage_06 = Workflow("storage-06").then(first).then(second).commit()
