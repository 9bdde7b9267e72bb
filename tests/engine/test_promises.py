"""What docs/guarantees.md promises and no other file is about: claims, bodies and ids that two may want, and writes."""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, RunStillRunning, StartAlreadyClaimed, Workflow, step
from orchestrator.stores import MemoryStore

PATIENCE = 15.0


class Gate:
    """A step whose first call waits until it is let through, and what its calls returned."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()
        self.calls: list[bool] = []

    def workflow(self) -> Workflow:
        """Make the workflow of that one step."""

        def work(number: int, ctx: Context[Any]) -> str:
            self.calls.append(ctx.restarted)
            if len(self.calls) > 1:
                return "second"
            self.begun.set()
            assert self.opened.wait(PATIENCE)
            return "first"

        return Workflow("gated", input=int).then(step(work)).commit()


def test_a_restart_takes_the_claims_of_live_workers_away() -> None:
    """What they still do is not recorded, though it has run."""
    store, opened = MemoryStore(), (threading.Event(), threading.Event())
    calls: queue.Queue[bool] = queue.Queue()

    def work(number: int, ctx: Context[Any]) -> int:
        calls.put(ctx.restarted)
        assert opened[ctx.restarted].wait(PATIENCE)
        return number + ctx.restarted

    flow = Workflow("gated", input=int).then(step(work)).commit()
    with Orchestrator(store=store, workflows=[flow]) as busy, Orchestrator(store=store, workflows=[flow]) as other:
        run = busy.create_run("gated").submit(1)
        assert calls.get(timeout=PATIENCE) is False
        again = other.get_run(run.run_id).submit_restart()
        assert calls.get(timeout=PATIENCE) is True
        opened[0].set()
        busy.close()  # the attempt of its own has ended
        assert run.status == "running"
        opened[1].set()
        assert again.result(timeout=PATIENCE).result == 2


def test_a_run_that_is_at_work_is_not_deleted() -> None:
    """Once it has been canceled it is."""
    gate = Gate()
    with Orchestrator(workflows=[gate.workflow()]) as orchestrator:
        run = orchestrator.create_run("gated").submit(1)
        assert gate.begun.wait(PATIENCE)
        with pytest.raises(RunStillRunning, match="cancel"):
            orchestrator.runs.delete(run.run_id)
        run.cancel()
        orchestrator.runs.delete(run.run_id)
        assert orchestrator.runs.get(run.run_id) is None
        gate.opened.set()


def test_a_step_that_has_failed_leaves_its_request_context_and_no_state() -> None:
    """The hooks see it."""
    told: list[Any] = []

    def write(data: Any, ctx: Context[Any]) -> None:
        ctx.set_state({"noted": 1})
        ctx.request_context["noted"] = 1
        raise ValueError("on purpose")

    flow = Workflow("failing", on_error=lambda info: told.append((info.state, info.request_context["noted"])))
    flow = flow.then(step(write)).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        assert orchestrator.create_run(flow).start(None).status == "failed"
    assert told == [({}, 1)]


def test_a_run_goes_on_with_the_new_body_of_a_function() -> None:
    """It is of ids, kinds, structure and `version`, and not of code."""

    def with_body(text: str) -> Workflow:
        def ask(data: Any, ctx: Context[Any]) -> str:
            if not ctx.resumed:
                ctx.suspend()
            return text

        return Workflow("edited").then(step(ask)).commit()

    store = MemoryStore()
    with Orchestrator(store=store, workflows=[with_body("old")]) as before:
        run_id = before.create_run("edited").start(None).run_id
    with Orchestrator(store=store, workflows=[with_body("new")]) as after:
        assert after.get_run(run_id).resume("yes").result == "new"


@pytest.mark.parametrize("leaves, kept", [("fails", {}), ("suspends", {"noted": 1})])
def test_what_a_failed_attempt_wrote_is_dropped_and_what_a_suspending_one_wrote_is_kept(
    leaves: str, kept: dict[str, int]
) -> None:
    """In the state and in the request context."""
    seen: list[tuple[dict[str, Any], Any]] = []

    def write(data: Any, ctx: Context[Any]) -> None:
        seen.append((dict(ctx.state), ctx.request_context.get("noted")))
        if len(seen) == 1:
            ctx.set_state({"noted": 1})
            ctx.request_context["noted"] = 1
            if leaves == "fails":
                raise ValueError("on purpose")
            ctx.suspend()

    flow = Workflow("writing").then(step(write, retries=1)).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        run = orchestrator.create_run(flow)
        if run.start(None).status == "suspended":
            run.resume(None)
        assert run.status == "success"
        store = orchestrator.store
        assert seen == [({}, None), (kept, kept.get("noted"))]
        assert set(store.state(run.run_id)) == set(store.context(run.run_id)) == set(kept)


def test_apps_of_one_store_see_each_others_runs_and_share_their_ids() -> None:
    """What belongs to an app alone is the work on its runs."""
    flow = Workflow("asked").then(step(lambda data, ctx: ctx.resume_data if ctx.resumed else ctx.suspend(), id="ask"))
    flow, store = flow.commit(), MemoryStore()
    with (
        Orchestrator(store=store, workflows=[flow], namespace="shop") as shop,
        Orchestrator(store=store, workflows=[flow], namespace="stock") as stock,
    ):
        shop.create_run(flow, run_id="order-7").start(None)
        assert [record.run_id for record in stock.runs.list().runs] == ["order-7"]
        with pytest.raises(StartAlreadyClaimed):
            stock.create_run(flow, run_id="order-7").start(None)
        assert stock.get_run("order-7").resume("yes").result == "yes"


def test_a_limit_in_this_process_ends_the_attempt_and_not_the_function(caplog: pytest.LogCaptureFixture) -> None:
    """A lease after the limit; what the function returns later is not recorded, and the log says so."""
    opened, left = threading.Event(), threading.Event()

    def outrun() -> str:
        assert opened.wait(PATIENCE)
        left.set()
        return "late"

    flow = Workflow("slow").then(step(outrun, time_limit=0.2)).commit()
    with (
        caplog.at_level(logging.WARNING, "orchestrator"),
        Orchestrator(workflows=[flow], lease_seconds=0.3) as orchestrator,
    ):
        began = time.monotonic()
        run = orchestrator.create_run(flow)
        result = run.start(timeout=PATIENCE)
        assert time.monotonic() - began >= 0.5
        assert (result.status, type(result.error)) == ("failed", TimeoutError)
        opened.set()
        assert left.wait(PATIENCE)
    assert run.status == "failed"
    assert "its outcome is discarded" in caplog.text


@pytest.mark.parametrize("settings, timeout", [({}, 0.3), ({"lease_seconds": 0.3}, 60)])
def test_who_waits_for_a_run_waits_for_its_hooks_for_so_long(settings: dict[str, Any], timeout: float) -> None:
    """Until they have been called once; for no longer than a lease after the end, nor than the caller's own timeout."""
    told, opened = [], threading.Event()

    def tell(info: Any) -> None:
        if info.init_data == "slowly":
            opened.wait(PATIENCE)
        told.append(info.init_data)

    flow = Workflow("telling", on_finish=tell).then(step(lambda data: data, id="same")).commit()
    with Orchestrator(workflows=[flow], **settings) as orchestrator:
        orchestrator.create_run(flow).start("quickly")
        assert told == ["quickly"]
        began = time.monotonic()
        assert orchestrator.create_run(flow).start("slowly", timeout=timeout).result == "slowly"
        assert time.monotonic() - began < 5
        assert told == ["quickly"]
        opened.set()


