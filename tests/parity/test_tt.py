"""TT: a run sleeps, and a run begins again in the middle with what is known of the steps before."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator import InputInvalid, RunResult, RunStillRunning, StepNotFound, Workflow
from tests.parity.calls import count
from tests.parity.flows import tt
from tests.parity.harness import Harness


@contextmanager
def at_least(seconds: float) -> Iterator[None]:
    """Fail if the block inside takes less than this long."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin >= seconds


def travel(runtime: Harness, workflow: Workflow, step: str, *, run_id: str | None = None, **options: Any) -> RunResult:
    """Travel to a step, on a run id that was never seen before unless one is given."""
    with runtime.open() as orchestrator:
        return orchestrator.create_run(workflow, run_id=run_id).time_travel(step, **options)


def success(output: Any) -> dict[str, Any]:
    """Return the result of a step that went well."""
    return {"status": "success", "output": output}


def called(run_id: str, *step_ids: str) -> list[int]:
    """Return how often each step was called."""
    return [count(run_id, step_id) for step_id in step_ids]


@pytest.mark.parity("TT-01")
def test_a_sleep_hands_its_input_on(runtime: Harness) -> None:
    """It lasts as long as it says."""
    with at_least(0.09):
        result = runtime.execute(tt.tt_01, {})

    assert result.status == "success"
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].payload == {}
    assert result.steps["step1"].output == {"result": "success"}
    assert result.steps["step2"].payload == {"result": "success"}
    assert result.steps["step2"].output == {"result": "slept successfully: success"}


@pytest.mark.parity("TT-02")
def test_a_function_says_how_long_to_sleep(runtime: Harness) -> None:
    """It may read earlier results."""
    with at_least(0.09):
        result = runtime.execute(tt.tt_02, {})

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "slept for: 100"}


@pytest.mark.parity("TT-03")
def test_a_nested_workflow_in_a_branch_begins_with_a_sleep(runtime: Harness) -> None:
    """The other arm is never called."""
    with at_least(0.04):
        result = runtime.execute(tt.tt_03, {})

    assert result.status == "success"
    assert called(result.run_id, "check", "afterSleep", "noSleep") == [1, 1, 0]
    assert result.steps["nested-sleep"].output == {"result": "completed after sleep"}


@pytest.mark.parity("TT-04")
def test_a_step_after_a_sleep_reads_a_result_from_before_it(runtime: Harness) -> None:
    """Each step is called once."""
    result = runtime.execute(tt.tt_04, {})

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "before-sleep + after-sleep"}
    assert called(result.run_id, "step1", "step2") == [1, 1]


@pytest.mark.parity("TT-05")
def test_a_run_sleeps_until_a_moment(runtime: Harness) -> None:
    """The moment comes from a function."""
    with at_least(0.09):
        result = runtime.execute(tt.tt_05, {})

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "slept until successfully: success"}


@pytest.mark.parity("TT-06")
def test_the_moment_to_sleep_until_follows_from_the_data(runtime: Harness) -> None:
    """The function gets the output of the step before."""
    with at_least(0.09):
        result = runtime.execute(tt.tt_06, {})

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "slept until fn: 100"}


@pytest.mark.parity("TT-07")
def test_a_new_run_begins_at_a_later_step(runtime: Harness) -> None:
    """The step before is not called: its result is given."""
    result = travel(runtime, tt.tt_07, "step2", context={"step1": success({"step1_result": 2})})

    assert result.status == "success"
    assert called(result.run_id, "step1", "step2", "step3") == [0, 1, 1]
    assert result.result == {"final": 4}


@pytest.mark.parity("TT-08")
def test_a_new_run_begins_after_a_parallel(runtime: Harness) -> None:
    """The target gets the given outputs by the ids of the steps."""
    records = {"step1": success({"result": "pre-step1"}), "step2": success({"result": "pre-step2"})}

    result = travel(runtime, tt.tt_08, "final", context=records)

    assert result.status == "success"
    assert called(result.run_id, "step1", "step2") == [0, 0]
    assert result.result == {"combined": "pre-step1-pre-step2"}


