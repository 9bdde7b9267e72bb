"""The workflows of these tests: one for each way in which a run can end."""

from __future__ import annotations

import threading

from pydantic import BaseModel

from orchestrator import Context, Orchestrator, TripWire, Workflow, step
from orchestrator.testing import WorkerLost


class Order(BaseModel):
    sku: str
    qty: int


@step
def reserve(order: Order) -> int:
    return order.qty


@step(retries=1)
def charge(qty: int, ctx: Context) -> int:
    if ctx.retry_count == 0:
        raise ConnectionError("the bank is busy")
    return qty * 100


@step
def loud(number: int) -> int:
    print("a step prints what it likes")
    return number + 1


@step
def fail(number: int) -> int:
    raise ValueError("no\nstock \x1b[31m")


@step
def trip(number: int) -> int:
    raise TripWire("too dangerous", metadata={"score": 9})


@step
def ask(number: int, ctx: Context) -> int:
    if not ctx.resumed:
        ctx.suspend({"question": "more?"}, label="manager")
    return number + ctx.resume_data


RELEASED = threading.Event()


@step
def block(number: int) -> int:
    RELEASED.wait(30)
    return number


LOSE = threading.Event()


@step
def frail(number: int) -> int:
    if LOSE.is_set():
        raise WorkerLost
    return number + 1


@step
def add(number: int, ctx: Context) -> int:
    return number + (ctx.resume_data or 0) + ctx.state.get("more", 0)


pay = Workflow("pay", input=int).then(charge).commit()
checkout = Workflow("checkout", input=Order, output=int).then(reserve).then(pay).commit()
many = Workflow("many", input=list[int]).foreach(pay).commit()
chatty = Workflow("chatty", input=int).then(loud).commit()
broken = Workflow("broken", input=int).then(loud).then(fail).commit()
wired = Workflow("wired", input=int).then(trip).commit()
approval = Workflow("approval", input=int).then(ask).commit()
blocked = Workflow("blocked", input=int).then(block).commit()
lossy = Workflow("lossy", input=int).then(loud).then(frail).commit()
adding = Workflow("adding", input=int).then(loud).then(add).commit()
timed = Workflow("timed").wait_for_event("signed", timeout=3600, id="signature").commit()

listening = Workflow("listening").wait_for_event("paid").commit()
approvals = Workflow("approvals").foreach(approval).commit()

ALL = [
    listening,
    approvals,
    checkout,
    many,
    chatty,
    broken,
    wired,
    approval,
    blocked,
    lossy,
    adding,
    timed,
]
MIXED = [checkout, "no workflow"]


def ready() -> Orchestrator:
    """Make an orchestrator as a user's module has it."""
    return Orchestrator(store="memory://cli-ready", workflows=ALL)


READY = ready()
