"""Streams for `async for`."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from orchestrator import AsyncRunStream, Event, InputInvalid, Workflow, step
from tests.streaming import flows
from tests.streaming.conftest import Opener
from tests.vendor import wait_until

T = TypeVar("T")


class Order(BaseModel):
    """The input of the strict workflow."""

    qty: int


@step
def count(order: Order) -> int:
    """Count the order."""
    return order.qty


strict = Workflow("strict", input=Order).then(count).commit()


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 30))


def test_the_loop_goes_on_while_events_are_awaited(opened: Opener) -> None:
    """Events come as they do without asyncio, and the result can be awaited."""
    run = opened(flows.talking).create_run(flows.talking)

    async def read() -> tuple[list[Event], Any, int]:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.005)

        heart = asyncio.create_task(beat())
        async with run.astream(10) as stream:
            events = [event async for event in stream]
            result = await stream.result()
        heart.cancel()
        return events, result, beats

    events, result, beats = _run(read())
    assert events == [*run.events()]
    assert (result.status, result.result) == ("success", 10)
    assert beats > 3


def test_the_result_can_be_awaited_without_reading(opened: Opener) -> None:
    """Twice, and beside a reader."""
    run = opened(flows.talking).create_run(flows.talking)

    async def both() -> list[str]:
        stream = run.astream(3)
        first, second = await asyncio.gather(stream.result(), stream.result(timeout=20))
        assert first == second
        return [event.type async for event in stream]

    assert _run(both())[-1] == "workflow-finish"


def test_a_reader_that_gives_up_and_comes_again_misses_nothing(opened: Opener) -> None:
    """A timeout around the next event loses none."""
    run = opened(flows.gated).create_run(flows.gated)

    async def read() -> tuple[list[Event], int]:
        events: list[Event] = []
        waited = 0
        stream = run.astream(2)
        while True:
            try:
                events.append(await asyncio.wait_for(anext(stream), 0.05))
            except TimeoutError:
                waited += 1
                if waited == 3:
                    flows.gate(run.run_id).set()
            except StopAsyncIteration:
                return events, waited

    events, waited = _run(read())
    assert events == [*run.events()]
    assert waited >= 3


def test_a_result_that_takes_too_long_times_out(opened: Opener) -> None:
    """The run itself goes on."""
    run = opened(flows.gated).create_run(flows.gated)

    async def wait() -> str:
        async with run.astream(1) as stream:
            with pytest.raises(TimeoutError):
                await stream.result(timeout=0.05)
            flows.gate(run.run_id).set()
            return str((await stream.result()).status)

    assert _run(wait()) == "success"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_what_is_wrong_with_the_input_is_raised_when_reading_begins(opened: Opener) -> None:
    """As `start` raises it."""
    run = opened(strict).create_run(strict)

    async def read() -> None:
        async for _ in run.astream({"qty": "many"}):
            pytest.fail("there is nothing to read")

    with pytest.raises(InputInvalid):
        _run(read())
    assert run.status == "pending"


def _readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("orchestrator-astream")]


@pytest.mark.parametrize("how", ["closed", "let go"])
def test_a_reader_that_leaves_early_leaves_no_thread(opened: Opener, how: str) -> None:
    """Neither one that closes its stream while it waits nor one that forgets it; the run stays as it is."""
    run = opened(flows.asking).create_run(flows.asking)

    async def read_all(stream: AsyncRunStream) -> None:
        async for _ in stream:
            pass

    async def read() -> None:
        stream = run.astream(1, close_on_suspend=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_all(stream), 1)
        if how == "closed":
            await stream.aclose()
            assert [event async for event in stream] == []

    _run(read())
    gc.collect()
    assert wait_until(lambda: not _readers(), 10)
    assert run.status == "suspended"


def test_a_stream_that_is_closed_before_it_began_starts_nothing(opened: Opener) -> None:
    """And says so."""
    run = opened(flows.talking).create_run(flows.talking)

    async def close() -> None:
        stream = run.astream(1)
        await stream.aclose()
        with pytest.raises(RuntimeError, match="has not been started"):
            await stream.result()

    _run(close())
    assert run.status == "pending"
