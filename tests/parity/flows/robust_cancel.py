"""Workflows of the catalogue's R-CCF, R-CCS and R-CCN entries: runs that are canceled from outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator import Context, Workflow, step
from tests.parity.calls import note

Data = dict[str, Any]


@step(id="finish")
def finish(data: Data) -> Data:
    """Succeed or fail, as the input says."""
    if data["outcome"] == "failed":
        raise ValueError("failed as asked")
    return {"value": 1}


finished = Workflow("robust-cancel-finished").then(finish).commit()


@step(id="before")
def before(ctx: Context) -> Data:
    """Come before the sleep."""
    note(ctx, "before")
    return {"value": 1}


@step(id="after")
def after(ctx: Context) -> Data:
    """Note the call that must not happen."""
    note(ctx, "after")
    return {"value": 2}


def in_a_minute() -> datetime:
    """Return the moment to sleep until."""
    return datetime.now(UTC) + timedelta(seconds=60)


asleep = Workflow("robust-cancel-sleep").then(before).sleep(60, id="nap").then(after).commit()
asleep_until = (
    Workflow("robust-cancel-sleep-until").then(before).sleep_until(lambda ctx: in_a_minute(), id="nap").then(after)
).commit()


@step(id="gate")
def gate(ctx: Context) -> Data:
    """Wait for a resume."""
    if not ctx.resumed:
        ctx.suspend({"waits": True})
    return {"opened": True}


@step(id="quick")
def quick() -> Data:
    """End at once."""
    return {"quick": True}


_grandchild = Workflow("grandchild").then(gate).commit()
_child = Workflow("child").then(_grandchild).commit()
three_levels = Workflow("robust-cancel-levels").then(_child).commit()

_waiting = Workflow("waiting").then(gate).commit()
_done = Workflow("done").then(quick).commit()
two_children = Workflow("robust-cancel-two").parallel(_waiting, _done).commit()
unrelated = Workflow("robust-cancel-unrelated").then(_waiting).commit()


@step(id="odd-waits")
def odd_waits(number: int, ctx: Context) -> int:
    """Suspend on every odd number."""
    if number % 2 and not ctx.resumed:
        ctx.suspend({"number": number})
    return number


_item = Workflow("item").then(odd_waits).commit()
many_children = Workflow("robust-cancel-many").foreach(_item, concurrency=200).commit()


@step(id="long")
def work_until_canceled(ctx: Context) -> Data:
    """Work for long, and hear when nobody wants it any more."""
    note(ctx, "long")
    note(ctx, "heard", ctx.abort_signal.wait(15))
    return {"value": 1}


_long = Workflow("long-child").then(work_until_canceled).commit()
elsewhere = Workflow("robust-cancel-elsewhere").then(_long).then(after).commit()
