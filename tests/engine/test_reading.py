"""The look of a run to its readers: of blocks that its end left open, and of what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, Run, RunResult, Step, TripWire, Workflow, step
from orchestrator.cli.rows import rows_of
from orchestrator.stores import MemoryStore
from tests.streaming.conftest import eventually

Body = Callable[[Any, Context], Any]


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with Orchestrator() as found:
        yield found


def a_step(id: str, body: Body) -> Step[Any, Any, Any]:
    def call(given: Any, ctx: Context) -> Any:
        return body(given, ctx)

    return step(call, id=id)


def suspends(id: str, payload: Any = None, label: str | None = None) -> Step[Any, Any, Any]:
    return a_step(id, lambda given, ctx: ctx.resume_data if ctx.resumed else ctx.suspend(payload, label=label))


def fails(id: str, error: Exception | None = None) -> Step[Any, Any, Any]:
    def body(given: Any, ctx: Context) -> None:
        raise error or ValueError(f"{id} failed")

    return a_step(id, body)


def ran(orchestrator: Orchestrator, flow: Workflow, given: Any = 0) -> tuple[Run, RunResult]:
    run = orchestrator.create_run(flow.commit())
    return run, run.start(given)


# --- blocks that the end of their run left open -----------------------------------------------------------------------


def test_a_nested_workflow_has_failed_with_its_step_though_another_is_suspended(orchestrator: Orchestrator) -> None:
    """With the step's error, in results, lookups, as a run of its own and on the command line; NEST-02 holds."""
    inner = Workflow("inner").parallel(suspends("ask"), fails("bad")).commit()

    run, result = ran(orchestrator, Workflow("outer").then(inner))

    assert result.status == "failed"
    shown = result.steps["inner"]
    assert (shown.status, repr(shown.error), shown.suspend_payload) == ("failed", "ValueError('bad failed')", None)
    assert shown.started_at is not None
    assert shown.ended_at is not None
    nested = orchestrator.get_run(f"{run.run_id}/0")
    assert nested.status == "failed"
    assert repr(nested.result().error) == "ValueError('bad failed')"
    record = orchestrator.runs.get(run.run_id)
    assert record is not None
    assert record.steps is not None
    found = {name: str(each.status) for name, each in record.steps.items()}
    assert found == {"inner": "failed", "inner.ask": "canceled", "inner.bad": "failed"}
    rows = {row.name: (row.status, repr(row.error)) for row in rows_of(orchestrator, run)}
    assert rows["inner"] == ("failed", "ValueError('bad failed')")


def test_every_workflow_around_a_failed_step_has_failed(orchestrator: Orchestrator) -> None:
    """Those beside it, in which nothing has failed, read as canceled."""
    deep = Workflow("deep").parallel(suspends("ask"), fails("bad")).commit()
    middle = Workflow("middle").parallel(deep, suspends("wait")).commit()
    beside = Workflow("beside").then(suspends("other")).commit()

    _, result = ran(orchestrator, Workflow("outer").parallel(middle, beside))

    assert {name: str(each.status) for name, each in result.steps.items()} == {
        "middle": "failed",
        "beside": "canceled",
    }
    assert str(result.steps["middle"].error) == "bad failed"


def test_each_failed_workflow_has_its_own_error(orchestrator: Orchestrator) -> None:
    """The run has the first; a workflow around several has the first of them too."""
    first = Workflow("first").parallel(suspends("a"), fails("b")).commit()
    second = Workflow("second").parallel(suspends("c"), fails("d"), fails("e")).commit()

    _, result = ran(orchestrator, Workflow("outer").parallel(first, second))

    assert str(result.steps["first"].error) == "b failed"
    assert str(result.steps["second"].error) in ("d failed", "e failed")
    assert str(result.error) in ("b failed", "d failed", "e failed")


def test_a_foreach_has_failed_with_its_item_though_others_are_suspended(orchestrator: Orchestrator) -> None:
    """It is one step: as if nothing were suspended, it has the item's error."""

    def body(item: int, ctx: Context) -> None:
        if item == 2:
            raise ValueError("two")
        ctx.suspend({"item": item})

    _, result = ran(orchestrator, Workflow("outer").foreach(a_step("it", body), concurrency=3), [1, 2, 3])

    assert result.status == "failed"
    assert (result.steps["it"].status, repr(result.steps["it"].error)) == ("failed", "ValueError('two')")


