"""Workflows of the catalogue's R-DOI and R-PAF entries: idempotency keys, and parallel groups that may fail in part."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import note

Data = dict[str, Any]


def _keyed(step_id: str) -> Any:
    @step(id=step_id)
    def keyed(data: Any, ctx: Context) -> Any:
        """Note the idempotency key."""
        note(ctx, step_id, ctx.idempotency_key)
        return data

    return keyed


def _gated(step_id: str) -> Any:
    @step(id=step_id)
    def gated(data: Any, ctx: Context) -> Any:
        """Note the idempotency key, and wait to be resumed."""
        note(ctx, step_id, ctx.idempotency_key)
        if not ctx.resumed:
            ctx.suspend({})
        return data

    return gated


@step(id="count")
def count_up(data: Data, ctx: Context) -> Data:
    """Note the idempotency key, and count."""
    note(ctx, "count", ctx.idempotency_key)
    return {"value": data["value"] + 1}


@step(id="gated-count")
def count_when_asked(data: Data, ctx: Context) -> Data:
    """Note the idempotency key, wait to be resumed, and count."""
    note(ctx, "gated-count", ctx.idempotency_key)
    if not ctx.resumed:
        ctx.suspend({})
    return {"value": data["value"] + 1}


suspended = Workflow("robust-keys-suspended").then(_keyed("before")).then(_gated("gate")).then(_keyed("after")).commit()
plain = (
    Workflow("robust-keys-plain").then(_keyed("one")).parallel(_keyed("two"), _keyed("three")).then(_keyed("four"))
).commit()
napping = Workflow("robust-keys-napping").then(_keyed("before")).sleep(0.05, id="nap").then(_keyed("after")).commit()

_inner = Workflow("inner").then(count_up).then(_keyed("beside")).commit()
LOOPS = {
    "until": Workflow("robust-keys-until").do_until(count_up, lambda data: data["value"] >= 3).commit(),
    "while": Workflow("robust-keys-while").do_while(_inner, lambda data: data["value"] < 3).commit(),
}
until, during = LOOPS["until"], LOOPS["while"]
WINDOWS = {width: Workflow(f"robust-keys-foreach-{width}").foreach(count_up, concurrency=width) for width in (1, 3)}
WORKFLOWS = [workflow.commit() for workflow in WINDOWS.values()]
gated_loop = Workflow("robust-keys-gated-loop").do_until(count_when_asked, lambda data: data["value"] >= 3).commit()


# ------------------------------------------------------------------------------------------------ parallel, R-PAF


@step(id="good")
def succeed() -> Data:
    """Succeed."""
    return {"value": 1}


@step(id="bad")
def fail() -> None:
    """Fail."""
    raise ValueError("one arm fails")


@step(id="worse")
def fail_too() -> None:
    """Fail as well."""
    raise ValueError("the other arm fails")


@step(id="held")
def suspend(ctx: Context) -> Data:
    """Wait for a resume."""
    if not ctx.resumed:
        ctx.suspend({"waits": True})
    return {"value": 3}


@step(id="gather")
def gather(data: Data, ctx: Context) -> Data:
    """Note what the group has come to."""
    note(ctx, "gather", data)
    return data


tolerant = Workflow("robust-tolerant").parallel(succeed, fail, allow_failure=True).then(gather).commit()
strict = Workflow("robust-strict").parallel(succeed, fail).then(gather).commit()
all_fail = Workflow("robust-all-fail").parallel(fail, fail_too, allow_failure=True).then(gather).commit()
fail_and_wait = Workflow("robust-fail-and-wait").parallel(fail, suspend, allow_failure=True).then(gather).commit()
