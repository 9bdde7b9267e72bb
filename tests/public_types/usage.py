"""How users write steps: checked by mypy, never run.

An ignored error must be one: mypy says which comment is not needed.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterator
from typing import Any, assert_type

from pydantic import BaseModel

from orchestrator import Context, Run, RunResult, RunStream, Step, Workflow, clone_step, from_step, step


class Order(BaseModel):
    sku: str


class Receipt(BaseModel):
    total: int


class Approval(BaseModel):
    ok: bool


@step
def reserve(order: Order) -> int:
    return len(order.sku)


@step(retries=3, retry_delay=1.0, queue="payments", time_limit=30, retry_on=(OSError,))
async def charge(order: Order, ctx: Context[Any]) -> Receipt:
    return Receipt(total=1)


@step()
def streamed(order: Order) -> Generator[str, None, Receipt]:
    yield order.sku
    return Receipt(total=1)


@step(resume=Approval)
def approve(order: Order, ctx: Context[Approval]) -> bool:
    assert_type(ctx.resume_data, Approval)
    if not ctx.resumed:
        ctx.suspend(order, label="manager")
    return ctx.resume_data.ok


def chunks(order: Order) -> Iterator[str]:
    yield order.sku


named = step(chunks, id="named")
short = step(lambda: 1, id="short")


def calling(ctx: Context[Any], order: Order) -> None:
    """A step is called like its function."""
    assert_type(reserve(order), int)
    _ = assert_type(charge(order, ctx), Coroutine[Any, Any, Receipt])
    assert_type(streamed(order), Generator[Any, Any, Receipt])
    assert_type(approve(order, ctx), bool)
    assert_type(named(order), Iterator[str])
    assert_type(short(), int)
    assert_type(clone_step(reserve, id="other")(order), int)
    reserve("text")  # type: ignore[arg-type]
    reserve()  # type: ignore[call-arg]
    reserve(order, ctx)  # type: ignore[call-arg]


def results(ctx: Context[Any]) -> None:
    """The result of a step is its output, or None."""
    assert_type(ctx.result(reserve), int | None)
    assert_type(ctx.result(approve), bool | None)
    assert_type(ctx.result("reserve"), Any)


def kinds() -> None:
    """What the decorator makes of each kind of function."""
    accepted: list[Step[..., Any, Receipt]] = [charge, streamed]
    assert accepted[0].id


def building(order: Order) -> None:
    """The builder takes every kind of entry and gives the workflow back."""
    workflow = Workflow("w", input=Order).then(reserve).parallel(charge, approve, chunks, "proj.tasks.add")
    assert_type(workflow, Workflow)
    workflow.branch((lambda data: True, reserve), (lambda data, ctx: False, Workflow("v")))
    workflow.map({"a": from_step(reserve)}).foreach(reserve, concurrency=len).commit()
    workflow.then(3)  # type: ignore[arg-type]
    step(reserve, retires=3)  # type: ignore[call-overload]


def running(run: Run, order: Order) -> None:
    """Each verb has the keywords of its kind, typed; one that waits has a timeout too."""
    assert_type(run.start(order, state={"seen": 1}, request_context=None, per_step=True, timeout=1.5), RunResult)
    assert_type(run.submit(order, per_step=True), Run)
    assert_type(run.stream(order, state=None, close_on_suspend=False), RunStream)
    assert_type(run.resume(Approval(ok=True), step=approve, label="manager", index=0, timeout=None), RunResult)
    assert_type(run.time_travel("reserve", input=order, context={}, resume_data=None, timeout=1), RunResult)
    run.start(order, pre_step=True)  # type: ignore[call-arg]
    run.submit(order, timeout=1)  # type: ignore[call-arg]
    run.start(order, per_step="yes")  # type: ignore[arg-type]
    run.resume(index="0")  # type: ignore[arg-type]
    run.time_travel("reserve", label="manager")  # type: ignore[call-arg]