def test_a_failure_that_a_parallel_tolerates_ends_no_workflow(orchestrator: Orchestrator) -> None:
    """The run fails elsewhere: what stands around the tolerated failure is canceled, as all else that was open."""
    tolerant = Workflow("tolerant").parallel(suspends("ask"), fails("quiet"), allow_failure=True).commit()

    _, result = ran(orchestrator, Workflow("outer").parallel(tolerant, fails("loud")))

    assert str(result.error) == "loud failed"
    assert (result.steps["tolerant"].status, result.steps["tolerant"].error) == ("canceled", None)


def test_a_nested_workflow_ends_by_a_tripwire(orchestrator: Orchestrator) -> None:
    """As a run of its own it has that status, though another step is suspended."""
    inner = Workflow("inner").parallel(suspends("ask"), fails("guard", TripWire("no"))).commit()

    run, result = ran(orchestrator, Workflow("outer").then(inner))

    assert result.status == "tripwire"
    assert result.steps["inner"].status == "failed"
    nested = orchestrator.get_run(f"{run.run_id}/0").result()
    assert nested.status == "tripwire"
    assert nested.tripwire is not None


def test_a_reader_without_the_workflow_sees_the_same_end() -> None:
    """By the run's own error; an error of another branch is told by its step alone."""
    store = MemoryStore()
    inner = Workflow("inner").parallel(suspends("ask"), fails("bad")).commit()
    with Orchestrator(store=store) as knowing, Orchestrator(store=store) as stranger:
        run, _ = ran(knowing, Workflow("outer").then(inner))
        shown = stranger.get_run(run.run_id).result().steps["inner"]
        assert (shown.status, str(shown.error)) == ("failed", "bad failed")


def test_a_bail_makes_what_is_around_it_a_success(orchestrator: Orchestrator) -> None:
    """With the bailed value as it is; what was suspended beside it is canceled, and what follows has no result."""
    leave = a_step("leave", lambda given, ctx: ctx.bail("bailed") if ctx.resumed else ctx.suspend())
    deep = Workflow("deep").then(leave).then(fails("after")).commit()
    inner = Workflow("inner").parallel(deep, suspends("ask")).commit()
    run, _ = ran(orchestrator, Workflow("outer").parallel(inner, suspends("other")))

    result = run.resume(step="inner.deep.leave")

    assert (result.status, result.result) == ("success", "bailed")
    assert (result.steps["inner"].status, result.steps["inner"].output) == ("success", "bailed")
    assert result.steps["inner"].ended_at is not None
    assert result.steps["other"].status == "canceled"
    nested = orchestrator.get_run(f"{run.run_id}/0.0").result()
    assert (nested.status, nested.result) == ("success", "bailed")
    assert {name: str(each.status) for name, each in nested.steps.items()} == {"deep": "success", "ask": "canceled"}


def test_a_bail_in_an_item_makes_the_foreach_a_success(orchestrator: Orchestrator) -> None:
    """Its output is the bailed value, not a list with it."""

    def body(item: int, ctx: Context) -> int:
        return ctx.bail("bailed") if item == 2 else item

    _, result = ran(orchestrator, Workflow("outer").foreach(a_step("it", body)), [1, 2, 3])

    assert (result.status, result.result) == ("success", "bailed")
    assert (result.steps["it"].status, result.steps["it"].output) == ("success", "bailed")


def test_an_abort_and_a_cancel_leave_what_is_around_canceled(orchestrator: Orchestrator) -> None:
    """Neither has failed nor succeeded."""
    inner = Workflow("inner").parallel(suspends("ask"), a_step("stop", lambda given, ctx: ctx.abort())).commit()
    _, aborted = ran(orchestrator, Workflow("aborted").then(inner))
    assert (aborted.status, aborted.steps["inner"].status) == ("canceled", "canceled")

    asking = Workflow("asking").then(suspends("ask")).commit()
    run, _ = ran(orchestrator, Workflow("canceled").then(asking))
    run.cancel()
    assert run.result().steps["asking"].status == "canceled"


def test_hooks_see_blocks_as_the_end_leaves_them() -> None:
    """The same as a later reader of the run."""
    seen: list[tuple[str, str]] = []

    def note(info: Any) -> None:
        seen.append((str(info.steps["inner"].status), str(info.steps["inner"].error)))

    inner = Workflow("inner").parallel(suspends("ask"), fails("bad")).commit()
    with Orchestrator() as orchestrator:
        ran(orchestrator, Workflow("outer", on_error=note).then(inner))
    assert seen == [("failed", "bad failed")]


