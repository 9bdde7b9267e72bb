"""R-ESR, R-ENC, R-EFT, R-ESI, R-EHO, R-WTO.

Messages that come twice, waiters that hear only what is theirs, lean events.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from celery import Celery, signals

from orchestrator import Event, NoConsumer, RunRecord, Workflow, WorkflowNotRegistered, step
from orchestrator.testing import deliver_again
from tests.parity.calls import calls, count, note_for
from tests.parity.flows import robust_messages as flows
from tests.parity.harness import Harness, Place, drain, make_app


@dataclass(frozen=True)
class Letter:
    """A task message as it was published."""

    name: str
    args: list[Any]
    task_id: str
    headers: dict[str, Any]


@contextmanager
def copying(run_id: str) -> Iterator[list[Letter]]:
    """Keep a copy of every message of a run that this process publishes."""
    kept: list[Letter] = []

    def copy(sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
        if headers["root_id"] == run_id:
            own = {name: headers[name] for name in ("orchestrator",) if name in headers}
            kept.append(Letter(sender, list(body[0]), headers["id"], own))

    signals.before_task_publish.connect(copy, weak=False)
    try:
        yield kept
    finally:
        signals.before_task_publish.disconnect(copy)


def deliver_all_again(runtime: Harness, run_id: str, letters: list[Letter]) -> None:
    """Deliver the messages that were copied, and the last of every activation, and wait until they must have come."""
    with runtime.open() as orchestrator:
        app: Any = orchestrator.app
        for letter in letters:
            options = {"task_id": letter.task_id, "headers": letter.headers, "ignore_result": True}
            app.send_task(letter.name, args=letter.args, **options)
        assert deliver_again(orchestrator.get_run(run_id)) > 0
        for _ in range(3):  # they queue behind the copies
            assert orchestrator.create_run(flows.trivial).start().status == "success"


def begin(runtime: Harness, workflow: Workflow) -> tuple[str, list[Letter]]:
    """Start, and wait until the run settles; return its id and the messages that the caller has sent."""
    run_id = f"{workflow.id}-{uuid.uuid4().hex}"
    with copying(run_id) as letters:
        runtime.start(workflow, {}, run_id=run_id)
    assert letters
    return run_id, letters


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)


def stored(runtime: Harness, run_id: str) -> RunRecord:
    """Look a run up with all its steps."""
    record = runtime.runs.get(run_id)
    assert record is not None
    return record


@dataclass(frozen=True)
class LonelyPlace(Place):
    """The same place, seen by an application that has no workers."""

    def app(self) -> Celery | None:
        """Build an app with a namespace and a queue of its own."""
        return make_app(self.broker, self.backend, orchestrator_namespace="lonely", task_default_queue="lonely")


def lonely(runtime: Harness) -> Harness:
    """Return the runtime as an application sees it whose workers were never started."""
    place = runtime.place
    return Harness(LonelyPlace(place.name, place.store, place.broker, place.backend))


@pytest.mark.parity("R-ESR-01", runtimes="celery")
def test_a_message_that_comes_again_does_not_run_a_suspended_step(runtime: Harness) -> None:
    """The step keeps its payload, and is resumed as if nothing had been."""
    run_id, letters = begin(runtime, flows.gated)
    before = stored(runtime, run_id).to_dict()["steps"]

    deliver_all_again(runtime, run_id, letters)

    after = stored(runtime, run_id)
    assert after.status == "suspended"
    assert after.to_dict()["steps"] == before
    assert before["gate"]["suspend_payload"] == {"question": "go on?"}
    assert calls(run_id, "gate") == [None]
    assert runtime.resume(flows.gated, run_id, {"go": True}).status == "success"
    assert calls(run_id, "gate") == [None, {"go": True}]
    assert count(run_id, "last") == 1


@pytest.mark.parity("R-ESR-01", runtimes="celery")
@pytest.mark.parity("R-ESR-02", runtimes="celery")
def test_messages_that_come_again_while_the_run_goes_on_run_nothing_twice(runtime: Harness) -> None:
    """Neither what has completed, nor what is suspended, nor what is running: their results stay as they were."""
    run_id = f"robust-begun-{uuid.uuid4().hex}"
    with copying(run_id) as letters, runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.begun, run_id=run_id).submit({})
        eventually(lambda: count(run_id, "hold") and stored(runtime, run_id).suspended == [["gate"]])
    before = stored(runtime, run_id).to_dict()["steps"]

    deliver_all_again(runtime, run_id, letters)

    after = stored(runtime, run_id)
    assert [before[step_id]["status"] for step_id in ("first", "gate", "hold")] == ["success", "suspended", "running"]
    assert after.status == "running"
    assert after.to_dict()["steps"] == before
    note_for(run_id, flows.RELEASE)
    with runtime.open() as orchestrator:
        assert orchestrator.get_run(run.run_id).result().status == "suspended"
    assert [count(run_id, step_id) for step_id in ("first", "gate", "hold")] == [1, 1, 1]


@pytest.mark.parity("R-ESR-03", runtimes="celery")
def test_messages_that_come_again_after_the_end_run_nothing(runtime: Harness) -> None:
    """Neither the step they were for, nor the one behind it."""
    run_id, letters = begin(runtime, flows.two_steps)
    before = stored(runtime, run_id).to_dict()
    assert before["status"] == "success"

    deliver_all_again(runtime, run_id, letters)

    assert stored(runtime, run_id).to_dict() == before
    assert (count(run_id, "first"), count(run_id, "last")) == (1, 1)


@pytest.mark.parity("R-ENC-01", runtimes="celery")
def test_a_start_without_any_worker_is_refused_at_once(runtime: Harness) -> None:
    """It says what is missing, and the run can still be started."""
    begin_at = time.monotonic()
    with lonely(runtime).open() as orchestrator:
        run = orchestrator.create_run(flows.two_steps)
        with pytest.raises(NoConsumer, match="no event consumer is running"):
            run.start({})
        assert run.status == "pending"

    assert time.monotonic() - begin_at < 5
    assert count(run.run_id, "first") == 0


@pytest.mark.parity("R-ENC-02", runtimes="celery")
def test_the_refusal_of_a_start_without_workers_has_an_id(runtime: Harness) -> None:
    """By that a program can tell it from others."""
    with lonely(runtime).open() as orchestrator:
        run = orchestrator.create_run(flows.two_steps)
        with pytest.raises(NoConsumer) as caught:
            run.start({})

    assert caught.value.code == "EVENTED_WORKFLOW_NO_EVENT_CONSUMER"
    assert caught.value.details["run_id"] == run.run_id


@pytest.mark.parity("R-EFT-01")
def test_a_new_run_is_told_nothing_of_runs_that_ended_before(runtime: Harness) -> None:
    """However many they are, its stream has its own events alone."""
    with runtime.open() as orchestrator:
        earlier = [orchestrator.create_run(flows.trivial).submit() for _ in range(30)]
        assert {run.result().status for run in earlier} == {"success"}

    streamed = runtime.stream(flows.gated, {})

    assert streamed.result.status == "suspended"
    assert {event.run_id for event in streamed.events} == {streamed.result.run_id}
    assert [event.payload["id"] for event in streamed.of_type("workflow-step-suspended")] == ["gate"]
    assert len(streamed.of_type("workflow-start")) == 1


@pytest.mark.parity("R-EFT-02")
def test_a_resume_waits_for_its_own_result(runtime: Harness) -> None:
    """The suspension that came before it, in the same process, is not taken for it."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.gated)
        assert run.start({}).status == "suspended"
        result = run.resume(data={"go": True})

    assert result.status == "success"
    assert result.result == {"value": 3}


