"""R-ESP, R-NNS, R-NRL, R-NRR, R-NRS, R-NSS, R-PNR, R-FNW, R-DEF, R-EMR, R-EID: a workflow inside a workflow."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import RunIsNested, RunNotFound, StartAlreadyClaimed, StepNotSuspended, Workflow
from tests.parity.calls import calls, count
from tests.parity.flows import robust_nested as flows
from tests.parity.harness import Harness
from tests.parity.robust import eventually, lose, restart, statuses, stored


@pytest.mark.parity("R-ESP-01")
def test_a_loop_over_a_nested_workflow_asks_its_condition(runtime: Harness) -> None:
    """It holds at once, so there is one iteration."""
    result = runtime.start(flows.until_done, {})

    assert result.status == "success"
    assert result.result == {"done": True}
    assert count(result.run_id, "finish") == 1


@pytest.mark.parametrize(
    "workflow",
    [
        pytest.param(flows.until_two, marks=pytest.mark.parity("R-ESP-02"), id="until"),
        pytest.param(flows.while_below_two, marks=pytest.mark.parity("R-ESP-03"), id="while"),
        pytest.param(flows.nested_loop, marks=pytest.mark.parity("R-ESP-04"), id="nested"),
    ],
)
def test_a_nested_workflow_is_repeated_as_its_condition_says(runtime: Harness, workflow: Workflow) -> None:
    """The condition leads to two iterations."""
    result = runtime.start(workflow, {"count": 0})

    assert result.status == "success"
    assert result.result == {"count": 2}
    assert count(result.run_id, "count") == 2


@pytest.mark.parity("R-NNS-03")
def test_a_nested_condition_that_aborts_and_raises_cancels_the_run(runtime: Harness) -> None:
    """Its exception does not matter any more."""
    result = runtime.start(flows.aborting, {"count": 0})

    assert result.status == "canceled"
    assert result.error is None
    assert statuses(runtime, result.run_id)["aborting"] == "canceled"
    assert count(result.run_id, "after") == 0


@pytest.mark.parity("R-NNS-04")
def test_a_nested_workflow_is_paused_behind_its_first_step(runtime: Harness) -> None:
    """So is the run, and nothing has a result yet."""
    result = runtime.start(flows.two_steps, {"value": 1}, per_step=True)

    assert result.status == "paused"
    assert result.result is None
    assert result.steps["two"].status == "paused"
    assert (count(result.run_id, "one"), count(result.run_id, "two")) == (1, 0)


@pytest.mark.parity("R-NNS-05")
def test_a_nested_condition_that_raises_fails_the_run(runtime: Harness) -> None:
    """Its error is the run's, also where it is looked up."""
    result = runtime.start(flows.raising, {"count": 0})

    assert result.status == "failed"
    assert str(result.error) == "the condition raises"
    record = stored(runtime, result.run_id)
    assert record.status == "failed"
    assert str(record.error) == "the condition raises"
    assert statuses(runtime, result.run_id)["raising"] == "failed"
    assert count(result.run_id, "after") == 0


@pytest.mark.parity("R-NNS-06")
def test_a_nested_workflow_that_succeeds_gives_its_output(runtime: Harness) -> None:
    """The step after it gets that output."""
    result = runtime.start(flows.two_steps, {"value": 1})

    assert result.status == "success"
    assert result.steps["two"].output == {"value": 1}
    assert calls(result.run_id, "after") == [{"value": 1}]


@pytest.mark.parity("R-EMR-05")
@pytest.mark.parity("R-NRS-01")
def test_a_nested_step_that_was_lost_is_the_only_one_that_runs_again(runtime: Harness) -> None:
    """The state that the nested workflow wrote before and after it reaches the outer one."""
    run_id = lose(runtime, flows.lost_inside, {"value": 1})
    assert statuses(runtime, run_id) == {
        "outer": "success",
        "inside": "running",
        "inside.writes": "success",
        "inside.inner": "running",
    }

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert [count(run_id, name) for name in ("outer", "writes", "inner", "last")] == [1, 1, 1, 1]
    assert calls(run_id, "inner") == [{"value": 2}]
    assert result.result == {"outer": 1, "inner": 2, "who": "writes", "late": True}
    assert result.steps["inside"].output == {"value": 20}


