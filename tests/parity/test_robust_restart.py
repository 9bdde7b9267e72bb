"""R-ENR, R-EMS, R-EPF, R-CKP, R-ESL: another process goes on where one died, at whatever moment it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from celery import Celery

from orchestrator import Orchestrator, RunRecord, RunResult, Workflow
from orchestrator.stores import open_store
from orchestrator.testing import FailingStore, WorkerLost
from tests.parity.calls import calls, count
from tests.parity.flows import robust_restart as flows
from tests.parity.harness import TIMES, Harness, Place, make_app


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


def lose(runtime: Harness, workflow: Workflow, input: Any = None) -> str:
    """Start a run, wait until the worker of one of its steps is lost, and return the run's id."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(workflow).submit({} if input is None else input)
        eventually(lambda: count(run.run_id, flows.LOST))
        return run.run_id


def restart(runtime: Harness, run_id: str) -> RunResult:
    """Restart a stored run on a fresh host, by its id alone."""
    with runtime.open() as orchestrator:
        return orchestrator.get_run(run_id).restart()


@dataclass(frozen=True)
class DeafPlace(Place):
    """The same place, seen by a client whose messages nobody reads."""

    def app(self) -> Celery | None:
        """Build an app that publishes into a queue without a worker."""
        return make_app(self.broker, self.backend, task_default_queue="robust-nobody") if self.broker else None


def strand(runtime: Harness, workflow: Workflow, input: Any) -> str:
    """Start a run in a process that dies before anything of the run is claimed; return the run's id."""
    place = runtime.place
    store = open_store(place.store)
    dying: Any = FailingStore(store, "claim", times=None, error=WorkerLost())
    try:
        with Harness(DeafPlace(place.name, dying, place.broker, place.backend)).open() as orchestrator:
            return orchestrator.create_run(workflow).submit(input).run_id
    finally:
        store.close()


def lose_in_nested_resume(runtime: Harness) -> str:
    """Suspend in a nested workflow, resume with False, and lose the worker of the resumed step."""
    run_id = runtime.start(flows.nested_resume, {}).run_id
    with runtime.open() as orchestrator:
        orchestrator.get_run(run_id).submit_resume(data=False)
        eventually(lambda: count(run_id, flows.LOST))
    return run_id


@pytest.mark.parity("R-ENR-01")
def test_a_nested_step_lost_in_its_resumption_keeps_what_it_was_resumed_with(runtime: Harness) -> None:
    """False is data like any other, and the nested run is still found from its outer step."""
    run_id = lose_in_nested_resume(runtime)

    record = stored(runtime, run_id).to_dict()

    nested, gate = record["steps"]["nested"], record["steps"]["nested.gate"]
    assert record["status"] == "running"
    assert (nested["status"], gate["status"]) == ("running", "running")
    assert gate["resume_payload"] is False
    assert nested["resume_payload"] is False
    assert nested["suspend_payload"]["question"] == "approve?"
    assert nested["suspend_payload"]["__workflow_meta"]["run_id"].startswith(f"{run_id}/")


@pytest.mark.parity("R-ENR-02")
def test_a_nested_resumption_is_restarted_with_the_data_it_had(runtime: Harness) -> None:
    """The step sees it once, and the nested workflow ends too."""
    run_id = lose_in_nested_resume(runtime)

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.result == {"approved": False}
    assert calls(run_id, "gate") == [False]
    steps = stored(runtime, run_id).steps or {}
    assert (steps["nested"].status, steps["nested.gate"].status) == ("success", "success")


@pytest.mark.parity("R-EMS-01")
def test_a_restarted_step_sees_the_state_of_the_steps_before(runtime: Harness) -> None:
    """They are not called again."""
    run_id = lose(runtime, flows.mid_run_state)
    assert stored(runtime, run_id).state == {"first": 1, "second": 0}

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert count(run_id, "step1") == 1
    assert calls(run_id, "step2") == [{"first": 1, "second": 0}]
    assert result.state == {"first": 1, "second": 2}


@pytest.mark.parity("R-EPF-01")
def test_a_run_that_died_before_its_first_step_begins_with_it(runtime: Harness) -> None:
    """The step gets the run's input."""
    run_id = strand(runtime, flows.first_step, {"value": 1})
    assert stored(runtime, run_id).status == "running"

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert calls(run_id, "one") == [{"value": 1}]
    assert calls(run_id, "two") == [{"value": 2}]


@pytest.mark.parity("R-EPF-02")
def test_a_run_that_died_before_its_first_parallel_begins_with_both_arms(runtime: Harness) -> None:
    """Each runs once, with the run's input."""
    run_id = strand(runtime, flows.first_parallel, {"value": 1})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.result == {"left": {"value": 2}, "right": {"value": 2}}
    assert calls(run_id, "left") == calls(run_id, "right") == [{"value": 1}]


@pytest.mark.parity("R-EPF-03")
def test_a_run_that_died_before_its_first_branch_chooses_once(runtime: Harness) -> None:
    """The condition gets the run's input, and the other arm is never called."""
    run_id = strand(runtime, flows.first_branch, {"value": 1})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert calls(run_id, "condition") == [{"value": 1}]
    assert calls(run_id, "small") == [{"value": 1}]
    assert count(run_id, "large") == 0