# --- what waits -------------------------------------------------------------------------------------------------------


def test_a_wait_shows_no_label_and_says_nothing(orchestrator: Orchestrator) -> None:
    """Its place in the mailbox is the engine's own; its entry among the suspend payloads is an empty dict."""
    flow = Workflow("listening").parallel(
        Workflow("shipping").wait_for_event("paid").commit(), suspends("ask", {"sure": True}, label="?mine")
    )

    run, result = ran(orchestrator, flow)

    assert result.suspended == [["shipping", "paid"], ["ask"]]
    assert result.resume_labels == {"?mine": {"step_id": "ask"}}
    assert result.suspend_payload["ask"] == {"sure": True}
    meta = {"path": ["paid"], "run_id": f"{run.run_id}/0.0"}
    assert result.suspend_payload["shipping"] == {"__workflow_meta": meta}
    record = orchestrator.runs.get(run.run_id)
    assert record is not None
    assert record.to_dict()["resume_labels"] == {"?mine": {"step_id": "ask"}}
    alone = orchestrator.get_run(f"{run.run_id}/0.0").result()
    assert (alone.suspend_payload, alone.resume_labels) == ({"paid": {}}, {})
    assert "suspend_payload" not in alone.steps["paid"].to_dict()


@pytest.mark.parametrize("payload", ["text", 5, [1], False])
def test_a_suspend_payload_is_always_a_dict(orchestrator: Orchestrator, payload: Any) -> None:
    """One without keys of its own is the `value`: in its result, around it and on the stream; the step gets it back
    as it was."""
    got: list[Any] = []

    def body(given: Any, ctx: Context) -> None:
        if not ctx.resumed:
            ctx.suspend(payload)
        got.append(ctx.suspend_data)

    flow = Workflow("outer").then(Workflow("inner").then(a_step("ask", body)).commit())

    run, result = ran(orchestrator, flow)

    meta = {"path": ["ask"], "run_id": f"{run.run_id}/0"}
    assert result.steps["inner"].suspend_payload == {"value": payload, "__workflow_meta": meta}
    record = orchestrator.runs.get(run.run_id)
    assert record is not None
    assert record.steps is not None
    assert record.steps["inner.ask"].suspend_payload == {"value": payload}
    [told] = [event.payload for event in run.events() if event.type == "workflow-step-suspended"]
    assert told["suspend_payload"] == {"value": payload}
    assert run.resume(1).status == "success"
    assert got == [payload]


def test_an_approval_beside_something_that_runs_is_in_the_inbox() -> None:
    """The run is not suspended: an arm of it sleeps."""
    approve = step(lambda given, ctx: ctx.resume_data if ctx.resumed else ctx.suspend(), id="approve")
    slow = Workflow("slow").sleep(600).commit()
    flow = Workflow("inbox").parallel(approve, slow).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        run = orchestrator.create_run(flow).submit(1)
        eventually(lambda: orchestrator.store.header(run.run_id).suspended == 1, 10, "the approval")  # type: ignore[union-attr]
        assert run.status == "running"
        found = orchestrator.runs.list(awaiting=True)
        assert ([record.run_id for record in found.runs], found.total) == ([run.run_id], 1)
        assert orchestrator.runs.list(awaiting=True, workflow="other").total == 0
        run.submit_resume("yes")
        assert orchestrator.runs.list(awaiting=True).total == 0
        run.cancel()


# --- what an earlier iteration has left ------------------------------------------------------------------------------


def test_a_nested_workflow_that_the_iteration_has_not_come_to_has_nothing_inside(orchestrator: Orchestrator) -> None:
    """Its steps are those of an earlier iteration, like itself: neither readers nor time travel find any of them."""
    deep = Workflow("deep").then(a_step("left", lambda given, ctx: given)).commit()
    once = Workflow("once").then(suspends("ask")).then(deep).commit()

    run, _ = ran(orchestrator, Workflow("again").do_until(once, lambda given: given == "enough"))
    run.resume("more")

    assert sorted(orchestrator.runs.get(run.run_id, nested=True).steps) == ["once", "once.ask"]
    assert run.resume("enough").status == "success"
    assert sorted(orchestrator.runs.get(run.run_id, nested=True).steps) == [
        "once",
        "once.ask",
        "once.deep",
        "once.deep.left",
    ]
