"""Watchers: what they do is their own affair."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from orchestrator import Event
from tests.streaming import flows
from tests.streaming.conftest import Opener, eventually
from tests.vendor import wait_until


def test_a_watcher_sees_what_a_reader_sees(opened: Opener) -> None:
    """From the moment it begins, over a suspension, to the run's end."""
    run = opened(flows.asking).create_run(flows.asking)
    seen: list[Event] = []
    run.watch(seen.append)
    run.start(2)
    run.resume({})
    eventually(lambda: bool(seen) and seen[-1].payload.get("workflow_status") == "success", 10, "the last event")
    assert seen == [*run.events()]


def test_a_watcher_that_comes_late_sees_what_comes_then(opened: Opener) -> None:
    """Earlier events are not repeated to it."""
    run = opened(flows.asking).create_run(flows.asking)
    first = [*run.stream(1)]
    seen: list[Event] = []
    run.watch(seen.append)
    second = [*run.resume_stream({})]
    eventually(lambda: len(seen) == len(second), 10, "the events of the resumed run")
    assert seen == second
    assert seen[0] not in first


def test_a_watcher_that_raises_is_logged_and_goes_on(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """The run knows nothing of it."""
    run = opened(flows.talking).create_run(flows.talking)
    calls: list[str] = []

    def stumble(event: Event) -> None:
        calls.append(event.type)
        raise ZeroDivisionError(event.type)

    with caplog.at_level(logging.ERROR, "orchestrator"):
        run.watch(stumble)
        assert run.start(3).status == "success"
        events = [*run.events()]
        eventually(lambda: len(calls) == len(events), 10, "all calls")
    assert calls == [event.type for event in events]
    eventually(lambda: len(caplog.records) == len(events), 10, "the last line of the log")
    assert {(record.name, record.levelname) for record in caplog.records} == {("orchestrator", "ERROR")}


def test_a_watcher_that_hangs_does_not_slow_the_run(opened: Opener) -> None:
    """The run has ended long before the watcher is done with its first event."""
    run = opened(flows.talking).create_run(flows.talking)
    release = threading.Event()
    seen: list[Event] = []

    def hang(event: Event) -> None:
        release.wait(30)
        seen.append(event)

    run.watch(hang)
    assert run.start(5).status == "success"
    assert not seen
    release.set()
    eventually(lambda: bool(seen) and seen[-1].type == "workflow-finish", 10, "the last event")
    assert seen == [*run.events()]


def test_a_stopped_watcher_is_called_no_more(opened: Opener) -> None:
    """Also when it stops itself, or is stopped again."""
    run = opened(flows.talking).create_run(flows.talking)
    seen: list[Event] = []
    stop: Any = None

    def once(event: Event) -> None:
        seen.append(event)
        stop()

    stop = run.watch(once)
    run.start(3)
    eventually(lambda: bool(seen), 10, "the first event")
    stop()
    assert len(seen) == 1


def test_closing_the_orchestrator_ends_its_watchers(opened: Opener) -> None:
    """No thread of theirs is left."""
    orchestrator = opened(flows.asking)
    run = orchestrator.create_run(flows.asking)
    run.watch(lambda event: None)
    name = f"watch-{run.run_id}"
    assert name in [thread.name for thread in threading.enumerate()]
    orchestrator.close()
    assert name not in [thread.name for thread in threading.enumerate()]


def test_a_watcher_of_an_ended_run_is_over_at_once(opened: Opener) -> None:
    """There is nothing to wait for, and no thread stays."""
    run = opened(flows.talking).create_run(flows.talking)
    run.start(1)
    seen: list[Event] = []
    run.watch(seen.append)
    assert wait_until(lambda: not [t for t in threading.enumerate() if t.name == f"watch-{run.run_id}"], 10)
    assert seen == []
