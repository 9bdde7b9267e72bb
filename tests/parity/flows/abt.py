"""Workflows of the catalogue's ABT entries: how a step stops its run, and hears that it is stopped."""

from __future__ import annotations

import time

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


@step(id="step1")
def look_at_signal(ctx: Context) -> dict[str, bool]:
    """Tell whether the abort signal is one, and waits for its turn."""
    signal = ctx.abort_signal
    return {
        "set": signal.is_set(),
        "waited": signal.wait(0),
        "listens": callable(signal.add_listener),
    }


@step(id="step1")
def look_at_abort(ctx: Context) -> dict[str, bool]:
    """Tell whether abort can be called."""
    return {"callable": callable(ctx.abort)}


@step(id="step1")
def first(ctx: Context) -> dict[str, str]:
    """Be the first of several."""
    note(ctx, "step1")
    return {"result": "step1"}


@step(id="step2")
def abort(ctx: Context) -> dict[str, str]:
    """Abort the run, and return something all the same."""
    note(ctx, "step2")
    ctx.abort()
    return {"result": "step2"}


@step(id="step3")
def third(ctx: Context) -> dict[str, str]:
    """Note the call that must not happen."""
    note(ctx, "step3")
    return {"result": "step3"}


@step(id="step1")
def take_a_second(ctx: Context) -> dict[str, str]:
    """Take a second."""
    note(ctx, "step1")
    time.sleep(1)
    return {"result": "completed"}


@step(id="step2")
def wait_for_abort(ctx: Context) -> dict[str, str]:
    """Take five seconds, or less when aborted."""
    heard: list[str] = []
    ctx.abort_signal.add_listener(lambda: heard.append("aborted"))
    ctx.abort_signal.wait(5)
    return {"result": "".join(heard) or "completed"}


@step(id="step2")
def wait_for_approval(ctx: Context) -> dict[str, str]:
    """Suspend."""
    note(ctx, "step2")
    ctx.suspend({"reason": "waiting for approval"})


abt_01 = Workflow("abt-01").then(look_at_signal).commit()
abt_02 = Workflow("abt-02").then(look_at_abort).commit()
abt_03 = Workflow("abt-03").then(first).then(abort).then(third).commit()
abt_04 = Workflow("abt-04").then(take_a_second).commit()
abt_05 = Workflow("abt-05").then(first).then(wait_for_abort).commit()
abt_07 = Workflow("abt-07").then(first).then(wait_for_approval).then(third).commit()