@pytest.mark.parity("R-PNR-04")
def test_the_state_of_finished_children_is_there_after_a_restart(runtime: Harness) -> None:
    """Of two that wrote the same key, the later one counts."""
    run_id = lose(runtime, flows.lost_behind, {"value": 1})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.result == {"first": True, "second": True, "last": "second", "late": True}
    assert count(run_id, "write") == 2


@pytest.mark.parity("R-PNR-02")
@pytest.mark.parity("R-PNR-03")
def test_a_restart_of_a_finished_run_gives_its_stored_result(runtime: Harness) -> None:
    """Nothing is called, and its nested workflow is found by an id that is made of the run's."""
    first = runtime.start(flows.two_steps, {"value": 1})

    again = restart(runtime, first.run_id)

    assert again == first
    assert [count(first.run_id, name) for name in ("one", "two", "after")] == [1, 1, 1]
    known = {"status", "payload", "output", "started_at", "ended_at"}
    assert all(set(step.to_dict()) == known for step in again.steps.values())
    child = stored(runtime, f"{first.run_id}/0")
    assert (child.workflow_id, str(child.status), child.result) == ("two", "success", {"value": 1})
    assert set(child.steps or {}) == {"one", "two"}


@pytest.mark.parity("R-NRL-01")
@pytest.mark.parity("R-NRL-02")
@pytest.mark.parity("R-NRL-05")
def test_the_label_of_a_nested_step_is_known_outside(runtime: Harness) -> None:
    """It says which step it belongs to, whose payload the nested workflow shows, and the run is resumed by it."""
    started = runtime.start(flows.asking, {"value": 1})
    record = stored(runtime, started.run_id)

    assert record.resume_labels == {"approval": {"step_id": "asking.gate"}}
    assert record.steps is not None
    assert record.steps["asking"].status == "suspended"
    assert record.steps["asking"].suspend_payload["question"] == "approve?"
    assert record.steps["asking.gate"].suspend_payload == {"question": "approve?"}

    resumed = runtime.resume(flows.asking, started.run_id, "yes", label="approval")

    assert resumed.status == "success"
    assert resumed.result == {"approved": "yes"}
    assert stored(runtime, started.run_id).resume_labels == {}


@pytest.mark.parity("R-NRL-03")
def test_each_nested_step_has_its_own_label(runtime: Harness) -> None:
    """Each is resumed by its own."""
    started = runtime.start(flows.asking_twice, {})
    assert started.resume_labels == {
        "approval": {"step_id": "asking-twice.gate"},
        "review": {"step_id": "asking-twice.review"},
    }

    first = runtime.resume(flows.asking_twice, started.run_id, "fine", label="review")
    assert set(first.resume_labels) == {"approval"}
    last = runtime.resume(flows.asking_twice, started.run_id, "yes", label="approval")

    assert last.result == {"gate": {"approved": "yes"}, "review": {"reviewed": "fine"}}


