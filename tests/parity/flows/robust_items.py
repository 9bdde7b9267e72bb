"""Workflows of the entries about the items of a foreach: R-EFC, R-FFP, R-FSP, R-FNW."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, RunInfo, Workflow, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note, note_for

Data = dict[str, Any]
LOST = "lost"


@step(id="hold", resume=int)
def hold(number: int, ctx: Context[int]) -> int:
    """Suspend, each item with a label of its own."""
    note(ctx, "hold", ctx.index)
    if not ctx.resumed:
        ctx.suspend({"number": number}, label=f"item-{ctx.index}")
    return number * 10 + ctx.resume_data


def width_of(data: list[int], ctx: Context) -> Any:
    """Note what a computed concurrency sees, and return what the run's input asks for."""
    note(ctx, "width", {"data": data, "init": ctx.init_data["width"]})
    return ctx.init_data["width"]


def items_of(data: Data) -> list[int]:
    """Return the list of the input."""
    return list(data["items"])


computed = Workflow("robust-items-computed").map(items_of).foreach(hold, concurrency=width_of).commit()
static = Workflow("robust-items-static").foreach(hold, concurrency=2).commit()
one_by_one = Workflow("robust-items-one-by-one").foreach(hold).commit()
all_at_once = Workflow("robust-items-all-at-once").foreach(hold, concurrency=3).commit()


@step(id="first-holds")
def first_holds(number: int, ctx: Context) -> int:
    """Suspend in the first item, and nowhere else."""
    note(ctx, "item", ctx.index)
    if ctx.index == 0 and not ctx.resumed:
        ctx.suspend({"number": number}, label="the-first")
    return number * 10


FIRST_HOLDS = {
    width: Workflow(f"robust-items-first-holds-{width}").foreach(first_holds, concurrency=width).commit()
    for width in (1, 2)
}
first_holds_1, first_holds_2 = FIRST_HOLDS[1], FIRST_HOLDS[2]


@step(id="last-holds")
def last_two_hold(number: int, ctx: Context) -> int:
    """Suspend in every item but the first."""
    if ctx.index and not ctx.resumed:
        ctx.suspend({"number": number})
    return number * 10


partly = Workflow("robust-items-partly").foreach(last_two_hold, concurrency=3).commit()


@step(id="work")
def be_lost_in_the_second(data: Data, ctx: Context) -> int:
    """Be lost in the second item, once, when the others of its batch are done."""
    if data["number"] == 1 and not count(ctx.run_id, LOST):
        for _ in range(500):
            if count(ctx.run_id, "done") >= data["others"]:
                break
            ctx.abort_signal.wait(0.01)
        note(ctx, LOST)
        raise WorkerLost
    note(ctx, "done", data["number"])
    return int(data["number"]) * 10


_item = Workflow("item").then(be_lost_in_the_second).commit()
LOST_ITEM = {
    width: Workflow(f"robust-items-lost-{width}", auto_restart=False).foreach(_item, concurrency=width).commit()
    for width in (1, 3)
}
lost_item_1, lost_item_3 = LOST_ITEM[1], LOST_ITEM[3]


@step(id="item")
def noted(number: int, ctx: Context) -> int:
    """Note the item."""
    note(ctx, "item", ctx.index)
    return number * 10


@step(id="next")
def be_lost_after_all(items: list[int], ctx: Context) -> int:
    """Be lost once, behind the foreach."""
    if not count(ctx.run_id, LOST):
        note(ctx, LOST)
        raise WorkerLost
    note(ctx, "next", items)
    return sum(items)


lost_behind = Workflow("robust-items-lost-behind", auto_restart=False).foreach(noted).then(be_lost_after_all).commit()
stranded = Workflow("robust-items-stranded").foreach(noted, concurrency=2).commit()


def be_lost_in_settling(info: RunInfo) -> None:
    """Be lost when the run is about to be stored as suspended, once."""
    if info.status == "suspended" and not count(info.run_id, LOST):
        note_for(info.run_id, LOST)
        raise WorkerLost


lost_in_settling = Workflow("robust-items-lost-in-settling", auto_restart=False, on_finish=be_lost_in_settling)
lost_in_settling.foreach(hold).commit()


@step(id="fails")
def fail_in_the_second(number: int, ctx: Context) -> int:
    """Fail in the second item."""
    note(ctx, "item", ctx.index)
    if ctx.index == 1:
        raise ValueError("the second fails")
    return number


FAILING = {
    width: Workflow(f"robust-items-failing-{width}").foreach(fail_in_the_second, concurrency=width).commit()
    for width in (1, 2)
}
failing_1, failing_2 = FAILING[1], FAILING[2]


@step(id="odd", resume=str)
def odd_ones_hold(number: int, ctx: Context[str]) -> str:
    """Suspend on every odd number."""
    if number % 2 and not ctx.resumed:
        note(ctx, "child", ctx.run_id)
        ctx.suspend({"number": number})
    return f"{number}:{ctx.resume_data if ctx.resumed else 'even'}"


_child = Workflow("child").then(odd_ones_hold).commit()
CHILDREN = {
    width: Workflow(f"robust-items-children-{width}").foreach(_child, concurrency=width).commit()
    for width in (1, 2, 5, 10)
}
children_1, children_2, children_5, children_10 = CHILDREN[1], CHILDREN[2], CHILDREN[5], CHILDREN[10]
