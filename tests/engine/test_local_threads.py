"""The threads of the default runtime: bounded, however many runs wait, and never all in each other's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow, step
from orchestrator.testing import WorkerLost
from tests.vendor import wait_until

LONG = 3600.0
FEW = 4  # the timer thread, the lease keeper, and what a test has around it


@step
def one(number: int) -> int:
    return number + 1


def threads_beside(before: int) -> int:
    """How many threads there are beside those at the beginning."""
    return threading.active_count() - before


SLEEPS: dict[str, Callable[[], Workflow]] = {
    "sleep": lambda: Workflow("napping", input=int).then(one).sleep(LONG).then(step(one.fn, id="two")).commit(),
    "retry": lambda: (
        Workflow("retrying", input=int, retries=1, retry_delay=LONG).then(step(_fail, id="fails")).commit()
    ),
    "wait": lambda: Workflow("waiting", input=int).wait_for_event("paid", timeout=LONG).then(one).commit(),
}


def _fail(number: int) -> None:
    raise ConnectionError("not now")


@pytest.mark.parametrize("how", SLEEPS)
def test_runs_that_wait_hold_no_threads(how: str) -> None:
    """Three hundred of them, and the orchestrator is closed without waiting for any."""
    before = threading.active_count()
    with Orchestrator(local_threads=8) as orchestrator:
        flow = orchestrator.register(SLEEPS[how]())
        runs = [orchestrator.create_run(flow).submit(1) for _ in range(300)]
        runs += [flow.apply_async((1,), countdown=LONG) for _ in range(50)]
        live = {"sleeping", "retrying", "waiting"}
        load = orchestrator.store.load
        assert wait_until(lambda: all(live & {a.status for a in load(run.run_id)} for run in runs), 60)
        assert threads_beside(before) <= 8 + FEW
        begun = time.monotonic()
    assert time.monotonic() - begun < 4


def test_a_slow_arm_does_not_hold_up_the_others() -> None:
    """What an arm does after its sleep is done while the slow one is at work."""
    awake = threading.Event()

    def wakes(number: int) -> int:
        awake.set()
        return number

    def slow(number: int) -> bool:
        return awake.wait(20)

    nap = Workflow("nap").then(one).sleep(0.05).then(step(wakes)).commit()
    flow = Workflow("slow-arm", input=int).parallel(step(slow), nap).commit()
    with Orchestrator() as orchestrator:
        assert orchestrator.create_run(flow).start(1).result == {"slow": True, "nap": 2}


def test_a_step_that_goes_on_inline_does_not_keep_work_from_others() -> None:
    """Its thread has published the others' work, and is at something long itself."""
    done = threading.Event()

    def waits(number: int) -> bool:
        return done.wait(20)

    def ends(number: int) -> int:
        done.set()
        return number

    flow = Workflow("mapped", input=int).parallel(Workflow("maps").map(waits).commit(), step(ends)).commit()
    with Orchestrator() as orchestrator:
        assert orchestrator.create_run(flow).start(1, timeout=20).result == {"maps": True, "ends": 1}


WAITS: dict[str, Callable[[Any], Any]] = {
    "start": lambda run: run.start(1).result,
    "result": lambda run: run.submit(1).result().result,
    "get": lambda run: run.submit(1).get(),
}


@pytest.mark.parametrize("how", WAITS)
def test_a_caller_runs_its_own_run_where_the_pool_is_blocked(how: str) -> None:
    """Each of the pool's threads waits for something that comes of that very run."""
    released = threading.Event()
    blocked = threading.Semaphore(0)

    def blocks(number: int) -> bool:
        blocked.release()
        return released.wait(20)

    def releases(number: int) -> int:
        released.set()
        return number

    block, flow = (Workflow(f.__name__ + "-flow", input=int).then(step(f)).commit() for f in (blocks, releases))
    with Orchestrator(local_threads=2) as orchestrator:
        runs = [orchestrator.create_run(block).submit(1) for _ in range(2)]
        assert all(blocked.acquire(timeout=20) for _ in runs)
        assert WAITS[how](orchestrator.create_run(flow)) == 1
        assert [run.get(20) for run in runs] == [True, True]


def test_a_small_pool_does_all_work_of_all_runs_in_turns() -> None:
    """Also of runs that are long: none keeps its thread while others wait."""
    order: list[int] = []

    def noted(number: int) -> int:
        order.append(number)
        return number

    steps = [step(noted, id=f"s{place}") for place in range(20)]
    flow = Workflow("long", input=int)
    for each in steps:
        flow = flow.then(each)
    flow = flow.commit()
    with Orchestrator(local_threads=1) as orchestrator:
        runs = [orchestrator.create_run(flow).submit(number) for number in range(3)]
        assert [run.get(30) for run in runs] == [0, 1, 2]
    assert len(order) == 60
    assert order.index(2) < 20 + 20  # the third has begun before the second was over


