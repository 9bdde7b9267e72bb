"""`bail`, `abort`, `suspend` and failures in each other's company; retries of what is no step of the user's."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator

import pytest

from orchestrator import Context, Orchestrator, RunStatus, Workflow, step


def suspends(ctx: Context) -> None:
    ctx.suspend({"for": "nobody"})


def bails(ctx: Context) -> None:
    ctx.bail("enough")


def fails(ctx: Context) -> None:
    raise ValueError("no")


@pytest.mark.parametrize("word", [suspends, bails, fails, lambda ctx: None], ids=["suspend", "bail", "raise", "return"])
def test_an_abort_outweighs_what_the_step_says_after_it(word: Callable[[Context], None]) -> None:
    """The run is canceled, however the function ends."""

    def speaks(number: int, ctx: Context) -> None:
        ctx.abort()
        word(ctx)

    flow = Workflow("aborting", input=int).then(step(speaks)).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        result = orchestrator.create_run(flow).start(1)
        assert result.status == "canceled"
        assert result.suspended == []


def delegates(number: int) -> Generator[int, None, str]:
    return streams(number)


def streams(number: int) -> Generator[int, None, str]:
    yield from range(number)
    return "streamed"


def test_a_generator_is_run_where_the_function_says_that_it_is_one() -> None:
    """By being one, or by its annotation."""
    for function in (streams, delegates):
        flow = Workflow("streaming", input=int).then(step(function)).commit()
        with Orchestrator(workflows=[flow]) as orchestrator:
            assert orchestrator.create_run(flow).start(3).result == "streamed"


def test_a_generator_that_is_returned_is_no_output() -> None:
    """Its items would go to the stream, and the output would be None."""
    squares = step(lambda number: (n * n for n in range(number)), id="squares")
    shapes = {
        "of a step": Workflow("w", input=int).then(squares).commit(),
        "of a map": Workflow("w", input=int).map(lambda number: (n for n in range(number))).commit(),
        "of a condition": Workflow("w", input=int)
        .do_while(step(lambda n: n, id="same"), lambda n: (n for _ in "a"))
        .commit(),
    }
    for what, flow in shapes.items():
        with Orchestrator(workflows=[flow]) as orchestrator:
            result = orchestrator.create_run(flow).start(3)
            assert (what, result.status) == (what, "failed")
            assert "return list(...) of it" in str(result.error)


async def endless(number: int) -> AsyncIterator[bool]:
    yield False


def hides(inner: Callable[[int], AsyncIterator[bool]], number: int) -> object:
    return inner(number)


def test_an_async_generator_is_no_value() -> None:
    """It counts as true: a branch would be taken, and a loop would never end."""
    same = step(lambda n: n, id="same")
    shapes = {
        "of a branch": Workflow("w", input=int).branch((endless, same)).commit(),
        "of a loop": Workflow("w", input=int).do_while(same, endless).commit(),
        "of a map": Workflow("w", input=int).map(endless, id="mapped").commit(),
        "of a step": Workflow("w", input=int).then(step(functools.partial(hides, endless), id="hidden")).commit(),
    }
    for what, flow in shapes.items():
        with Orchestrator(workflows=[flow]) as orchestrator:
            result = orchestrator.create_run(flow).start(3)
            assert (what, result.status) == (what, "failed")
            assert "the async generator endless, which is no value" in str(result.error)


def test_a_map_is_tried_again_as_the_workflow_says() -> None:
    """A map is a step as well: the workflow's retries are its own."""
    calls: list[int] = []

    def moody(number: int) -> int:
        calls.append(number)
        if len(calls) < 3:
            raise ConnectionError("not now")
        return number + 1

    flow = Workflow("mapping", input=int, retries=2).map(moody).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        assert orchestrator.create_run(flow).start(1).result == 2
    assert calls == [1, 1, 1]


def test_hooks_get_the_status_as_everybody_does() -> None:
    """As a `RunStatus`, from the first hook to the last."""
    seen: list[object] = []
    note = lambda info: seen.append(info.status)  # noqa: E731
    flow = Workflow("told", on_start=note, on_finish=note).then(step(lambda data: data, id="same")).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        orchestrator.create_run(flow).start(1)
    assert [repr(status) for status in seen] == [repr(RunStatus.PENDING), repr(RunStatus.SUCCESS)]
