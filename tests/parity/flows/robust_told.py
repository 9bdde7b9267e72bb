"""Workflows of the entries about what a run tells: R-EWF, R-ESE, R-ONS, R-DEF, R-MID."""

from __future__ import annotations

import logging
import time
from typing import Any

from orchestrator import Context, OrchestratorError, RunInfo, Workflow, step
from tests.parity.calls import count, note, note_for

Data = dict[str, Any]
LOGGED = "robust-told-failing"


@step(id="step1")
def first(ctx: Context) -> Data:
    """Come first."""
    note(ctx, "step1")
    return {"value": 1}


@step(id="step2")
def second(data: Data, ctx: Context) -> Data:
    """Come second."""
    note(ctx, "step2")
    return {"value": data["value"] + 1}


two_steps = Workflow("robust-told-two").then(first).then(second).commit()
napping = Workflow("robust-told-napping").then(first).sleep(0.05, id="nap").then(second).commit()


@step(id="ask")
def tell_and_ask(ctx: Context) -> Data:
    """Write an event of its own, before the suspension and after it."""
    ctx.write_event("asked" if not ctx.resumed else "answered", {"by": "ask"})
    if not ctx.resumed:
        ctx.suspend({})
    return {"done": True}


asking = Workflow("robust-told-asking").then(tell_and_ask).commit()


class ApiError(Exception):
    """The error of a client of another service."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status_code = 429
        self.response_headers = {"retry-after": "60"}
        self.request_id = "req-123"
        self.is_retryable = True


@step(id="call")
def call_a_service() -> None:
    """Fail as a client does."""
    raise ApiError("too many requests")


@step(id="fails")
def fail() -> None:
    """Fail."""
    raise ValueError("the message only")


@step(id="fails")
def fail_with_ours() -> None:
    """Fail with an error of this library."""
    raise OrchestratorError("the message only", run_id="another")


api_error = Workflow("robust-told-api-error").then(call_a_service).commit()
FAILING = {
    "plain": Workflow(LOGGED).then(fail).commit(),
    "ours": Workflow("robust-told-failing-ours").then(fail_with_ours).commit(),
}
failing, failing_ours = FAILING["plain"], FAILING["ours"]


class Noting(logging.Handler):
    """A handler of an application's own, which keeps what the workers say of one workflow."""

    def emit(self, record: logging.LogRecord) -> None:
        """Note the errors."""
        if getattr(record, "workflow_id", None) == LOGGED and record.levelno >= logging.ERROR:
            note_for(str(record.run_id), "log", [record.step, record.getMessage()])  # type: ignore[attr-defined]


logging.getLogger("orchestrator").addHandler(Noting())


# -------------------------------------------------------------------------------------------------- sleep, R-ESE


def nap_for(data: Data, ctx: Context) -> float:
    """Note what the function is told, and sleep for no time."""
    about = {"run_id": ctx.run_id, "input": data, "init": ctx.init_data, "step1": ctx.result("step1")}
    note(ctx, "nap", about | {"resumed": ctx.resumed, "resume_data": ctx.resume_data})
    return 0


def raise_instead(data: Data) -> float:
    """Raise."""
    raise ValueError("how long?")


computed_nap = Workflow("robust-told-nap").then(first).sleep(nap_for, id="nap").then(second).commit()
raising_nap = Workflow("robust-told-raising-nap").then(first).sleep(raise_instead, id="nap").then(second).commit()


# ------------------------------------------------------------------------------------------- on_start and start, R-ONS


def tell_start(info: RunInfo) -> None:
    """Note what the hook is told, and refuse a tenant."""
    info.logger.info("a run begins")
    about = {"workflow_id": info.workflow_id, "init": info.init_data, "context": dict(info.request_context)}
    note_for(info.run_id, "on_start", about | {"ran": count(info.run_id, "step1")})
    if info.request_context.get("tenant") == "nobody":
        raise PermissionError("not this tenant")


started = Workflow("robust-told-started", on_start=tell_start).then(first).then(tell_and_ask).commit()


@step(id="slow")
def take_time(ctx: Context) -> str:
    """Work until the test has seen that the start came back."""
    end = time.monotonic() + 10
    while not count(ctx.run_id, "go") and time.monotonic() < end:
        time.sleep(0.01)
    return "done"


slow = Workflow("robust-told-slow").then(take_time).commit()
