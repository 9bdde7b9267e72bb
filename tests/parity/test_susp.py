"""SUSP: a run waits for a person, kept by the store alone, and goes on where it stopped."""

from __future__ import annotations

import uuid

import pytest

from orchestrator import InputInvalid, ResumeAmbiguous, RunNotSuspended, RunResult, StepNotSuspended
from tests.parity.calls import calls, count
from tests.parity.flows import susp
from tests.parity.harness import Harness


def assert_suspended(result: RunResult, step_id: str, payload: dict[str, object] | None = None) -> None:
    """The run waits, and the step's result says for what."""
    assert result.status == "suspended"
    assert result.steps[step_id].status == "suspended"
    if payload is not None:
        assert result.steps[step_id].suspend_payload == payload


@pytest.mark.parity("SUSP-01")
def test_a_run_that_never_suspends_succeeds(runtime: Harness) -> None:
    """Its step was called."""
    result = runtime.execute(susp.susp_01, {})

    assert result.status == "success"
    assert count(result.run_id, "step1") == 1


@pytest.mark.parity("SUSP-02")
def test_a_step_suspends_its_run_with_a_payload(runtime: Harness) -> None:
    """The step before keeps its result."""
    result = runtime.execute(susp.susp_02, {})

    assert_suspended(result, "step2", {"reason": "waiting for approval"})
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"value": "step1-done"}
    assert count(result.run_id, "step1") == 1
    assert count(result.run_id, "step2") == 1


@pytest.mark.parity("SUSP-03")
def test_a_step_may_suspend_without_a_payload(runtime: Harness) -> None:
    """The step's result is suspended all the same."""
    assert_suspended(runtime.execute(susp.susp_03, {}), "step1")


@pytest.mark.parity("SUSP-04")
def test_a_declared_suspend_payload_is_kept_whole(runtime: Harness) -> None:
    """It is a dict in the step's result."""
    result = runtime.execute(susp.susp_04, {})

    assert_suspended(result, "step1", {"approval_required": True, "requested_by": "user-123", "amount": 500})
    assert count(result.run_id, "step1") == 1


@pytest.mark.parity("SUSP-05")
def test_what_follows_a_suspended_step_has_no_result(runtime: Harness) -> None:
    """It was never called."""
    result = runtime.execute(susp.susp_05, {})

    assert_suspended(result, "step2", {"reason": "approval needed"})
    assert result.steps["step1"].status == "success"
    assert "step3" not in result.steps
    assert count(result.run_id, "step3") == 0


@pytest.mark.parity("SUSP-06")
def test_an_arm_of_a_branch_suspends_the_run(runtime: Harness) -> None:
    """The other arm is never called."""
    result = runtime.execute(susp.susp_06, {})

    assert_suspended(result, "approval", {"type": "manager-approval"})
    assert count(result.run_id, "check") == 1
    assert count(result.run_id, "approval") == 1
    assert count(result.run_id, "autoApprove") == 0


@pytest.mark.parity("SUSP-07")
def test_a_step_sets_the_state_and_suspends(runtime: Harness) -> None:
    """Each step up to it was called once."""
    result = runtime.execute(susp.susp_07, {}, state={"value": "initial"})

    assert_suspended(result, "step2", {"reason": "waiting"})
    assert result.steps["step1"].status == "success"
    assert "step3" not in result.steps
    assert [count(result.run_id, step_id) for step_id in ("step1", "step2", "step3")] == [1, 1, 0]


@pytest.mark.parity("SUSP-08")
def test_a_suspended_step_of_a_parallel_leaves_the_others_results(runtime: Harness) -> None:
    """The run is suspended once the other has finished."""
    result = runtime.execute(susp.susp_08, {})

    assert_suspended(result, "step2", {"waiting_for": "approval"})
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"result": "normal-done"}
    assert count(result.run_id, "step1") == 1
    assert count(result.run_id, "step2") == 1


@pytest.mark.parity("SUSP-09")
def test_a_parallel_in_which_nothing_suspends_succeeds(runtime: Harness) -> None:
    """Both have their results."""
    result = runtime.execute(susp.susp_09, {})

    assert result.status == "success"
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"value": 10}
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output == {"value": 20}


@pytest.mark.parity("SUSP-10")
def test_a_step_inside_a_nested_workflow_suspends_the_outer_run(runtime: Harness) -> None:
    """The result under the nested workflow's id is suspended."""
    result = runtime.execute(susp.susp_10, {})

    assert_suspended(result, "nested-suspend-inner")
    assert result.steps["outer-step"].status == "success"
    assert result.steps["outer-step"].output == {"value": "outer-done"}
    assert count(result.run_id, "outer-step") == 1
    assert count(result.run_id, "inner-step") == 1


