"""Readers: nothing is missed and nothing comes twice, however often they begin again, and however many they are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator import Event, Run, RunNotFound
from tests.streaming import flows
from tests.streaming.conftest import Opener

READERS = 200
COUNT = 15


def test_a_reader_that_is_killed_at_every_event_goes_on_by_its_cursor(opened: Opener) -> None:
    """Each event is read by a new reader of a new connection, while the run goes on and after it has ended."""
    run = opened(flows.talking).create_run(flows.talking).submit(COUNT)
    read: list[Event] = []
    while not read or read[-1].type != "workflow-finish":
        with opened(flows.talking) as orchestrator:
            cursor = read[-1].id if read else None
            read.append(next(iter(orchestrator.get_run(run.run_id).events(cursor))))

    assert read == [*run.events()]
    assert len({event.id for event in read}) == len(read)
    outputs = [event.payload["output"] for event in read if event.type == "workflow-step-output"]
    assert outputs == [*range(COUNT)] * 3
    assert [*run.events(read[-1].id)] == []


def test_a_late_reader_replays_from_any_cursor(opened: Opener) -> None:
    """Each cursor gives the events after it."""
    run = opened(flows.talking).create_run(flows.talking)
    live = [*run.stream(3)]

    for place, event in enumerate(live, 1):
        assert [*run.events(event.id)] == live[place:]


@pytest.mark.parametrize("url", ["memory", "sqlite", "redis", "postgres"], indirect=True)
def test_many_readers_of_one_run_all_see_all(opened: Opener) -> None:
    """They follow it from before its first step to its end."""
    orchestrator = opened(flows.talking)
    run = orchestrator.create_run(flows.talking)
    ready = threading.Barrier(READERS + 1)

    def read(_: int) -> list[Event]:
        found = run.events()
        ready.wait(30)
        return [*found]

    with ThreadPoolExecutor(READERS) as threads:
        reading = [threads.submit(read, number) for number in range(READERS)]
        ready.wait(30)
        run.submit(COUNT)
        seen = [one.result(60) for one in reading]
    assert all(events == seen[0] for events in seen)
    assert seen[0][-1].type == "workflow-finish"
    assert len([event for event in seen[0] if event.type == "workflow-step-output"]) == 3 * COUNT


def test_a_reader_of_a_settled_run_ends_with_its_last_event(opened: Opener) -> None:
    """One of a run that was resumed since replays both parts, and each part has its own stream."""
    run = opened(flows.asking).create_run(flows.asking)
    first = [*run.stream(2)]
    assert [*run.events()] == first
    second = [*run.resume_stream({})]
    assert [*run.events()] == [*first, *second]
    assert [event.type for event in (*first, *second)].count("workflow-finish") == 2
    assert second[0].payload["resume_payload"] == {}


def test_streams_end_by_themselves(opened: Opener) -> None:
    """On success, failure, suspension, pause and cancel."""
    orchestrator = opened(flows.talking, flows.failing, flows.asking, flows.gated)

    def ended(run: Run, **options: bool) -> str:
        events = [*run.stream(2, **options)]
        assert events[-1].type == "workflow-finish"
        return str(events[-1].payload["workflow_status"])

    assert ended(orchestrator.create_run(flows.talking)) == "success"
    assert ended(orchestrator.create_run(flows.failing)) == "failed"
    assert ended(orchestrator.create_run(flows.asking)) == "suspended"
    paused = orchestrator.create_run(flows.talking)
    assert ended(paused, per_step=True) == "paused"
    assert [event.type for event in paused.events()][-2:] == ["workflow-paused", "workflow-finish"]
    canceled = orchestrator.create_run(flows.gated)
    types = []
    for event in canceled.stream(1):
        types.append(event.type)
        if event.type == "workflow-step-output":
            canceled.cancel()
    assert types[-2:] == ["workflow-canceled", "workflow-finish"]


def test_a_stream_that_stays_open_ends_with_a_cancel(opened: Opener) -> None:
    """The run may be suspended at that moment or not."""
    run = opened(flows.asking).create_run(flows.asking)
    stream = run.stream(1, close_on_suspend=False)
    types = []
    for event in stream:
        types.append(event.type)
        if event.type == "workflow-finish" and event.payload["workflow_status"] == "suspended":
            run.cancel()
    assert types[-3:] == ["workflow-finish", "workflow-canceled", "workflow-finish"]
    assert stream.result().status == "canceled"


def test_a_stream_ends_when_its_run_is_deleted(opened: Opener) -> None:
    """Its result then is that there is no such run."""
    orchestrator = opened(flows.asking)
    run = orchestrator.create_run(flows.asking)
    stream = run.stream(1, close_on_suspend=False)
    for event in stream:
        if event.type == "workflow-finish":
            orchestrator.runs.delete(run.run_id)
    with pytest.raises(RunNotFound):
        stream.result(1)


def test_what_is_no_cursor_is_refused(opened: Opener) -> None:
    """A client may send anything."""
    run = opened(flows.talking).create_run(flows.talking)
    run.start(1)
    with pytest.raises(ValueError, match="x; drop"):
        [*run.events("x; drop")]
