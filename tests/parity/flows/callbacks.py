"""CB: workflows with callbacks, which note what they were told."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator import Context, Orchestrator, RunInfo, Workflow, step
from tests.parity.calls import note_for


@step(id="step1")
def succeed() -> dict[str, str]:
    return {"result": "success"}


@step(id="step1")
def fail() -> dict[str, str]:
    raise RuntimeError("Test error")


@step(id="step1")
def increment(ctx: Context) -> dict[str, str]:
    ctx.set_state({**ctx.state, "counter": ctx.state["counter"] + 1})
    return {"result": "success"}


@step(id="step1")
def set_counter(ctx: Context) -> dict[str, str]:
    ctx.set_state({"counter": 10})
    return {"result": "success"}


@step(id="failing-step")
def failing_step() -> dict[str, str]:
    raise RuntimeError("Test error")


@step(id="step1")
def wait(ctx: Context) -> dict[str, str]:
    if not ctx.resumed:
        ctx.suspend({"reason": "waiting"})
    return {"result": "success"}


def told(info: RunInfo) -> dict[str, Any]:
    """Say what a callback sees, as far as JSON can hold it."""
    return {
        "status": info.status,
        "error": info.error and str(info.error),
        "run_id": info.run_id,
        "workflow_id": info.workflow_id,
        "resource_id": info.resource_id,
        "counter": info.state.get("counter"),
        "init_data": info.init_data,
        "custom_key": info.request_context.get("customKey"),
        "logger": callable(info.logger.info) and callable(info.logger.error),
        "orchestrator": isinstance(info.orchestrator, Orchestrator),
    }


def on_finish(info: RunInfo) -> None:
    note_for(info.run_id, "on_finish", told(info))


def on_error(info: RunInfo) -> None:
    note_for(info.run_id, "on_error", told(info))


async def on_finish_slowly(info: RunInfo) -> None:
    note_for(info.run_id, "on_finish")
    await asyncio.sleep(0.01)
    note_for(info.run_id, "flag")


async def on_error_slowly(info: RunInfo) -> None:
    note_for(info.run_id, "on_error")
    await asyncio.sleep(0.01)
    note_for(info.run_id, "flag")


finish_of_success = Workflow("cb-finish-of-success", on_finish=on_finish).then(succeed).commit()
error_of_failure = Workflow("cb-error-of-failure", on_error=on_error).then(fail).commit()
error_of_success = Workflow("cb-error-of-success", on_error=on_error).then(succeed).commit()
both_of_failure = Workflow("cb-both-of-failure", on_finish=on_finish, on_error=on_error).then(fail).commit()
slow_finish = Workflow("cb-slow-finish", on_finish=on_finish_slowly).then(succeed).commit()
slow_error = Workflow("cb-slow-error", on_error=on_error_slowly).then(fail).commit()
finish_with_state = Workflow("cb-finish-with-state", on_finish=on_finish).then(increment).commit()
finish_of_suspension = Workflow("cb-finish-of-suspension", on_finish=on_finish).then(wait).commit()
error_with_state = Workflow("cb-error-with-state", on_error=on_error).then(set_counter).then(failing_step).commit()