@pytest.mark.parity("SUSP-11")
def test_a_suspended_step_is_resumed_with_data(runtime: Harness) -> None:
    """The run is found by the id that the caller gave it."""
    run_id = f"susp-11-{uuid.uuid4().hex}"
    assert runtime.execute(susp.susp_11, {}, run_id=run_id).status == "suspended"

    resumed = runtime.resume(susp.susp_11, run_id, {"user_input": "hello from resume"}, step="step2")

    assert resumed.status == "success"
    assert resumed.steps["step2"].status == "success"
    assert resumed.steps["step2"].output == {"result": "completed", "user_input": "hello from resume"}


@pytest.mark.parity("SUSP-12")
def test_a_suspended_step_is_resumed_by_its_label_alone(runtime: Harness) -> None:
    """The caller that resumes need not know the step."""
    started = runtime.execute(susp.susp_12, {})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_12, started.run_id, {"user_input": "resumed via label"}, label="my-custom-label")

    assert resumed.status == "success"
    assert resumed.steps["step2"].output == {"result": "completed", "user_input": "resumed via label"}


@pytest.mark.parity("SUSP-13")
def test_state_set_before_a_suspension_is_there_after_the_resume(runtime: Harness) -> None:
    """The step that set it saw the old state; the next one sees the new."""
    initial = {"count": 0, "items": []}
    started = runtime.execute(susp.susp_13, {}, state=initial)
    assert started.status == "suspended"
    assert calls(started.run_id, "step1 state") == [initial]

    resumed = runtime.resume(susp.susp_13, started.run_id, {"proceed": True}, step="step1")

    assert resumed.status == "success"
    assert calls(started.run_id, "step2 state") == [{"count": 1, "items": ["item-1"]}]


@pytest.mark.parity("SUSP-14")
def test_two_suspended_steps_of_a_parallel_are_resumed_one_after_the_other(runtime: Harness) -> None:
    """The run stays suspended until the second."""
    started = runtime.execute(susp.susp_14, {"value": 10})
    assert started.status == "suspended"

    first = runtime.resume(susp.susp_14, started.run_id, {"increment": 5}, step="multi-resume-step-1")
    assert first.status == "suspended"

    second = runtime.resume(susp.susp_14, started.run_id, {"multiplier": 3}, step="multi-resume-step-2")
    assert second.status == "success"
    assert second.result == {"multi-resume-step-1": {"result": 15}, "multi-resume-step-2": {"result": 30}}


@pytest.mark.parity("SUSP-15")
def test_a_resume_that_could_mean_several_steps_is_refused(runtime: Harness) -> None:
    """The refusal changes nothing: the same run is then resumed by name."""
    started = runtime.execute(susp.susp_15, {"value": 10})
    assert started.status == "suspended"
    assert len(started.suspended) > 1

    with pytest.raises(ResumeAmbiguous, match=r"(?i)multiple.*suspend"):
        runtime.resume(susp.susp_15, started.run_id, {"multiplier": 2})

    resumed = runtime.resume(susp.susp_15, started.run_id, {"multiplier": 2}, step="branch-step-1")
    assert resumed.status == "suspended"
    assert len(resumed.suspended) == 1


@pytest.mark.parity("SUSP-16")
def test_the_step_to_resume_may_be_left_out_where_there_is_only_one(runtime: Harness) -> None:
    """With and without the step's name the run goes on alike."""
    named = runtime.execute(susp.susp_16, {"value": 42})
    assert "suspend-step" in named.suspended[0]
    assert named.steps["suspend-step"].suspend_payload == {"waiting_for": "extra-data", "original_value": 42}
    explicit = runtime.resume(susp.susp_16, named.run_id, {"extra_data": "explicit-resume"}, step=named.suspended[0])
    assert explicit.status == "success"
    assert explicit.result == {"final": "Completed: processed-explicit-resume"}

    unnamed = runtime.execute(susp.susp_16, {"value": 100})
    automatic = runtime.resume(susp.susp_16, unnamed.run_id, {"extra_data": "auto-resume"})
    assert automatic.status == "success"
    assert automatic.result == {"final": "Completed: processed-auto-resume"}