def test_an_attempt_that_leaves_its_run_leaves_the_thread_to_others(caplog: pytest.LogCaptureFixture) -> None:
    """The caller that waits hears of it; the only thread of the pool goes on with other runs."""

    def dies(number: int) -> None:
        raise WorkerLost

    lost = Workflow("lost", input=int).then(step(dies)).commit()
    flow = Workflow("whole", input=int).parallel(one, step(one.fn, id="two")).commit()
    with Orchestrator(local_threads=1) as orchestrator:
        run = orchestrator.create_run(lost).submit(1)
        assert orchestrator.create_run(flow).submit(1).result(20).result == {"one": 2, "two": 2}
        with pytest.raises(WorkerLost):
            run.result(20)
        assert run.status == "running"
    assert "an attempt was abandoned in this process" in caplog.text


def test_a_canceled_run_is_forgotten() -> None:
    """And nothing of it happens when its moment comes."""
    flow = Workflow("canceled", input=int).sleep(0.1).then(one).commit()
    with Orchestrator() as orchestrator:
        run = orchestrator.create_run(flow).submit(1)
        assert wait_until(lambda: any(a.status == "sleeping" for a in orchestrator.store.load(run.run_id)), 20)
        run.cancel()
        assert wait_until(lambda: not orchestrator.client.runtime._queues, 20)  # type: ignore[attr-defined]
        assert run.status == "canceled"


def test_what_waits_no_more_leaves_no_timer_behind() -> None:
    """Of waits that were answered, and of runs that were canceled: their moments may be weeks away."""
    waits = Workflow("waits", input=int).wait_for_event("go", timeout=1_000_000).then(one).commit()
    sleeps = Workflow("sleeps", input=int).sleep(1_000_000).commit()
    with Orchestrator(workflows=[waits, sleeps]) as orchestrator:
        runtime: Any = orchestrator.client.runtime

        def timers() -> int:
            return len(runtime._alarms._timers)

        answered = orchestrator.create_run(waits)
        assert answered.start(1).status == "suspended"
        assert timers() == 1
        answered.send_event("go", 2)
        assert answered.result(20).status == "success"
        assert wait_until(lambda: timers() == 0, 20)

        canceled = [orchestrator.create_run(waits).submit(1), orchestrator.create_run(sleeps).submit(1)]
        assert wait_until(lambda: timers() == 2, 20)
        for run in canceled:
            run.cancel()
        assert wait_until(lambda: timers() == 0, 20)


def test_timers_of_one_run_ring_whatever_order_they_were_set_in() -> None:
    """One alarm is set for all of them, and follows the earliest."""
    naps = [Workflow(f"nap{number}").sleep(seconds).commit() for number, seconds in enumerate((0.3, 0.1, 0.2, 0.1))]
    flow = Workflow("naps", input=int).parallel(*naps).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        runs = [orchestrator.create_run(flow).submit(number) for number in range(3)]
        assert [run.result(20).status for run in runs] == ["success"] * 3
        assert wait_until(lambda: not orchestrator.client.runtime._queues, 20)  # type: ignore[attr-defined]


def test_without_threads_all_is_done_by_the_callers_that_wait(orchestrator_local: Orchestrator) -> None:
    """Arms, items, retries, what follows a sleep and what follows a timeout: in the thread of the test."""
    seen: set[int] = set()
    before = threading.active_count()

    def here(number: int) -> int:
        seen.add(threading.get_ident())
        return number

    async def there(number: int) -> int:
        seen.add(threading.get_ident())
        return number

    arm, item, late = step(here, id="arm"), step(here, id="item"), step(here, id="late")
    flow = (
        Workflow("all", input=int)
        .parallel(arm, step(there))
        .map(lambda arms: list(arms.values()))
        .foreach(item, concurrency=3)
        .sleep(LONG)
        .map(lambda items: items[0])
        .then(late)
        .wait_for_event("paid", timeout=LONG, on_timeout=step(here, id="expired"))
        .commit()
    )
    run = orchestrator_local.create_run(flow).submit(1)
    assert run.result().status == "suspended"
    orchestrator_local.store.clock.advance(LONG)  # type: ignore[attr-defined]
    assert wait_until(lambda: run.result(1).status == "success", 20)
    assert seen == {threading.get_ident()}
    assert threads_beside(before) <= 2
