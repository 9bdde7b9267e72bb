"""A store that is away while an activation reads: waited for while the lease lasts, and never an outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, Run, StoreUnavailable, Workflow, step
from orchestrator.stores import open_store
from orchestrator.testing import FailingStore

seen: list[int] = []


@step
def first(number: int) -> int:
    return number + 1


@step(id="looks-back")
def looks_back(number: int, ctx: Context) -> int:
    seen.append(ctx.result(first) + number)
    return seen[-1]


def large(number: int, ctx: Context) -> bool:
    """Return True if the output of the first step is more than 1."""
    return bool(ctx.result("first") > 1)


def looking(entry: str) -> Workflow:
    """A workflow in which a step, or a condition, reads an earlier result."""
    flow = Workflow("looking", input=int).then(first)
    flow = flow.then(looks_back) if entry == "step" else flow.branch((large, looks_back))
    return flow.commit()


@pytest.mark.parametrize("entry", ["step", "condition"])
@pytest.mark.parametrize("verb", ["load", "values"])
def test_a_read_waits_for_a_store_that_is_away_for_a_moment(entry: str, verb: str) -> None:
    """The function that reads notices nothing."""
    inner = open_store("memory://")

    def under_way(run_id: str, _: object) -> bool:
        header = inner.header(run_id)
        return header is not None and header.status == "running"

    store: Any = FailingStore(inner, verb, times=2, when=under_way)
    with Orchestrator(store=store, workflows=[looking(entry)]) as orchestrator:
        result = orchestrator.create_run("looking").start(1)
    assert result.status == "success"
    assert seen.pop() == 4


@pytest.mark.parametrize("entry", ["step", "condition"])
def test_a_store_that_stays_away_decides_nothing(entry: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run is left as a lost worker would leave it, and ends well once the store is back."""
    inner = open_store("memory://")
    away: Any = FailingStore(inner, "load", times=None)
    flow = looking(entry)
    with (
        caplog.at_level(logging.CRITICAL),
        Orchestrator(store=away, workflows=[flow], lease_seconds=0.3) as orchestrator,
        pytest.raises(StoreUnavailable),
    ):
        orchestrator.create_run(flow, run_id="r").start(1)
    with Orchestrator(store=inner, workflows=[flow]) as orchestrator:
        run = orchestrator.get_run("r")
        assert run.status == "running"
        assert run.restart().status == "success"
    assert seen.pop() == 4


def test_the_same_error_from_elsewhere_is_the_steps_own() -> None:
    """A step that speaks to another store fails by it as by anything else."""

    def elsewhere(number: int) -> int:
        raise StoreUnavailable("another one")

    flow = Workflow("elsewhere", input=int).then(step(elsewhere)).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        result = orchestrator.create_run(flow).start(1)
    assert result.status == "failed"
    assert isinstance(result.error, StoreUnavailable)


WAITS: dict[str, Callable[[Run], Any]] = {
    "start": lambda run: run.start(1, timeout=60),
    "result": lambda run: run.submit(1).result(),
    "stream": lambda run: list(run.stream(1)),
}


@pytest.mark.parametrize("waits", WAITS)
def test_a_caller_that_waits_hears_that_no_worker_is_left(waits: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the default runtime this process does the work: a caller that waits gets the error, and waits no longer."""
    away: Any = FailingStore(open_store("memory://"), "load", times=None)
    with (
        caplog.at_level(logging.CRITICAL),
        Orchestrator(store=away, workflows=[looking("step")], lease_seconds=0.3) as orchestrator,
    ):
        run = orchestrator.create_run("looking")
        with pytest.raises(StoreUnavailable):
            WAITS[waits](run)
        assert run.status == "running"


@pytest.mark.parametrize("times, status", [(2, "success"), (None, "queued")])
def test_a_message_waits_for_a_store_that_is_away(times: int | None, status: str) -> None:
    """For ten leases. Then the message is dropped, and nothing was claimed: the step's timer brings a new one."""
    inner = open_store("memory://")
    away: Any = FailingStore(inner, "claim", times=times)
    with (
        Orchestrator(store=inner, workflows=[looking("step")]) as orchestrator,
        Orchestrator(store=away, workflows=[looking("step")], lease_seconds=0.1) as other,
    ):
        run = orchestrator.create_run("looking")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.local.LocalRuntime.drive_in_background", lambda self, run_id: None)
            run.submit(1)
        (first_step,) = inner.load(run.run_id, ["0"])
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) if times is None else nullcontext():
            other.executor.execute(run.run_id, "0", first_step.seq)
        assert times is not None or time.monotonic() - began >= 1
        (after,) = inner.load(run.run_id, ["0"])
        assert (after.status, after.abandoned_attempts) == (status, 0)