@pytest.mark.parity("SUSP-17")
def test_two_suspended_arms_are_listed_in_order_and_resumed_one_by_one(runtime: Harness) -> None:
    """A resumed arm leaves the list; the other stays as it was."""
    started = runtime.execute(susp.susp_17, {"value": 10})
    assert started.status == "suspended"
    assert started.steps["branch-step-1"].status == "suspended"
    assert started.steps["branch-step-2"].status == "suspended"
    assert started.suspended == [["branch-step-1"], ["branch-step-2"]]

    first = runtime.resume(susp.susp_17, started.run_id, {"multiplier": 2}, step="branch-step-1")
    assert first.status == "suspended"
    assert first.steps["branch-step-1"].status == "success"
    assert first.steps["branch-step-2"].status == "suspended"
    assert first.suspended == [["branch-step-2"]]

    second = runtime.resume(susp.susp_17, started.run_id, {"multiplier": 3}, step="branch-step-2")
    assert second.status == "success"
    assert second.result == {"branch-step-1": {"result": 20}, "branch-step-2": {"result": 30}}


@pytest.mark.parity("SUSP-19")
def test_every_iteration_of_a_loop_suspends_anew(runtime: Harness) -> None:
    """An iteration starts with the output of the one before and without its resume data."""
    started = runtime.execute(susp.susp_19, {"value": 0, "condition": False})
    assert started.status == "suspended"

    for number in (1, 2, 3):
        resumed = runtime.resume(susp.susp_19, started.run_id, {"should_continue": True})
        assert resumed.status == "suspended"
        assert resumed.steps["step-1"].payload["value"] == number


ITEMS = [{"value": 1}, {"value": 22}, {"value": 333}]


def values(result: RunResult) -> list[int]:
    """Return the outputs of the foreach, in the order of its items."""
    assert result.status == "success"
    assert result.steps["map"].status == "success"
    return [item["value"] for item in result.steps["map"].output]


@pytest.mark.parity("SUSP-21")
def test_the_items_of_a_sequential_foreach_suspend_one_after_the_other(runtime: Harness) -> None:
    """Each resume finishes one item."""
    run_id = runtime.execute(susp.susp_21, ITEMS).run_id

    assert runtime.resume(susp.susp_21, run_id, {"value": 0}, step="map").status == "suspended"
    assert runtime.resume(susp.susp_21, run_id, {"value": 5}, step="map").status == "suspended"
    last = runtime.resume(susp.susp_21, run_id, {"value": 0}, step="map")

    assert values(last) == [12, 38, 344]
    assert last.steps["final"].output == {"final_value": 394}


@pytest.mark.parity("SUSP-22")
def test_a_resume_without_an_index_reaches_all_suspended_items(runtime: Harness) -> None:
    """The item that had finished keeps its place in the list."""
    started = runtime.execute(susp.susp_22, [{"value": 22}, {"value": 1}, {"value": 333}])
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_22, started.run_id, {"value": 5}, step="map")

    assert values(resumed) == [38, 12, 349]
    assert resumed.steps["final"].output == {"final_value": 399}


@pytest.mark.parity("SUSP-23")
def test_a_resume_with_an_index_reaches_that_item_alone(runtime: Harness) -> None:
    """The run stays suspended while an item is."""
    started = runtime.execute(susp.susp_23, ITEMS)
    assert started.status == "suspended"

    first = runtime.resume(susp.susp_23, started.run_id, {"value": 100}, step="map", index=0)
    assert first.status == "suspended"
    second = runtime.resume(susp.susp_23, started.run_id, {"value": 200}, step="map", index=1)
    assert second.status == "suspended"
    third = runtime.resume(susp.susp_23, started.run_id, {"value": 300}, step="map", index=2)

    assert values(third) == [112, 233, 644]
    assert third.steps["final"].output == {"final_value": 989}


@pytest.mark.parity("SUSP-24")
def test_an_item_is_resumed_by_its_label(runtime: Harness) -> None:
    """The labels of the others outlive each resume."""
    started = runtime.execute(susp.susp_24, ITEMS)
    assert started.status == "suspended"

    first = runtime.resume(susp.susp_24, started.run_id, {"value": 5}, label="foreach-label-2")
    assert first.status == "suspended"
    second = runtime.resume(susp.susp_24, started.run_id, {"value": 0}, label="foreach-label-1")
    assert second.status == "suspended"
    third = runtime.resume(susp.susp_24, started.run_id, {"value": 3}, label="foreach-label-0")

    assert values(third) == [15, 33, 349]
    assert third.steps["final"].output == {"final_value": 397}