@pytest.mark.parametrize("nested", ["running", "waiting"])
@pytest.mark.parity("R-NRR-01")
def test_a_nested_resumption_with_false_that_was_lost_has_it_again(runtime: Harness, nested: str) -> None:
    """Also where a sleep goes on beside it."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.RESUMED[nested]).submit({})
        eventually(lambda: "suspended" in [status for name, status in steps(runtime, run.run_id) if "gate" in name])
        orchestrator.get_run(run.run_id).submit_resume(data=False)
        eventually(lambda: count(run.run_id, flows.LOST))

    result = restart(runtime, run.run_id)

    assert result.status == "success"
    assert calls(run.run_id, "resumed") == [False]


def steps(runtime: Harness, run_id: str) -> list[tuple[str, str]]:
    """Return the stored status of every step there is by now."""
    return list(statuses(runtime, run_id).items())


@pytest.mark.parity("R-NSS-02")
def test_what_was_suspended_is_kept_in_lookups_after_the_end(runtime: Harness) -> None:
    """As it is in results: the payload, both moments, and what it was resumed with."""
    started = runtime.start(flows.asking, {"value": 1})
    runtime.resume(flows.asking, started.run_id, "yes")

    gate = (stored(runtime, started.run_id).steps or {})["asking.gate"]

    assert gate.status == "success"
    assert gate.suspend_payload == {"question": "approve?"}
    assert gate.resume_payload == "yes"
    assert gate.suspended_at is not None
    assert gate.resumed_at is not None


@pytest.mark.parity("R-FNW-07")
def test_a_nested_workflow_is_resumed_by_its_own_id(runtime: Harness) -> None:
    """The outer run goes on to its end, and its readers hear of the step's result."""
    run_id = runtime.start(flows.asking, {"value": 1}).run_id
    child_id = calls(run_id, "gate")[0]["run"]
    heard: list[Any] = []

    with runtime.open() as orchestrator:
        orchestrator.get_run(run_id).watch(lambda event: heard.append((event.type, event.payload.get("id"))))
        child = orchestrator.get_run(child_id)
        assert (child.run_id, child.workflow_id, child.status) == (child_id, "asking", "suspended")
        result = child.resume(data="yes", step="gate")
        eventually(lambda: ("workflow-finish", None) in heard)

    assert (result.run_id, result.status, result.result) == (child_id, "success", {"approved": "yes"})
    assert set(result.steps) == {"gate", "behind"}
    assert stored(runtime, run_id).status == "success"
    assert calls(run_id, "after") == [{"approved": "yes"}]
    assert ("workflow-step-result", "gate") in heard


@pytest.mark.parity("R-FNW-07")
def test_only_what_is_in_a_nested_workflow_is_resumed_by_its_id(runtime: Harness) -> None:
    """Its step ids are its own, it cannot be started or canceled alone, and an id that leads nowhere is no run."""
    run_id = runtime.start(flows.asking, {"value": 1}).run_id

    with runtime.open() as orchestrator:
        child = orchestrator.get_run(f"{run_id}/1")
        with pytest.raises(StepNotSuspended):
            child.resume(data="yes", step="asking")
        with pytest.raises(StartAlreadyClaimed):
            child.start({})
        for nowhere in (f"{run_id}/0", f"{run_id}/7", f"{run_id}/", f"{run_id}/x", f"{run_id}/1.0"):
            assert orchestrator.runs.get(nowhere) is None
            with pytest.raises(RunNotFound):
                orchestrator.get_run(nowhere)
        with pytest.raises(RunIsNested):
            child.cancel()
        assert orchestrator.get_run(run_id).status == "suspended"


@pytest.mark.parity("R-DEF-04")
def test_a_nested_run_is_for_the_same_resource_as_its_outer_one(runtime: Harness) -> None:
    """It is looked up by the id that its steps see."""
    run_id = runtime.start(flows.asking, {"value": 1}, resource_id="order-7").run_id
    child = stored(runtime, calls(run_id, "gate")[0]["run"])

    assert child.run_id == f"{run_id}/1"
    assert child.resource_id == "order-7"
    assert (child.workflow_id, str(child.status), child.input) == ("asking", "suspended", {"value": 1})
    assert (child.suspended, child.resume_labels) == ([["gate"]], {"approval": {"step_id": "gate"}})
    assert list(child.steps or {}) == ["gate"]


@pytest.mark.parity("R-EID-01")
def test_init_data_is_there_wherever_it_is_asked_for(runtime: Harness) -> None:
    """In a map, a concurrency function, a loop's condition, of the outer workflow and of the inner one."""
    given = {"items": [1, 2], "width": 2}
    run_id = runtime.start(flows.init_data, given).run_id
    inner = {**given, "from": "robust-init-data"}
    assert runtime.resume(flows.init_data, run_id, {}).status == "suspended"

    result = runtime.resume(flows.init_data, run_id, {})

    assert result.status == "success"
    assert result.result == {**inner, "from": "inner"}
    assert calls(run_id, "pause") == [given, given, inner, inner]
    assert calls(run_id, "width") == calls(run_id, "until") == calls(run_id, "loop") == [given, inner]
    assert calls(run_id, "item") == [given, given, inner, inner]
