"""FOREACH: one body for every item of a list."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel

from orchestrator import Context, Workflow, step
from tests.parity.calls import active, note


def _add_eleven(data: dict[str, int]) -> dict[str, int]:
    return {"value": data["value"] + 11}


@step(id="map")
def add(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "map")
    return _add_eleven(data)


@step(id="map")
def add_slowly(data: dict[str, int]) -> dict[str, int]:
    time.sleep(1)
    return _add_eleven(data)


@step(id="map")
def add_while_others_do(data: dict[str, int], ctx: Context) -> dict[str, int]:
    with active(ctx, "map"):
        time.sleep(0.1)
    return _add_eleven(data)


@step(id="map")
def add_or_fail(data: dict[str, int], ctx: Context) -> dict[str, int]:
    note(ctx, "map", data["value"])
    if data["value"] == 22:
        raise RuntimeError("Map failed")
    return _add_eleven(data)


@step
def final(data: list[dict[str, int]]) -> dict[str, int]:
    return {"finalValue": sum(item["value"] for item in data)}


@step(id="final")
def final_count(data: list[dict[str, int]], ctx: Context) -> dict[str, int]:
    note(ctx, "final", data)
    return {"count": len(data)}


def _workflow(id: str, body: Any, last: Any = final, concurrency: int = 1) -> Workflow:
    return Workflow(id, validate_inputs=False).foreach(body, concurrency=concurrency).then(last).commit()


one_at_a_time = _workflow("foreach-one-at-a-time", add_slowly)
three_at_a_time = _workflow("foreach-three-at-a-time", add_slowly, concurrency=3)
two_at_a_time = _workflow("foreach-two-at-a-time", add_while_others_do, concurrency=2)
over_nothing = _workflow("foreach-over-nothing", add, final_count)
with_progress = _workflow("foreach-with-progress", add)
failing = _workflow("foreach-failing", add_or_fail)


class Count(BaseModel):
    count: int


class Value(BaseModel):
    value: int


class Doubled(BaseModel):
    doubled: int


class Total(BaseModel):
    total: int


@step
def generate(wanted: Count) -> list[Value]:
    return [Value(value=number) for number in range(1, wanted.count + 1)]


@step
def transform(item: Value) -> Doubled:
    return Doubled(doubled=item.value * 2)


@step(id="sum")
def add_up(items: list[Doubled]) -> Total:
    return Total(total=sum(item.doubled for item in items))


over_an_output = (
    Workflow("foreach-over-an-output", input=Count, output=Total)
    .then(generate)
    .foreach(transform)
    .then(add_up)
    .commit()
)


class Output(BaseModel):
    output: int


@step(id="map")
def bail_or_write(item: int, ctx: Context) -> int:
    note(ctx, "map", item)
    if ctx.state["output"] > 1:
        ctx.bail([15])
    ctx.set_state({"output": item})
    return item


bailing = Workflow("foreach-bailing", state=Output, validate_inputs=False).foreach(bail_or_write).commit()