@pytest.mark.parity("SUSP-25")
def test_a_suspended_item_keeps_its_slot(runtime: Harness) -> None:
    """The fifth item starts only when the three that hold the slots are resumed, and then suspends itself."""
    items = [{"value": value} for value in (22, 1, 333, 444, 1000)]
    started = runtime.execute(susp.susp_25, items)
    assert started.status == "suspended"

    assert runtime.resume(susp.susp_25, started.run_id, {"value": 5}, step="map").status == "suspended"
    last = runtime.resume(susp.susp_25, started.run_id, {"value": 5}, step="map")

    assert last.status == "success"
    assert last.steps["final"].output == {"final_value": 1875}


NESTED = "nested-workflow-a"


def assert_calls(run_id: str, **expected: int) -> None:
    """The inner and outer steps were called as often as said (`last` is `last-step`, `begin` is `begin-step`)."""
    ids = {"begin": "begin-step", "last": "last-step"}
    assert {name: count(run_id, ids.get(name, name)) for name in expected} == expected


def assert_nested_suspended(result: RunResult) -> None:
    """The second inner step waits, and nothing after it was called."""
    assert_suspended(result, NESTED)
    assert "last-step" not in result.steps
    assert_calls(result.run_id, begin=1, start=1, other=1, final=0, last=0)


def assert_nested_finished(result: RunResult) -> None:
    """Only the suspended inner step was called twice; its input was its own, not the resume data."""
    assert result.status == "success"
    assert result.steps[NESTED].status == "success"
    assert result.steps[NESTED].output == {"final_value": 27}
    assert_calls(result.run_id, start=1, other=2, final=1, last=1)


@pytest.mark.parity("SUSP-27")
def test_a_nested_step_is_resumed_by_the_nested_workflows_id(runtime: Harness) -> None:
    """The engine finds the suspended step below it."""
    started = runtime.execute(susp.susp_27, {"start_value": 0})
    assert_nested_suspended(started)

    assert_nested_finished(runtime.resume(susp.susp_27, started.run_id, {"new_value": 0}, step=NESTED))


@pytest.mark.parity("SUSP-28")
def test_a_nested_step_is_resumed_by_its_label(runtime: Harness) -> None:
    """The outer run knows the label."""
    started = runtime.execute(susp.susp_28, {"start_value": 0})
    assert_nested_suspended(started)

    assert_nested_finished(runtime.resume(susp.susp_28, started.run_id, {"new_value": 0}, label="nested-custom-label"))


@pytest.mark.parity("SUSP-31")
def test_the_request_context_is_kept_over_a_suspension(runtime: Harness) -> None:
    """It has all that the step appended before and after it."""
    started = runtime.execute(susp.susp_31, {"input": "test"})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_31, started.run_id, {"user_input": "test input"}, step="promptAgent")

    assert resumed.status == "success"
    assert resumed.steps["requestContextAction"].output == ["first message", "promptAgentAction"]
    assert count(started.run_id, "promptAgent") == 2


@pytest.mark.parity("SUSP-35")
def test_the_only_suspended_step_is_resumed_without_its_name(runtime: Harness) -> None:
    """Its input is the run's, as before."""
    started = runtime.execute(susp.susp_35, {"value": 10})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_35, started.run_id, {"multiplier": 5})

    assert resumed.status == "success"
    assert resumed.result == {"result": 50}


@pytest.mark.parity("SUSP-36")
def test_empty_resume_data_gets_its_defaults(runtime: Harness) -> None:
    """An empty dict is resume data like any other."""
    started = runtime.execute(susp.susp_36, {"value": 0})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_36, started.run_id, {}, step="resume")

    assert resumed.status == "success"
    assert resumed.steps["resume"].output == {"value": 22}


@pytest.mark.parity("SUSP-37")
def test_a_parallel_follows_a_parallel(runtime: Harness) -> None:
    """Each step of the second group gets the results of the whole first group."""
    result = runtime.execute(susp.susp_37, {"input": "test"})

    assert result.status == "success"
    assert result.steps["step3"].output == {"result": "combined-processed-test-transformed-test"}
    assert result.steps["step4"].output == {"result": "final-processed-test-transformed-test"}


@pytest.mark.parity("SUSP-38")
def test_a_finished_run_cannot_be_resumed(runtime: Harness) -> None:
    """The refusal says that it is not suspended."""
    started = runtime.execute(susp.susp_38, {"value": 0})
    assert started.status == "success"

    with pytest.raises(RunNotSuspended, match="suspended"):
        runtime.resume(susp.susp_38, started.run_id, {"value": 2}, step="increment")