@pytest.mark.parity("TT-09")
def test_time_travel_may_run_its_target_alone(runtime: Harness) -> None:
    """The run is paused after it."""
    result = travel(runtime, tt.tt_09, "step2", context={"step1": success({"step1_result": 2})}, per_step=True)

    assert result.status == "paused"
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output == {"step2_result": 3}
    assert called(result.run_id, "step1", "step2", "step3") == [0, 1, 0]


@pytest.mark.parity("TT-10")
def test_time_travel_goes_on_with_another_output_than_the_run_had(runtime: Harness) -> None:
    """The finished run beside it has nothing to do with it."""
    first = runtime.execute(tt.tt_10, {})
    assert first.status == "success"
    assert called(first.run_id, "step1", "step2", "step3") == [1, 1, 1]

    result = travel(runtime, tt.tt_10, "step2", context={"step1": success({"step1_result": 10})})

    assert result.status == "success"
    assert result.result == {"final": 12}
    assert called(result.run_id, "step1", "step2", "step3") == [0, 1, 1]


@pytest.mark.parity("TT-12")
def test_the_target_of_time_travel_may_suspend(runtime: Harness) -> None:
    """The step after it is not called."""
    result = travel(runtime, tt.tt_12, "step2", context={"step1": success({"step1_result": 2})})

    assert result.status == "suspended"
    assert called(result.run_id, "step1", "step2", "step3") == [0, 1, 0]


@pytest.mark.parity("TT-13")
def test_time_travel_to_an_arm_runs_that_arm_alone(runtime: Harness) -> None:
    """The arms that were not meant leave nothing in the result."""
    result = travel(runtime, tt.tt_13, "branchA", context={"check": success({"branch": "A"})})

    assert result.status == "success"
    assert called(result.run_id, "check", "branchA", "branchB") == [0, 1, 0]
    assert result.result == {"branchA": {"result": "from A"}}


@pytest.mark.parity("TT-15")
def test_time_travel_with_another_output_may_run_its_target_alone(runtime: Harness) -> None:
    """The run is paused after it."""
    assert runtime.execute(tt.tt_15, {}).status == "success"

    result = travel(runtime, tt.tt_15, "step2", context={"step1": success({"step1_result": 10})}, per_step=True)

    assert result.status == "paused"
    assert result.steps["step2"].output == {"step2_result": 11}
    assert called(result.run_id, "step1", "step2", "step3") == [0, 1, 0]


@pytest.mark.parity("TT-18")
def test_time_travel_to_an_unknown_step_is_refused_by_its_name(runtime: Harness) -> None:
    """Nothing was to be found there."""
    with pytest.raises(StepNotFound, match="nonExistent"):
        travel(runtime, tt.tt_18, "nonExistent", context={"step1": success({"step1_result": 2})})


@pytest.mark.parity("TT-19")
def test_a_running_run_cannot_travel(runtime: Harness) -> None:
    """It is still running although its worker is gone."""
    run_id = f"tt-19-{uuid.uuid4().hex}"
    with runtime.open() as orchestrator:
        orchestrator.create_run(tt.tt_19, run_id=run_id).submit({})
        while not count(run_id, "step2"):
            time.sleep(0.02)

    with pytest.raises(RunStillRunning, match="still running"):
        travel(runtime, tt.tt_19, "step2", run_id=run_id, input={"step1_result": 2})


@pytest.mark.parity("TT-20")
def test_the_input_for_the_target_has_to_fit_it(runtime: Harness) -> None:
    """The refusal names the field that is missing."""
    with pytest.raises(InputInvalid, match="step1_result"):
        travel(runtime, tt.tt_20, "step2", input={"invalid_payload": 2})
