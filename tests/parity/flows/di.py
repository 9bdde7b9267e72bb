"""Workflows of the catalogue's DI entries: the request context that travels with a run."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step(id="step1")
def look(ctx: Context) -> dict[str, bool]:
    """Tell whether there is a request context."""
    return {"present": ctx.request_context is not None}


@step(id="step1")
def set_and_read(ctx: Context) -> dict[str, Any]:
    """Set a key and read it back."""
    ctx.request_context["testKey"] = "test-value"
    return {"read": ctx.request_context.get("testKey")}


@step(id="step2")
def read(ctx: Context) -> dict[str, Any]:
    """Read the key."""
    return {"read": ctx.request_context.get("testKey")}


@step(id="increment")
def increment(data: dict[str, int], ctx: Context) -> dict[str, int]:
    """Add one, and set the key."""
    ctx.request_context["testKey"] = "test-value"
    return {"value": data["value"] + 1}


@step(id="resume")
def remove_when_resumed(data: dict[str, int], ctx: Context) -> dict[str, int]:
    """Suspend, and remove the key when the run is resumed."""
    if not ctx.resumed:
        ctx.suspend()
    note(ctx, "before removal", ctx.request_context.get("testKey"))
    del ctx.request_context["testKey"]
    return {"value": data["value"] + ctx.resume_data["value"]}


@step(id="final")
def look_for_it(ctx: Context) -> dict[str, Any]:
    """Return what the key has now."""
    return {"read": ctx.request_context.get("testKey"), "present": "testKey" in ctx.request_context}


@step(id="step1")
def read_when_resumed(ctx: Context) -> dict[str, Any]:
    """Suspend, and read the injected key when the run is resumed."""
    if not ctx.resumed:
        ctx.suspend()
    return {"read": ctx.request_context.get("injectedKey")}


di_01 = Workflow("di-01").then(look).commit()
di_02 = Workflow("di-02").then(set_and_read).then(read).commit()
di_03 = Workflow("di-03").then(increment).then(remove_when_resumed).then(look_for_it).commit()
di_05 = Workflow("di-05").then(read_when_resumed).commit()
