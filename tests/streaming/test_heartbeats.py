"""A reader of a run that sleeps hears of the time that passes, and leaves nothing behind when it goes."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from orchestrator import Orchestrator, Workflow, step
from tests.vendor import wait_until

READERS = 40


@step
def one(number: int) -> int:
    return number


sleepy = Workflow("sleepy", input=int).then(one).sleep(3600).commit()
short = Workflow("short", input=int).then(one).sleep(0.3).commit()


@pytest.mark.parametrize("heartbeat", [0.05, 1.2])
def test_a_reader_gets_none_while_nothing_happens(heartbeat: float) -> None:
    """Whenever so much time has passed, also more than a reader waits in one go; then the rest of the events."""
    with Orchestrator(workflows=[sleepy]) as orchestrator:
        run = orchestrator.create_run(sleepy).submit(1)
        events = run.events(heartbeat=heartbeat)
        assert next(event.type for event in events if event and event.type == "workflow-step-waiting")
        begun = time.monotonic()
        assert [next(events), next(events)] == [None, None]
        assert 2 * heartbeat - 0.05 <= time.monotonic() - begun < 2 * heartbeat + 3
        run.cancel()
        rest = [event.type for event in events if event is not None]
        assert rest[-1] == "workflow-finish"


def test_without_a_heartbeat_all_are_events() -> None:
    """To the end; and a heartbeat adds nothing to a run that has ended."""
    with Orchestrator(workflows=[short]) as orchestrator:
        run = orchestrator.create_run(short).submit(1)
        ids = [event.id for event in run.events()]
        assert [event and event.id for event in run.events(heartbeat=0.01)] == ids


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan"), float("inf")])
def test_a_heartbeat_that_is_no_time_is_refused(heartbeat: float) -> None:
    """At once."""
    with Orchestrator(workflows=[short]) as orchestrator, pytest.raises(ValueError, match="heartbeat"):
        orchestrator.create_run(short).submit(1).events(heartbeat=heartbeat)


def test_async_readers_that_leave_give_their_threads_back() -> None:
    """Those of a web server whose clients have gone; the event loop goes on meanwhile."""
    before = threading.active_count()

    async def read(run: object) -> int:
        beats = 0
        async for event in run.aevents(heartbeat=0.05):  # type: ignore[attr-defined]
            beats += event is None
            if beats == 2:
                break
        return beats

    async def main() -> list[int]:
        run = orchestrator.create_run(sleepy).submit(1)
        return await asyncio.gather(*[read(run) for _ in range(READERS)])

    with Orchestrator(workflows=[sleepy]) as orchestrator:
        assert asyncio.run(main()) == [2] * READERS
        assert wait_until(lambda: threading.active_count() < before + 8, 20)


def test_an_async_reader_gets_all_events() -> None:
    """As `events` gives them, also from a cursor on."""
    with Orchestrator(workflows=[short]) as orchestrator:
        run = orchestrator.create_run(short).submit(1)

        async def read(after: str | None = None) -> list[str]:
            return [event.id async for event in run.aevents(after) if event is not None]

        ids = asyncio.run(read())
        assert ids == [event.id for event in run.events()]
        assert asyncio.run(read(ids[1])) == ids[2:]