@pytest.mark.parity("SUSP-39")
def test_resume_data_that_does_not_fit_leaves_the_run_resumable(runtime: Harness) -> None:
    """The same run then takes data that does."""
    started = runtime.execute(susp.susp_39, {"value": 0})
    assert started.status == "suspended"

    with pytest.raises(InputInvalid):
        runtime.resume(susp.susp_39, started.run_id, {"number": 2}, step="resume")

    resumed = runtime.resume(susp.susp_39, started.run_id, {"value": 21}, step="resume")
    assert resumed.status == "success"
    assert resumed.steps["resume"].output == {"value": 22}


@pytest.mark.parity("SUSP-40")
def test_a_step_that_is_not_suspended_cannot_be_resumed(runtime: Harness) -> None:
    """The one that is still can."""
    started = runtime.execute(susp.susp_40, {"value": 0})
    assert started.status == "suspended"

    with pytest.raises(StepNotSuspended, match="increment|suspended"):
        runtime.resume(susp.susp_40, started.run_id, {"value": 2}, step="increment")

    resumed = runtime.resume(susp.susp_40, started.run_id, {"value": 21}, step="resume")
    assert resumed.status == "success"
    assert resumed.steps["resume"].output == {"value": 22}


@pytest.mark.parity("SUSP-42")
def test_a_nested_step_reads_the_results_of_its_own_workflow_after_a_resume(runtime: Harness) -> None:
    """Those of before the suspension too."""
    started = runtime.execute(susp.susp_42, {"start_value": 0})
    assert_nested_suspended(started)

    assert_nested_finished(runtime.resume(susp.susp_42, started.run_id, {"new_value": 0}, step=NESTED))


@pytest.mark.parity("SUSP-43")
def test_a_nested_workflow_after_a_resume_has_its_own_input_and_the_runs_context(runtime: Harness) -> None:
    """Its init data is what it was called with, not the outer run's."""
    started = runtime.execute(susp.susp_43, {"outer": "input"})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_43, started.run_id, {"user": "data"}, step="suspend-step")

    assert resumed.status == "success"
    assert resumed.result == {"success": True, "has_test_data": True}
    assert calls(started.run_id, "input") == [{"resumed": True}]
    assert calls(started.run_id, "init_data") == [{"resumed": True}]


@pytest.mark.parity("SUSP-44")
def test_a_step_four_levels_down_is_resumed_by_its_path(runtime: Harness) -> None:
    """The path goes through every nested workflow, and one step object stands in two of them."""
    path = ["nested-workflow-c", "nested-workflow-b", "nested-workflow-a", "other"]
    started = runtime.execute(susp.susp_44, {"start_value": 0})
    assert_suspended(started, "nested-workflow-c")
    assert started.steps["nested-workflow-c"].suspend_payload["__workflow_meta"]["path"] == path[1:]
    assert started.suspended[0] == path
    assert "last-step" not in started.steps
    assert_calls(started.run_id, passthrough=2)

    resumed = runtime.resume(susp.susp_44, started.run_id, {"new_value": 0}, step=path)

    assert resumed.status == "success"
    assert resumed.steps["nested-workflow-c"].output == {"final_value": 27}
    assert_calls(started.run_id, start=1, other=2, final=1, last=1, passthrough=2)


@pytest.mark.parity("SUSP-47")
def test_a_resumed_step_reads_what_it_had_suspended_with(runtime: Harness) -> None:
    """The step to resume may be given as the object."""
    started = runtime.execute(susp.susp_47, {"value": "test-value"})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_47, started.run_id, {"confirm": True}, step=susp.wait_with_data)

    assert resumed.status == "success"
    assert resumed.result == {
        "suspend_reason": "User confirmation required",
        "result": "Processed test-value after User confirmation required",
    }
    assert calls(started.run_id, "suspend_data") == [
        {"reason": "User confirmation required", "original_value": "test-value"}
    ]


@pytest.mark.parity("SUSP-48")
def test_a_resumed_step_stands_once_in_the_execution_path(runtime: Harness) -> None:
    """The path has each step in the order in which it first ran."""
    started = runtime.execute(susp.susp_11, {})
    assert started.status == "suspended"

    resumed = runtime.resume(susp.susp_11, started.run_id, {"user_input": "hello"}, step="step2")

    assert resumed.status == "success"
    assert resumed.execution_path == ["step1", "step2"]
