"""RUNS: a definition is run as often as one likes, and every run is its own."""

from __future__ import annotations

import uuid

import pytest

from tests.parity.calls import count
from tests.parity.flows import runs
from tests.parity.harness import Harness


@pytest.mark.parity("RUNS-01")
def test_a_run_calls_its_step_once(runtime: Harness) -> None:
    result = runtime.execute(runs.runs_01)

    assert result.status == "success"
    assert count(result.run_id, "step1") == 1


@pytest.mark.parity("RUNS-02")
def test_a_run_calls_each_of_its_steps_once(runtime: Harness) -> None:
    """Three steps in a row all succeed."""
    result = runtime.execute(runs.runs_02)

    assert result.status == "success"
    for step_id in ("step1", "step2", "step3"):
        assert count(result.run_id, step_id) == 1
        assert result.steps[step_id].status == "success"


@pytest.mark.parity("RUNS-03")
def test_a_workflow_runs_again_and_again(runtime: Harness) -> None:
    """Each run calls the step again and has its own result."""
    row = f"runs-03-{uuid.uuid4().hex}"

    results = [runtime.execute(runs.runs_03, {"row": row, "run": run}) for run in ("run1", "run2", "run3")]

    assert [result.status for result in results] == ["success"] * 3
    assert [result.steps["step1"].output for result in results] == [{"run_number": number} for number in (1, 2, 3)]


@pytest.mark.parity("RUNS-04")
def test_the_caller_may_name_the_run(runtime: Harness) -> None:
    """The run goes through under that id."""
    result = runtime.execute(runs.runs_01, run_id="my-custom-run-id-12345")

    assert result.status == "success"