@pytest.mark.parity("R-EPF-06")
def test_a_branch_behind_a_restarted_first_step_gets_its_output(runtime: Harness) -> None:
    """Nothing of the restart is left over for it."""
    run_id = strand(runtime, flows.step_then_branch, {"value": 1})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert calls(run_id, "one") == [{"value": 1}]
    assert calls(run_id, "condition") == calls(run_id, "small") == [{"value": 2}]
    assert count(run_id, "large") == 0
    assert result.steps["small"].output == {"value": 3}


@pytest.mark.parametrize("kind, name", [("bytes", "bytes"), ("custom", "dict")])
@pytest.mark.parity("R-CKP-01")
def test_a_value_that_json_does_not_have_is_handed_on_as_it_is_stored(runtime: Harness, kind: str, name: str) -> None:
    """The next step gets what a reader of the run gets."""
    result = runtime.start(flows.WORKFLOWS[kind], {})

    assert result.status == "success"
    assert result.result == name
    record = stored(runtime, result.run_id)
    assert record.steps is not None
    assert record.steps["make"].output == record.steps["take"].payload
    if kind == "bytes":
        assert record.steps["make"].output == {"value": b"\x00\xff"}


@pytest.mark.parity("R-CKP-01")
def test_a_value_that_cannot_be_stored_fails_its_step(runtime: Harness) -> None:
    """The next step does not begin."""
    result = runtime.start(flows.WORKFLOWS["lock"], {})

    assert result.status == "failed"
    assert result.steps["make"].status == "failed"
    assert "make" in str(result.error)
    assert (count(result.run_id, "make"), count(result.run_id, "take")) == (1, 0)


@pytest.mark.parity("R-CKP-03")
def test_a_restarted_step_is_told_so(runtime: Harness) -> None:
    """By that it can leave out what it has done already."""
    run_id = lose(runtime, flows.lost_after_checkpoint, {"value": 1})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert calls(run_id, "flag") == [False, True]
    assert calls(run_id, "effect") == [2]
    assert count(run_id, "prepare") == 1


@pytest.mark.parity("R-CKP-04")
def test_six_runs_at_once_do_not_mix(runtime: Harness) -> None:
    """Each has its own input and its own result."""
    with runtime.open() as orchestrator:
        runs = [
            orchestrator.create_run(flows.overlapping).submit({"who": f"run {n}", "value": n * 10}) for n in range(6)
        ]
        results = [run.result() for run in runs]

    assert [result.result for result in results] == [{"text": f"run {n}: {(n * 10 + 1) * 2}"} for n in range(6)]
    assert [result.input for result in results] == [{"who": f"run {n}", "value": n * 10} for n in range(6)]
    assert [result.steps["double"].payload["who"] for result in results] == [f"run {n}" for n in range(6)]


@pytest.mark.parametrize("workflow", [flows.stored_first, flows.stored_first_inline], ids=["messages", "inline"])
@pytest.mark.parity("R-CKP-05")
def test_a_result_is_stored_before_the_next_step_begins(runtime: Harness, workflow: Workflow) -> None:
    """Also where the next step runs inline, which saves a write."""
    result = runtime.start(workflow, {})

    assert result.status == "success"
    assert calls(result.run_id, "stored") == [["success", 1], ["success", 2]]


@pytest.mark.parity("R-ESL-03")
def test_a_bulk_restart_leaves_a_workflow_alone_that_opts_out(runtime: Harness) -> None:
    """A step whose worker was lost stays lost; a timer is no lost worker and fires when it is due."""
    run_id = lose(runtime, flows.left_alone)
    place = runtime.place
    alone = [flows.left_alone, flows.napping_alone]

    with runtime.open() as orchestrator:
        napping = orchestrator.create_run(flows.napping_alone).submit({})
        with Orchestrator(place.app(), store=place.store, workflows=alone, **TIMES) as fresh:
            assert fresh.restart_active() == []
        result = napping.result()

    assert stored(runtime, run_id).status == "running"
    assert count(run_id, "after") == 0
    assert result.status == "success"
    assert count(napping.run_id, "after") == 1


@pytest.mark.parity("R-ESL-08")
def test_a_restart_does_not_move_a_timer(runtime: Harness) -> None:
    """It fires when it was due from the beginning, no earlier and not a whole sleep later."""
    with runtime.open() as orchestrator, runtime.open() as fresh:
        begin = time.monotonic()
        run = orchestrator.create_run(flows.napping).submit({})
        eventually(lambda: "nap" in (orchestrator.runs.get(run.run_id).steps or {}))  # type: ignore[union-attr]
        eventually(lambda: time.monotonic() - begin > 0.2)

        result = fresh.get_run(run.run_id).restart()
        took = time.monotonic() - begin

    assert result.status == "success"
    assert count(run.run_id, "after") == 1
    nap = result.steps["nap"]
    assert nap.started_at is not None
    assert nap.ended_at is not None
    assert (nap.ended_at - nap.started_at).total_seconds() >= 0.65
    assert took >= 0.65