@pytest.mark.parity("R-ESI-01")
def test_a_watcher_that_raises_disturbs_nobody(runtime: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """The run succeeds, its step runs once, and the error is logged."""

    def stumble(event: Event) -> None:
        raise ValueError("the watcher stumbles")

    with runtime.open() as orchestrator, caplog.at_level(logging.ERROR, logger="orchestrator"):
        run = orchestrator.create_run(flows.two_steps)
        run.watch(stumble)
        result = run.start({})
        eventually(lambda: "the watcher stumbles" in caplog.text)

    assert result.status == "success"
    assert (count(run.run_id, "first"), count(run.run_id, "last")) == (1, 1)


@pytest.mark.parity("R-EHO-01")
def test_every_step_has_a_start_a_result_and_a_finish_event(runtime: Harness) -> None:
    """Watchers of the run get them, and they are on its stream."""
    heard: list[Event] = []
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.two_steps)
        run.watch(heard.append)
        streamed = drain(run.stream({}))
        eventually(lambda: heard and heard[-1].type == "workflow-finish")

    wanted = [f"workflow-step-{kind}" for _ in range(2) for kind in ("start", "result", "finish")]
    assert [event.type for event in heard if "-step-" in event.type] == wanted
    assert [event.type for event in streamed.events if "-step-" in event.type] == wanted


@pytest.mark.parity("R-EHO-02")
def test_a_workflow_without_step_events_runs_all_the_same(runtime: Harness) -> None:
    """Its end is told of."""
    streamed = runtime.stream(flows.quiet, {})

    assert streamed.result.status == "success"
    assert streamed.result.result == {"value": 2}
    assert [event.type for event in streamed.events if event.type.startswith("workflow-step-")] == []
    assert len(streamed.of_type("workflow-finish")) == 1


@pytest.mark.parity("R-EHO-03")
def test_a_workflow_without_a_host_says_so(runtime: Harness) -> None:
    """Neither by itself nor by its id anybody can start it."""

    @step(id="only")
    def only() -> None:
        """Do nothing."""

    alone = Workflow("robust-nobody-knows").then(only).commit()

    with pytest.raises(WorkflowNotRegistered, match="'robust-nobody-knows'"):
        alone.delay({})
    with runtime.open() as orchestrator, pytest.raises(WorkflowNotRegistered, match="not registered"):
        orchestrator.create_run("robust-nobody-knows")


@pytest.mark.parity("R-WTO-04")
def test_events_of_a_nested_workflow_do_not_carry_what_the_outer_one_has_made(runtime: Harness) -> None:
    """A large result stands in its own event, once."""
    streamed = runtime.stream(flows.lean_events, {})

    assert streamed.result.status == "success"
    carriers = [(event.type, event.payload["id"]) for event in streamed.events if flows.LARGE in str(event.payload)]
    assert carriers == [("workflow-step-result", "large"), ("workflow-step-start", "small")]
    assert {event.payload["id"] for event in streamed.of_type("workflow-step-result")} >= {"inner", "nested"}


@pytest.mark.parity("R-WTO-05")
def test_three_nested_levels_complete(runtime: Harness) -> None:
    """The innermost result comes out at the top."""
    result = runtime.execute(flows.three_levels, {})

    assert result.status == "success"
    assert result.result == {"value": 2}
    assert count(result.run_id, "inner") == 1
