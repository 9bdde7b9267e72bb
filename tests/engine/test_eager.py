"""An app in eager mode: a caller that starts a run, or lets it go on, does all of it in its own thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from orchestrator import Context, Orchestrator, Run, Workflow, step
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock, WorkerLost
from tests.vendor import wait_until

seen: list[tuple[str, int]] = []  # what was called, and in which thread
LONG = 3600.0


def note(name: str) -> None:
    """Remember that this is being called here."""
    seen.append((name, threading.get_ident()))


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app in eager mode."""
    app = Celery("eager", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    yield app
    app.close()


@pytest.fixture
def orchestrator(app: Celery) -> Iterator[Orchestrator]:
    """Its orchestrator."""
    with Orchestrator(app) as orchestrator:
        yield orchestrator


@step
def first(number: int) -> int:
    note("first")
    return number + 1


@step(id="left")
def left(number: int) -> int:
    note("left")
    return number


@step(id="right")
def right(number: int) -> int:
    note("right")
    return -number


@step(retries=1)
def moody(number: int, ctx: Context) -> int:
    note("moody")
    if not ctx.retry_count:
        raise ConnectionError("not now")
    return number


@step
def approve(number: int, ctx: Context) -> int:
    note("approve")
    if not ctx.resumed:
        ctx.suspend({"wanted": "a word"})
    return number


def small(number: int) -> bool:
    """A condition."""
    note("small")
    return number < 10


INNER = Workflow("inner").then(moody).commit()
WIDE = (
    Workflow("wide", input=int)
    .then(first)
    .parallel(left, right)
    .map(lambda arms: list(arms.values()))
    .foreach(INNER, concurrency=8)
    .map(lambda items: items[0])
    .branch((small, step(left.fn, id="again")), (small, step(right.fn, id="once-more")))
    .commit()
)
STOPS = Workflow("stops", input=int).then(approve).parallel(left, right).commit()
HEARS = Workflow("hears", input=int).wait_for_event("paid").parallel(left, right).commit()


def here() -> bool:
    """Return True if all that was called was called in this thread."""
    return bool(seen) and {thread for _, thread in seen} == {threading.get_ident()}


STARTS: dict[str, Callable[[Run], Any]] = {
    "start": lambda run: run.start(1),
    "start with a timeout": lambda run: run.start(1, timeout=20),
    "submit": lambda run: run.submit(1),
    "stream": lambda run: run.stream(1),
    "delay": lambda run: WIDE.delay(1),
    "apply_async": lambda run: WIDE.apply_async((1,), run_id=run.run_id),
}


@pytest.mark.parametrize("how", STARTS)
def test_a_run_is_over_when_its_start_returns(how: str, orchestrator: Orchestrator) -> None:
    """Arms, items, conditions and attempts have all been called by the caller's thread, in order."""
    STARTS[how](orchestrator.create_run(WIDE))
    assert here()
    moods = ["moody", "moody", "moody", "moody"]
    assert [name for name, _ in seen] == ["first", "left", "right", *moods, "small", "small", "left", "right"]
    [run] = [run for run in orchestrator.runs.list().runs if run.status != "pending"]
    assert run.status == "success"
    assert orchestrator.get_run(run.run_id).get() == {"again": 2, "once-more": -2}


GOES_ON: dict[str, Callable[[Run], Any]] = {
    "resume": lambda run: run.resume("yes"),
    "resume with a timeout": lambda run: run.resume("yes", timeout=20),
    "submit_resume": lambda run: run.submit_resume("yes"),
    "resume_stream": lambda run: run.resume_stream("yes"),
    "time_travel": lambda run: run.time_travel("left", context={"approve": {"status": "success", "output": 3}}),
    "submit_time_travel": lambda run: run.submit_time_travel("approve", resume_data="yes"),
}


@pytest.mark.parametrize("how", GOES_ON)
def test_a_run_goes_on_in_the_thread_of_the_caller_that_lets_it(how: str, orchestrator: Orchestrator) -> None:
    """It has done so when the call returns."""
    run = orchestrator.create_run(STOPS).submit(3)
    assert run.status == "suspended"
    GOES_ON[how](run)
    assert here()
    assert run.status == "success"


def test_the_sender_of_an_event_does_what_follows(orchestrator: Orchestrator) -> None:
    """Sent before the wait, or after."""
    run = orchestrator.create_run(HEARS).submit(1)
    run.send_event("paid", 5)
    assert run.status == "success"
    early = orchestrator.create_run(HEARS)
    early.send_event("paid", 6)
    assert early.start(1).result == {"left": 6, "right": -6}
    assert here()


def test_a_lost_run_goes_on_in_the_thread_that_restarts_it(orchestrator: Orchestrator, caplog: Any) -> None:
    """The starter is not to blame for a lost worker; the caller that asks for the result gets the error."""
    lost = [True]

    def dies(number: int) -> int:
        note("dies")
        if lost:
            raise WorkerLost
        return number

    flow = Workflow("dying", input=int).then(step(dies)).commit()
    run = orchestrator.create_run(flow).submit(1)
    assert run.status == "running"
    with pytest.raises(WorkerLost):
        run.result(20)
    lost.clear()
    assert orchestrator.restart_active() == [run.run_id]
    assert run.status == "success"
    assert here()
    assert "an attempt was abandoned in this process" in caplog.text


@pytest.mark.parametrize("how", ["submit", "start"])
def test_what_ends_the_thread_is_raised_in_it(how: str, orchestrator: Orchestrator) -> None:
    """The caller presses Ctrl-C, or a test fails in a step: the caller hears of it."""

    def interrupted(number: int) -> None:
        raise KeyboardInterrupt

    flow = Workflow("interrupted", input=int).then(step(interrupted)).commit()
    with pytest.raises(KeyboardInterrupt):
        getattr(orchestrator.create_run(flow), how)(1)


# --- runs started by steps --------------------------------------------------------------------------------------------


def test_a_run_that_a_step_starts_is_over_before_the_step_goes_on(orchestrator: Orchestrator) -> None:
    """As a task is that an eager task starts; nothing waits for anything."""
    other = Workflow("other", input=int).parallel(left, right).commit()
    orchestrator.register(other)

    async def starts(number: int) -> str:
        note("starts")
        run = other.delay(number)
        note("goes on")
        return str(run.status)

    flow = Workflow("starting", input=int).parallel(step(starts), first).commit()
    assert flow.committed
    run = orchestrator.create_run(flow).submit(1)
    assert run.get() == {"starts": "success", "first": 2}
    assert [name for name, _ in seen] == ["starts", "left", "right", "goes on", "first"]
    assert here()


def test_a_blocking_start_in_a_step_is_refused_as_on_workers(orchestrator: Orchestrator) -> None:
    """Else only production would show it."""

    def blocks(number: int, ctx: Context) -> Any:
        return ctx.orchestrator.create_run(WIDE).start(number).result

    result = orchestrator.create_run(Workflow("blocking").then(step(blocks)).commit()).start(1)
    assert result.status == "failed"
    assert isinstance(result.error, RuntimeError)


def test_a_step_may_act_on_its_own_run(orchestrator: Orchestrator) -> None:
    """The consequences come after the step, and then in the same thread."""

    def pays(number: int, ctx: Context) -> None:
        ctx.orchestrator.get_run(ctx.run_id).send_event("paid", number)
        note("has paid")

    waits = Workflow("waits", input=int).wait_for_event("paid").then(left).commit()
    flow = Workflow("own", input=int).parallel(waits, step(pays)).commit()
    assert orchestrator.create_run(flow).submit(5).get() == {"waits": 5, "pays": None}
    assert [name for name, _ in seen] == ["has paid", "left"]
    assert here()


def test_a_step_may_let_another_run_go_on(orchestrator: Orchestrator) -> None:
    """The other run goes on before the step does."""
    other = orchestrator.create_run(HEARS).submit(1)

    def pays(number: int, ctx: Context) -> str:
        ctx.orchestrator.get_run(other.run_id).send_event("paid", number)
        return str(other.status)

    flow = Workflow("paying", input=int).then(step(pays)).commit()
    assert orchestrator.create_run(flow).submit(5).get() == "success"
    assert other.get() == {"left": 5, "right": -5}
    assert here()


# --- timers -----------------------------------------------------------------------------------------------------------


def napping(seconds: float) -> Workflow:
    """Sleeps in one arm; the other waits for nothing."""
    nap = Workflow("nap").sleep(seconds).then(right).commit()
    return Workflow("napping", input=int).parallel(nap, left).then(step(len, id="count", input=dict)).commit()


def test_a_sleep_does_not_hold_the_caller(orchestrator: Orchestrator) -> None:
    """All that can be done at once has been done; the orchestrator is closed without waiting for the sleep."""
    run = orchestrator.create_run(napping(LONG)).submit(1)
    assert [name for name, _ in seen] == ["left"]
    assert here()
    assert run.status == "running"
    begun = time.monotonic()
    orchestrator.close()
    assert time.monotonic() - begun < 4


def test_a_countdown_does_not_hold_the_caller(orchestrator: Orchestrator) -> None:
    """The start returns before any step has been called."""
    orchestrator.register(WIDE)
    run = WIDE.apply_async((1,), countdown=LONG)
    assert run.status == "running"
    assert seen == []
    assert run.cancel().status == "canceled"
    assert wait_until(lambda: not any(thread.name == f"run-{run.run_id}" for thread in threading.enumerate()), 20)


def test_a_run_goes_on_by_itself_when_its_sleep_is_over(orchestrator: Orchestrator) -> None:
    """In a thread of this process, where no caller waits. A second sleep is slept there, too."""
    flow = Workflow("twice", input=int).then(left).sleep(0.05).then(right).sleep(0.05).then(first).commit()
    run = orchestrator.create_run(flow).submit(1)
    assert wait_until(lambda: run.status == "success", 20)
    assert [name for name, _ in seen] == ["left", "right", "first"]
    assert seen[0][1] == threading.get_ident() != seen[1][1]


@pytest.mark.parametrize("seconds", [0.2, LONG])
def test_a_caller_that_asks_for_the_result_does_what_follows_a_sleep(app: Celery, seconds: float) -> None:
    """In its own thread and database transaction; with a virtual clock it need not wait."""
    store = MemoryStore(VirtualClock()) if seconds == LONG else MemoryStore()
    flow = Workflow("slept", input=int).then(left).sleep(seconds).parallel(right, first).commit()
    with Orchestrator(app, store=store) as orchestrator:
        assert orchestrator.create_run(flow).submit(1).get(timeout=20) == {"right": -1, "first": 2}
        assert [event.type for event in orchestrator.create_run(flow).stream(1)][-1] == "workflow-finish"
    assert here()


def test_a_blocking_start_sleeps_in_the_callers_thread(app: Celery) -> None:
    """It has to wait for the run anyway."""
    with Orchestrator(app, store=MemoryStore(VirtualClock())) as orchestrator:
        assert orchestrator.create_run(napping(LONG)).start(1).result == 2
    assert [name for name, _ in seen] == ["left", "right"]
    assert here()


def test_a_timeout_leaves_the_sleep_to_a_thread(orchestrator: Orchestrator) -> None:
    """The run is as it is, and goes on."""
    run = orchestrator.create_run(napping(0.3))
    with pytest.raises(TimeoutError):
        run.start(1, timeout=0.01)
    assert run.get(20) == 2


def test_a_caller_that_comes_while_a_run_sleeps_does_what_is_to_be_done(orchestrator: Orchestrator) -> None:
    """The thread that waits for the sleep gives the run up."""
    asks = Workflow("asks").then(approve).then(right).commit()
    nap = Workflow("nap").sleep(LONG).commit()
    run = orchestrator.create_run(Workflow("both", input=int).parallel(nap, asks).commit()).submit(1)
    run.submit_resume("yes", step=["asks", "approve"])
    assert [name for name, _ in seen] == ["approve", "approve", "right"]
    assert here()
    run.cancel()


def test_a_wait_that_runs_out_of_time_goes_on_by_itself(orchestrator: Orchestrator) -> None:
    """No caller is left; a thread does it."""
    flow = Workflow("late", input=int).wait_for_event("paid", timeout=0.05, on_timeout=left).then(right).commit()
    run = orchestrator.create_run(flow).submit(1)
    assert wait_until(lambda: run.status == "success", 20)
    assert [name for name, _ in seen] == ["left", "right"]


# --- streams ----------------------------------------------------------------------------------------------------------


def test_streams_have_all_events(orchestrator: Orchestrator) -> None:
    """The run is driven first, then its events are read."""
    started = [event.type for event in orchestrator.create_run(STOPS).stream(1)]
    assert started[0] == "workflow-start"
    assert started.count("workflow-step-suspended") == 1
    run = orchestrator.create_run(STOPS).submit(1)
    resumed = run.resume_stream("yes")
    assert [event.payload["id"] for event in resumed if event.type == "workflow-step-result"] == [
        "approve",
        "left",
        "right",
    ]
    assert resumed.result().status == "success"


def test_an_async_stream_and_a_watcher_have_them_too(orchestrator: Orchestrator) -> None:
    """Each reads in a thread of its own, and so an async stream starts its run there."""
    run, heard = orchestrator.create_run(WIDE), []
    stop = run.watch(lambda event: heard.append(event.type))

    async def read() -> list[str]:
        async with run.astream(1) as stream:
            return [event.type async for event in stream]

    assert asyncio.run(read())[-1] == "workflow-finish"
    assert wait_until(lambda: heard[-1:] == ["workflow-finish"], 20)
    stop()


# --- eager mode that comes too late -----------------------------------------------------------------------------------


def test_eager_mode_that_is_switched_on_later_is_refused() -> None:
    """The messages would go to the broker. The message says what to do."""
    app = Celery("late", broker="memory://", set_as_current=False)
    with Orchestrator(app, store=MemoryStore(), workflows=[WIDE]) as orchestrator:
        assert orchestrator.runs.list().total == 0
        app.conf.task_always_eager = True
        for start in (lambda: orchestrator.create_run(WIDE), lambda: WIDE.delay(1)):
            with pytest.raises(RuntimeError, match="set task_always_eager before the Orchestrator is used"):
                start()
        assert orchestrator.runs.list().total == 0
    app.close()


# --- what else an eager app expects -----------------------------------------------------------------------------------


def test_a_delayed_attempt_is_made_by_the_caller_that_waits_for_it(orchestrator: Orchestrator) -> None:
    """`start(timeout=…)` waits anyway: it sleeps in the caller's thread, for as long as it may."""
    flow = Workflow("slow", input=int, retry_delay=0.05).then(moody).commit()
    assert orchestrator.create_run(flow).start(1, timeout=20).result == 1
    assert [name for name, _ in seen] == ["moody", "moody"]
    assert here()


def test_a_workflow_is_a_task_that_holds_its_result(app: Celery) -> None:
    """As every eager task is; the orchestrator that has registered it last runs it."""
    for _ in range(2):
        with Orchestrator(app, workflows=[WIDE, STOPS]) as orchestrator:
            result = app.tasks["wide"].delay(1)
            assert (result.state, result.get()) == ("SUCCESS", {"again": 2, "once-more": -2})
            assert orchestrator.get_run(result.id).status == "success"
            assert app.tasks["wide"].apply(args=[5], task_id="mine").id == "mine"
            assert orchestrator.get_run("mine").workflow_id == "wide"
            assert app.tasks["stops"].delay(1).state == "IGNORED"
            assert orchestrator.runs.list(workflow="stops").runs[0].status == "suspended"
    assert here()


def test_a_pending_task_is_the_latest_orchestrators(app: Celery) -> None:
    """Of an app that is not finalized yet."""
    with Orchestrator(app, workflows=[WIDE]), Orchestrator(app, workflows=[WIDE]) as latest:
        assert not app.finalized
        latest.get_run(app.tasks["wide"].delay(1).id)


def test_a_failed_run_is_a_failed_task(app: Celery) -> None:
    """With the step's own error; also where a step asks for it."""

    def fails(number: int) -> None:
        raise LookupError("nothing there")

    def asks(number: int) -> str:
        return str(app.tasks["failing"].delay(number).state)

    failing = Workflow("failing", input=int).then(step(fails)).commit()
    with Orchestrator(app, workflows=[failing]) as orchestrator:
        result = app.tasks["failing"].delay(1)
        assert result.state == "FAILURE"
        with pytest.raises(LookupError, match="nothing there"):
            result.get()
        asking = Workflow("asking", input=int).then(step(asks)).commit()
        assert orchestrator.create_run(asking).start(1).result == "FAILURE"
