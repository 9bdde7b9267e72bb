"""R-DCR, R-CSF, R-EEW, R-EMR, R-EXO, R-HND, R-LER.

What callers do to a run, at once, too late or while a store fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from orchestrator import (
    Orchestrator,
    OrchestratorError,
    RestartAlreadyClaimed,
    ResumeAlreadyClaimed,
    RunNotActive,
    RunNotFound,
    RunNotSuspended,
    RunStillRunning,
    StoreUnavailable,
)
from orchestrator.testing import FailingStore
from tests.parity.calls import calls, count, note_for
from tests.parity.flows import robust_lifecycle as flows
from tests.parity.harness import Harness, drain
from tests.parity.robust import (
    HookedStore,
    Own,
    at_once,
    eventually,
    lose,
    meeting,
    over,
    restart,
    statuses,
    stored,
)

# Celery calls a method that the Redis client has deprecated, and a worker of this process does so here.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


def hold(runtime: Harness, orchestrator: Orchestrator, workflow: Any = flows.held, **options: Any) -> str:
    """Start a run whose second step works until it is released; return the run's id."""
    run = orchestrator.create_run(workflow).submit({"value": 1}, **options)
    eventually(lambda: count(run.run_id, "step2"))
    return run.run_id


def release(run_id: str) -> None:
    """Let the second step end."""
    note_for(run_id, flows.GO)


# --------------------------------------------------------------------------------------------------- recording, R-EMR


@pytest.mark.parity("R-EMR-01")
def test_a_step_is_stored_as_running_before_it_ends(runtime: Harness) -> None:
    """With its input and the moment at which it began; the step before it is a success."""
    with runtime.open() as orchestrator:
        run_id = hold(runtime, orchestrator)
        record = stored(runtime, run_id).to_dict()
        release(run_id)
        result = orchestrator.get_run(run_id).result()

    assert record["status"] == "running"
    assert list(record["steps"]) == ["step1", "step2"]
    assert record["steps"]["step1"]["status"] == "success"
    running = record["steps"]["step2"]
    assert (running["status"], running["payload"]) == ("running", {"value": 2})
    assert isinstance(running["started_at"], int)
    assert "ended_at" not in running
    assert result.result == {"value": 3}


@pytest.mark.parity("R-EMR-02")
def test_a_step_whose_host_was_killed_runs_again_elsewhere_with_its_input(runtime: Harness) -> None:
    """The step before it does not."""
    run_id = lose(runtime, flows.lost, {"value": 1})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert calls(run_id, "step1") == [{"value": 1}]
    assert calls(run_id, "step2") == [{"value": 2}]


@pytest.mark.parity("R-HND-01")
def test_an_arm_that_has_ended_is_stored_while_the_other_still_works(runtime: Harness) -> None:
    """A reader sees it as a success before the block has ended."""
    with runtime.open() as orchestrator:
        run_id = hold(runtime, orchestrator, flows.beside)
        eventually(lambda: statuses(runtime, run_id) == {"quick": "success", "step2": "running"})
        release(run_id)
        assert orchestrator.get_run(run_id).result().status == "success"


@pytest.mark.parity("R-HND-02")
def test_a_step_takes_as_long_as_its_function(runtime: Harness) -> None:
    """By the times of its result."""
    step = runtime.start(flows.slow).steps["slow"]

    assert step.started_at is not None
    assert step.ended_at is not None
    assert 0.14 <= (step.ended_at - step.started_at).total_seconds() < 1.5


# ------------------------------------------------------------------------------------------------------ claims, R-DCR


@pytest.mark.parity("R-DCR-01")
def test_of_two_resumes_at_once_one_wins(runtime: Harness) -> None:
    """The other hears that it was late, and what follows runs once."""
    run_id = runtime.start(flows.approval, {}).run_id
    gate = threading.Barrier(2)

    with over(runtime, meeting(gate)) as one, over(runtime, meeting(gate)) as other:
        results, errors = at_once(
            lambda: one.get_run(run_id).resume(data=True), lambda: other.get_run(run_id).resume(data=True)
        )

    assert [result.status for result in results] == ["success"]
    assert [type(error) for error in errors] == [ResumeAlreadyClaimed]
    assert errors[0].code == "WORKFLOW_RESUME_ALREADY_CLAIMED"  # type: ignore[attr-defined]
    assert count(run_id, "downstream") == 1


