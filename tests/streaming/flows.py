"""Workflows whose steps write."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

from orchestrator import Context, Workflow, clone_step, step

GATES: dict[str, threading.Event] = {}


def gate(run_id: str) -> threading.Event:
    """Return the event for which a step of this run waits."""
    return GATES.setdefault(run_id, threading.Event())


@step
def talk(count: int) -> Generator[int, None, int]:
    """Count aloud."""
    yield from range(count)
    return count


@step
def talk_slowly(count: int, ctx: Context) -> int:
    """Count aloud with pauses."""
    for number in range(count):
        ctx.write(number)
        ctx.abort_signal.wait(0.01)
    return count


@step
def wait_at_the_gate(count: int, ctx: Context) -> int:
    """Stream a chunk, and wait until the test lets it go on."""
    ctx.write("here")
    while not gate(ctx.run_id).wait(0.01):
        ctx.raise_if_aborted()
    return count


@step
def ask(count: int, ctx: Context) -> int:
    """Suspend once."""
    if not ctx.resumed:
        ctx.suspend({"count": count})
    return count


@step
def fail(count: int) -> Any:
    """Fail."""
    raise ValueError(str(count))


talk_more = clone_step(talk, id="talk_more")
talking = Workflow("talking").then(talk).then(talk_slowly).then(talk_more).commit()
gated = Workflow("gated").then(wait_at_the_gate).then(talk).commit()
asking = Workflow("asking").then(talk).then(ask).then(talk_more).commit()
failing = Workflow("failing").then(fail).commit()
many = Workflow("many").do_until(talk, lambda ctx: ctx.iteration == 60).commit()
