"""Arguments of the wrong kind: a clear error at once, and nothing written."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Context, InputInvalid, Orchestrator, Run, Workflow, step


@step
def look(number: int, ctx: Context) -> list[str]:
    """Read the events of this very run."""
    assert ctx.orchestrator is not None
    return [event.type for event in ctx.orchestrator.get_run(ctx.run_id).events()]


async def listen(_: object) -> None:
    """A callback that would never be awaited."""


flow = Workflow("looking", input=int).then(look).commit()
sleepy = Workflow("sleepy", input=int).sleep(30).commit()

WRONG: dict[str, tuple[Callable[[Run], Any], type[Exception], str]] = {
    "state": (lambda run: run.start(1, state=[1]), TypeError, "state is a mapping, not list"),  # type: ignore[arg-type]
    "context": (
        lambda run: run.submit(1, request_context="abc"),  # type: ignore[arg-type]
        TypeError,
        "request_context is a mapping, not str",
    ),
    "limit": (lambda run: run.orchestrator.runs.list(limit=-1), ValueError, "must not be negative"),
    "offset": (lambda run: run.orchestrator.runs.list(offset=-1), ValueError, "must not be negative"),
    "age": (lambda run: run.orchestrator.runs.purge(older_than=-5), ValueError, "older_than must not be negative"),
    "limit as a text": (
        lambda run: run.orchestrator.runs.list(limit="3"),
        TypeError,
        "limit is a whole number, not '3'",
    ),  # type: ignore[arg-type]
    "age as a text": (
        lambda run: run.orchestrator.runs.purge(older_than="3"),
        TypeError,
        "older_than takes seconds, not '3'",
    ),  # type: ignore[arg-type]
    "timeout": (lambda run: run.start(1, timeout="3"), TypeError, "timeout takes seconds, not '3'"),  # type: ignore[arg-type]
    "result": (lambda run: run.result(timeout="3"), TypeError, "timeout takes seconds, not '3'"),  # type: ignore[arg-type]
    "heartbeat": (lambda run: run.events(heartbeat="1"), TypeError, "heartbeat takes seconds, not '1'"),  # type: ignore[call-overload]
    "countdown": (lambda run: flow.apply_async((1,), countdown="3"), TypeError, "countdown takes seconds, not '3'"),  # type: ignore[arg-type]
    "eta": (lambda run: flow.apply_async((1,), eta="2030"), TypeError, "eta is a datetime, not '2030'"),  # type: ignore[arg-type]
    "status": (lambda run: run.orchestrator.runs.list(status="weird"), ValueError, "'weird' is not a valid RunStatus"),
    "cursor": (lambda run: run.events(after="garbage"), ValueError, "'garbage' is no cursor"),
    "async": (lambda run: run.watch(listen), TypeError, "async"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named(name: str) -> None:
    """Before anything is written: the run is pending afterwards."""
    call, error, words = WRONG[name]
    with Orchestrator(workflows=[flow]) as orchestrator:
        run = orchestrator.create_run(flow)
        with pytest.raises(error, match=words):
            call(run)
        assert run.status == "pending"


def test_a_stream_is_not_waited_for_until_no_moment() -> None:
    """Nothing is later than nan: a wait with that timeout would never end."""

    async def wait(run: Run) -> None:
        await run.astream(1).result(timeout=math.nan)

    with Orchestrator(workflows=[sleepy]) as orchestrator:
        stream = orchestrator.create_run(sleepy).stream(1)
        with pytest.raises(ValueError, match="timeout takes seconds, not nan"):
            stream.result(timeout=math.nan)
        unstarted = orchestrator.create_run(sleepy)
        with pytest.raises(ValueError, match="timeout takes seconds, not nan"):
            asyncio.run(asyncio.wait_for(wait(unstarted), 20))
        assert unstarted.status == "pending"


def test_a_refusal_says_whose_it_is() -> None:
    """The run and the workflow are among the details of what a value's check raises, too."""

    def ask(number: int, ctx: Context[int]) -> int | None:
        return ctx.resume_data if ctx.resumed else ctx.suspend()

    asking = Workflow("asking", input=int).then(step(ask)).commit()
    with Orchestrator(workflows=[asking]) as orchestrator:
        run = orchestrator.create_run(asking, run_id="r")
        with pytest.raises(InputInvalid) as refused:
            run.start("many")
        assert refused.value.details == {"workflow_id": "asking", "run_id": "r"}
        run.start(1)
        with pytest.raises(InputInvalid) as refused:
            run.resume("much")
        assert refused.value.details == {"workflow_id": "asking", "run_id": "r"}
        assert run.resume(5).result == 5


def test_a_step_cannot_follow_a_run_that_goes_on() -> None:
    """It would wait for itself."""
    with Orchestrator(workflows=[flow]) as orchestrator:
        result = orchestrator.create_run(flow).start(1)
    assert result.status == "failed"
    assert "a step must not" in str(result.error)


@pytest.mark.parametrize("given, error", [(Path("runs.db"), TypeError), (b"memory://", TypeError), ("", ValueError)])
def test_what_is_no_store_is_refused_at_once(given: Any, error: type[Exception]) -> None:
    """An empty text is no wish for a store in memory, which would lose all runs with the process."""
    with pytest.raises(error, match="`store`"):
        Orchestrator(store=given)


def test_a_run_starts_at_one_moment() -> None:
    """A countdown beside an eta would be dropped."""
    later = Workflow("later").then(step(lambda x: x, id="same")).commit()
    with Orchestrator(workflows=[later]), pytest.raises(ValueError, match="not both"):
        later.apply_async((1,), countdown=5, eta=datetime(2030, 1, 1, tzinfo=UTC))


def test_a_signal_may_be_waited_for_for_ever_in_seconds() -> None:
    """More seconds than Python waits for are as good as no end: the step does not fail by them."""

    def wait(number: int, ctx: Context) -> bool:
        threading.Timer(0.1, ctx.abort_signal.set).start()
        return ctx.abort_signal.wait(1e12)

    waiting = Workflow("waiting", input=int).then(step(wait)).commit()
    with Orchestrator(workflows=[waiting]) as orchestrator:
        assert orchestrator.create_run(waiting).start(1).result is True