@pytest.mark.parity("R-DCR-02")
def test_of_two_streamed_resumes_at_once_one_wins(runtime: Harness) -> None:
    """The steps after it run once."""
    run_id = runtime.start(flows.approval, {}).run_id
    gate = threading.Barrier(2)

    with over(runtime, meeting(gate)) as one, over(runtime, meeting(gate)) as other:
        results, errors = at_once(
            lambda: drain(one.get_run(run_id).resume_stream(data=True)),
            lambda: drain(other.get_run(run_id).resume_stream(data=True)),
        )

    assert [streamed.result.status for streamed in results] == ["success"]
    assert [type(error) for error in errors] == [ResumeAlreadyClaimed]
    assert count(run_id, "downstream") == 1


@pytest.mark.parity("R-DCR-05")
def test_a_resume_that_could_not_be_stored_claims_nothing(runtime: Harness) -> None:
    """The caller hears of it, and the run can be resumed."""
    run_id = runtime.start(flows.approval, {}).run_id

    with over(runtime, FailingStore) as failing, pytest.raises(StoreUnavailable):
        failing.get_run(run_id).resume(data=False)

    assert stored(runtime, run_id).status == "suspended"
    assert runtime.resume(flows.approval, run_id, True).result == {"approved": True}
    assert calls(run_id, "approval") == [None, True]


@pytest.mark.parity("R-DCR-08")
def test_a_resume_that_nobody_disputes_goes_through(runtime: Harness) -> None:
    """Once, from beginning to end."""
    run_id = runtime.start(flows.approval, {}).run_id

    result = runtime.resume(flows.approval, run_id, {"by": "me"})

    assert result.result == {"approved": {"by": "me"}}
    assert (count(run_id, "approval"), count(run_id, "downstream")) == (2, 1)


@pytest.mark.parity("R-EXO-01")
def test_of_two_restarts_at_once_one_wins(runtime: Harness) -> None:
    """The lost step runs once more."""
    run_id = lose(runtime, flows.lost, {"value": 1})
    gate = threading.Barrier(2)

    with over(runtime, meeting(gate)) as one, over(runtime, meeting(gate)) as other:
        results, errors = at_once(lambda: one.get_run(run_id).restart(), lambda: other.get_run(run_id).restart())

    assert [result.status for result in results] == ["success"]
    assert [type(error) for error in errors] == [RestartAlreadyClaimed]
    assert count(run_id, "step2") == 1


# ----------------------------------------------------------------------------------------------------- cancels, R-CSF


@pytest.mark.parity("R-CSF-01")
def test_a_completion_that_comes_before_the_cancel_is_stored_wins(runtime: Harness) -> None:
    """The cancel tells what the run has come to."""
    with runtime.open() as orchestrator:
        run_id = hold(runtime, orchestrator)

        def complete(*_: Any) -> None:
            release(run_id)
            eventually(lambda: orchestrator.get_run(run_id).status == "success")

        with over(runtime, lambda store: HookedStore(store, complete)) as late:
            report = late.get_run(run_id).cancel()
        result = orchestrator.get_run(run_id).result()

    assert (report.status, report.failed) == ("success", [])
    assert result.result == {"value": 3}


@pytest.mark.parity("R-CSF-02")
def test_a_cancel_that_comes_late_does_nothing(runtime: Harness) -> None:
    """No step hears of it."""
    with runtime.open() as orchestrator:
        run_id = hold(runtime, orchestrator)
        release(run_id)
        run = orchestrator.get_run(run_id)
        assert run.result().status == "success"
        assert run.cancel().status == "success"

    assert stored(runtime, run_id).status == "success"
    assert count(run_id, "heard") == 0


@pytest.mark.parity("R-CSF-03")
def test_many_cancels_are_one(runtime: Harness) -> None:
    """At once and one after the other: the run is canceled once."""
    run_id = runtime.start(flows.approval, {}).run_id
    gate = threading.Barrier(2)

    with over(runtime, meeting(gate)) as one, over(runtime, meeting(gate)) as other:
        reports, errors = at_once(one.get_run(run_id).cancel, other.get_run(run_id).cancel)
        reports.append(one.get_run(run_id).cancel())
        events = [event.type for event in one.get_run(run_id).events()]

    assert errors == []
    assert [report.status for report in reports] == ["canceled"] * 3
    assert events.count("workflow-canceled") == 1
    assert events.count("workflow-finish") == 2  # of the suspension, and of the end


@pytest.mark.parity("R-CSF-04")
def test_a_cancel_that_could_not_be_stored_raises(runtime: Harness) -> None:
    """The run is suspended as before."""
    run_id = runtime.start(flows.approval, {}).run_id
    error = StoreUnavailable("on purpose")

    with over(runtime, lambda store: FailingStore(store, error=error)) as failing:
        with pytest.raises(StoreUnavailable, match="on purpose"):
            failing.get_run(run_id).cancel()
        assert failing.get_run(run_id).status == "suspended"
        assert failing.get_run(run_id).cancel().status == "canceled"


