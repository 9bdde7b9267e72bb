"""Timers that one commit makes: each fires, in order, also where several have the same moment."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow, step
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock
from tests.vendor import wait_until


@step
def after(number: int) -> int:
    return number + 1


def napping(name: str) -> Workflow:
    return Workflow(name, input=int).sleep(5).then(after).commit()


FLOWS: dict[str, tuple[Workflow, Any]] = {
    "parallel sleeps": (Workflow("parallel", input=int).parallel(napping("a"), napping("b")), {"a": 2, "b": 2}),
    "sleeps in a branch": (
        Workflow("branch", input=int).branch((lambda _: True, napping("a")), (lambda _: True, napping("b"))),
        {"a": 2, "b": 2},
    ),
    "a delayed start of two": (
        Workflow("delayed", input=int).parallel(step(lambda n: n, id="a"), step(lambda n: n, id="b")),
        {"a": 1, "b": 1},
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_timers_of_one_moment_all_fire(name: str) -> None:
    """They are written by one commit, so they have its number and its time."""
    flow, expected = FLOWS[name]
    with Orchestrator(store=MemoryStore(VirtualClock()), workflows=[flow.commit()]):
        run = flow.apply_async((1,), countdown=3)
        assert run.result(30).result == expected


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_wait_of_no_time_is_over_at_once(timeout: float) -> None:
    """It hears what had been sent before, and else runs into its timeout."""
    flow = Workflow("hurried", input=int).wait_for_event("paid", timeout=timeout, on_timeout=after).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        run = orchestrator.create_run(flow)
        run.start(1, timeout=20)
        assert wait_until(lambda: run.status == "success", 20)
        assert run.result(20).result == 2
        early = orchestrator.create_run(flow)
        early.send_event("paid", 7)
        assert early.start(1, timeout=20).result == 7
