"""A process that is forked while a runtime of its own is at work: the child runs its own runs, the parent goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator import Orchestrator, Workflow, step
from tests.background.test_background import in_child
from tests.vendor import wait_until

go_on = threading.Event()
together = threading.Barrier(4)


@step
def one(number: int) -> int:
    return number + 1


@step
def other(number: int) -> int:
    return number + 2


@step
def hold(number: int) -> int:
    assert go_on.wait(30)
    return number


@step
def meet(number: int) -> int:
    together.wait(30)
    return number


wide = Workflow("wide", input=list[int]).foreach(meet, concurrency=4).commit()
parallel = Workflow("parallel", input=int).parallel(one, other).commit()
held = Workflow("held", input=int).parallel(hold, one).commit()
waiting = Workflow("waiting", input=int).wait_for_event("paid", timeout=0.2, on_timeout=one).commit()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """One whose pool of threads is at work."""
    go_on.clear()
    with Orchestrator(workflows=[wide, parallel, held, waiting]) as found:
        assert found.create_run(wide).start([1, 2, 3, 4]).status == "success"  # four threads, idle from now on
        run = found.create_run(held).submit(1)
        assert wait_until(lambda: found.store.load(run.run_id, ["0.1"])[0].status == "success", 20)
        yield found
        go_on.set()
        assert run.result(20).status == "success"


def test_a_child_runs_its_own_runs(orchestrator: Orchestrator) -> None:
    """In threads of its own: the parent's pool is only a memory there."""

    def work() -> bool:
        result = orchestrator.create_run(parallel).start(1, timeout=5).result
        return bool(result == {"one": 2, "other": 3})

    assert in_child(work)


def test_a_child_ends_waits_whose_time_is_over(orchestrator: Orchestrator) -> None:
    """Also where the parent had timers before."""
    first = orchestrator.create_run(waiting)
    first.start(1, timeout=20)

    def work() -> bool:
        run = orchestrator.create_run(waiting)
        run.start(1, timeout=20)
        return wait_until(lambda: run.status == "success", 20)

    assert in_child(work)
    assert wait_until(lambda: first.status == "success", 20)