@pytest.mark.parity("R-CSF-04")
def test_a_step_of_this_process_hears_of_a_cancel_that_could_not_be_stored(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves, and the run is canceled at its request."""
    monkeypatch.setenv("PARITY_CALLS", str(tmp_path))
    armed: list[bool] = []

    def strikes(*_: Any) -> bool:
        return bool(armed)

    with Orchestrator() as plain:
        store: Any = FailingStore(plain.store, when=strikes)
        with Orchestrator(store=store, workflows=[flows.held]) as orchestrator:
            run = orchestrator.create_run(flows.held).submit({"value": 1})
            eventually(lambda: count(run.run_id, "step2"))
            armed.append(True)
            with pytest.raises(StoreUnavailable):
                run.cancel()
            eventually(lambda: count(run.run_id, "heard"))
            assert run.result(timeout=5).status == "canceled"


# -------------------------------------------------------------------------------------------------------- ends, R-EEW


def kinds(runtime: Harness, run_id: str) -> list[tuple[str, Any]]:
    """Return the types of a run's events, and the status that they tell."""
    with runtime.open() as orchestrator:
        return [(event.type, event.payload.get("workflow_status")) for event in orchestrator.get_run(run_id).events()]


@pytest.mark.parity("R-EEW-01")
def test_a_run_that_is_canceled_before_it_has_done_anything_is_stored_as_canceled(runtime: Harness) -> None:
    """Its events say the same."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.held)
        assert run.cancel().status == "canceled"
        assert run.result(timeout=5).status == "canceled"

    assert stored(runtime, run.run_id).status == "canceled"
    assert kinds(runtime, run.run_id) == [("workflow-canceled", None), ("workflow-finish", "canceled")]


@pytest.mark.parity("R-EEW-01")
def test_a_run_whose_only_step_aborts_is_stored_as_canceled(runtime: Harness) -> None:
    """It has no result, and its events and its callback tell the same."""
    result = runtime.start(flows.aborting, {})

    assert (result.status, result.result, result.error) == ("canceled", None, None)
    record = stored(runtime, result.run_id)
    assert (record.status, record.result) == ("canceled", None)
    assert kinds(runtime, result.run_id)[-2:] == [("workflow-canceled", None), ("workflow-finish", "canceled")]
    assert calls(result.run_id, "on_finish") == [["canceled", {}, ["aborts"]]]


@pytest.mark.parity("R-EEW-01")
def test_the_callback_is_told_of_a_cancel_from_outside(runtime: Harness) -> None:
    """Once, with the request context and what had been done; not of a run that had not begun."""
    with runtime.open() as orchestrator:
        pending = orchestrator.create_run(flows.told)
        pending.cancel()
        run_id = hold(runtime, orchestrator, flows.told, request_context={"tenant": "acme"})
        orchestrator.get_run(run_id).cancel()
        orchestrator.get_run(run_id).cancel()

    assert calls(run_id, "on_finish") == [["canceled", {"tenant": "acme"}, ["step1", "step2"]]]
    assert count(pending.run_id, "on_finish") == 0


@pytest.mark.parity("R-EEW-01", runtimes="celery")
def test_celery_says_of_a_canceled_run_that_it_was_revoked(runtime: Harness) -> None:
    """A caller needs nothing but Celery and the run's id to see it."""
    aborted = runtime.start(flows.aborting, {}).run_id

    with runtime.open() as orchestrator:
        run_id = hold(runtime, orchestrator)
        orchestrator.get_run(run_id).cancel()
        app: Any = orchestrator.app
        for ended in (run_id, aborted):
            result = app.AsyncResult(ended)
            assert result.state == "REVOKED"
            with pytest.raises(TaskRevokedError):
                result.get(timeout=5, disable_sync_subtasks=False)  # a solo worker of this process forbids it for good


@pytest.mark.parity("R-EEW-02")
def test_a_run_that_has_ended_can_be_deleted(runtime: Harness) -> None:
    """By a call of its own: until then it is kept."""
    run_id = runtime.start(flows.slow).run_id
    assert stored(runtime, run_id).status == "success"

    runtime.runs.delete(run_id)

    assert runtime.runs.get(run_id) is None


# ---------------------------------------------------------------------------------------------------- refusals, R-LER


def refused(kind: type[OrchestratorError], call: Callable[[], Any]) -> OrchestratorError:
    """Return the error that a call raises."""
    with pytest.raises(kind) as caught:
        call()
    return caught.value


@pytest.mark.parity("R-LER-01")
@pytest.mark.parity("R-LER-03")
def test_a_resume_of_a_finished_run_says_what_the_run_is(runtime: Harness) -> None:
    """Its details have no key that a server would take for the status of a response."""
    run_id = runtime.start(flows.slow).run_id

    error = refused(RunNotSuspended, lambda: runtime.resume(flows.slow, run_id, {}))

    assert error.code == "WORKFLOW_RUN_NOT_SUSPENDED"
    assert dict(error.details) == {"workflow_id": flows.slow.id, "run_id": run_id, "actual_status": "success"}


@pytest.mark.parity("R-LER-02")
def test_a_restart_of_a_suspended_run_says_what_the_run_is(runtime: Harness) -> None:
    """The error has the status: suspended, so not active."""
    run_id = runtime.start(flows.approval, {}).run_id

    error = refused(RunNotActive, lambda: restart(runtime, run_id))

    assert error.code == "WORKFLOW_RUN_NOT_ACTIVE"
    assert dict(error.details) == {"workflow_id": flows.approval.id, "run_id": run_id, "actual_status": "suspended"}


@pytest.mark.parity("R-LER-04")
def test_a_running_run_does_not_travel(runtime: Harness) -> None:
    """It goes on as it was."""
    with runtime.open() as orchestrator:
        run_id = hold(runtime, orchestrator)
        run = orchestrator.get_run(run_id)
        error = refused(RunStillRunning, lambda: run.time_travel("step1"))
        release(run_id)
        result = run.result()

    assert error.code == "WORKFLOW_RUN_STILL_RUNNING"
    assert dict(error.details) == {"workflow_id": flows.held.id, "run_id": run_id, "actual_status": "running"}
    assert (result.status, count(run_id, "step1")) == ("success", 1)


@pytest.mark.parametrize("verb", ["resume", "restart", "time_travel"])
@pytest.mark.parity("R-LER-05")
def test_of_a_run_that_is_gone_nothing_can_be_asked(runtime: Harness, verb: str) -> None:
    """A handle that is left over says that the run is not there."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.approval)
        assert run.start({}).status == "suspended"
        orchestrator.runs.delete(run.run_id)
        asked: dict[str, Callable[[], Any]] = {
            "resume": lambda: run.resume(data=True),
            "restart": run.restart,
            "time_travel": lambda: run.time_travel("approval"),
        }
        error = refused(RunNotFound, asked[verb])
        assert error.code == "WORKFLOW_SNAPSHOT_NOT_FOUND"
        assert error.details["run_id"] == run.run_id
        refused(RunNotFound, lambda: orchestrator.get_run(run.run_id))


def ends_the_run(run_id: str, change: Any) -> bool:
    """Tell whether a write is the one by which a run ends well."""
    return any(event.get("status") == "success" and event["type"] == "workflow-finish" for event in change.events)


@pytest.mark.parametrize("lost_reply", [False, True], ids=["transient", "unknown"])
@pytest.mark.parity("R-LER-06")
def test_a_last_write_of_which_nothing_is_heard_is_made_again_and_counts_once(
    runtime: Harness, lost_reply: bool
) -> None:
    """If it had failed or only its answer was lost: what a write with the same token finds is its own."""
    own = Own(runtime, lambda store: FailingStore(store, when=ends_the_run, lost_reply=lost_reply))

    with own.host() as orchestrator:
        run = orchestrator.create_run(flows.approval)
        run.start({})
        result = run.resume(data=True)
        events = [event.type for event in run.events()]

    assert result.status == "success"
    assert stored(runtime, run.run_id).status == "success"
    assert count(run.run_id, "downstream") == 1
    assert events.count("workflow-finish") == 2  # of the suspension, and of the end


@pytest.mark.parity("R-LER-06")
def test_a_last_write_that_cannot_be_made_leaves_the_run_running(runtime: Harness) -> None:
    """It is not stored as failed, and another host brings it to its end; what had been done is not done again."""
    own = Own(runtime, lambda store: FailingStore(store, when=ends_the_run, times=None))

    with own.host() as orchestrator:
        run = orchestrator.create_run(flows.approval)
        run.start({})
        if orchestrator.app is None:
            with pytest.raises(StoreUnavailable):
                run.resume(data=True)
        else:
            with pytest.raises(TimeoutError):
                run.resume(data=True, timeout=0.7)
        assert stored(runtime, run.run_id).status == "running"
        assert count(run.run_id, "downstream") == 1
    result = restart(runtime, run.run_id)

    assert result.status == "success"
    assert count(run.run_id, "downstream") == 1
