"""The workflows whose traces are looked at; also those of the worker process and of the picture in the docs."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, clone_step, step


class Declined(Exception):
    """The answer of the bank the first time."""


@step
def reserve(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "reserved": True}


@step(retries=1, retry_delay=0.01)
def charge(order: dict[str, Any], ctx: Context) -> int:
    if ctx.retry_count == 0:
        raise Declined("try again")
    return 100


@step
def notify(order: dict[str, Any]) -> None:
    return None


@step
def ask(case: Any, ctx: Context) -> Any:
    if not ctx.resumed:
        ctx.suspend({"who": "manager"}, label="manager")
    return ctx.resume_data


@step
def pack(answer: Any) -> int:
    return 0


@step
def count(number: int) -> int:
    return number + 1


@step
def break_down(data: Any) -> None:
    raise ValueError("no such thing")


approval = Workflow("approval").then(ask).then(pack).commit()

checkout = Workflow("checkout").then(reserve).parallel(charge, notify).then(approval).then(count).commit()

winding = (
    Workflow("winding")
    .do_until(count, lambda number: number >= 2)
    .branch((lambda number: True, clone_step(count, id="large")), (lambda number: False, clone_step(count, id="small")))
    .map(lambda data: [1, 2, 3])
    .foreach(clone_step(count, id="each"), concurrency=2)
    .sleep(0.01)
    .wait_for_event("paid")
    .commit()
)

breaking = Workflow("breaking").then(Workflow("inside").then(break_down).commit()).commit()

WORKFLOWS = [checkout, winding, breaking]