DYING = """
import os, signal, sys
from orchestrator import Orchestrator, Workflow, step

@step
def ask(data, ctx):
    return ctx.resume_data if ctx.resumed else ctx.suspend()

flow = Workflow("asked").then(ask).commit()
Orchestrator(store=sys.argv[1], workflows=[flow]).create_run(flow, run_id="r").start(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_sqlite_has_acknowledged_outlives_the_process(tmp_path: Path) -> None:
    """It is killed the moment after its run was suspended."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    killed = subprocess.run([sys.executable, "-c", DYING, url], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    flow = Workflow("asked").then(step(lambda data, ctx: ctx.resume_data, id="ask")).commit()
    with Orchestrator(store=url, workflows=[flow]) as orchestrator:
        assert orchestrator.get_run("r").resume("yes").result == "yes"


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_bail_does_not_hide_a_failure_that_came_first(tolerant: bool) -> None:
    """The run only waits for what is beside the failed step; where failures are tolerated nothing has failed."""
    failed = threading.Event()

    def break_down(data: Any) -> None:
        raise ValueError("no stock")

    def leave(data: Any, ctx: Context[Any]) -> None:
        assert failed.wait(PATIENCE)
        ctx.bail("early")

    flow = Workflow("leaving").parallel(step(break_down), step(leave), allow_failure=tolerant).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        run = orchestrator.create_run(flow)
        run.submit()
        while all(one.status != "failed" for one in orchestrator.store.load(run.run_id)):
            time.sleep(0.01)
        failed.set()
        result = run.result(PATIENCE)
        if tolerant:
            assert (result.status, result.result, result.error) == ("success", "early", None)
        else:
            assert (result.status, result.result, str(result.error)) == ("failed", None, "no stock")
            with pytest.raises(ValueError, match="no stock"):
                run.get()
        assert {name: one.status for name, one in result.steps.items()} == {"break_down": "failed", "leave": "success"}
