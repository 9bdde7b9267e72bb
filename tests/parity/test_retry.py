"""RETRY: a failing step is tried as often as it, or else its workflow, says."""

from __future__ import annotations

import pytest

from orchestrator import RunResult
from tests.parity.calls import calls, count
from tests.parity.flows import retry
from tests.parity.harness import Harness


def assert_failed_after(result: RunResult, retries: int) -> None:
    """The second step failed after so many retries, counted from 0; the first ran once and well."""
    assert result.status == "failed"
    assert result.steps["step1"].status == "success"
    assert result.steps["step2"].status == "failed"
    assert isinstance(result.steps["step2"].error, Exception)
    assert str(result.steps["step2"].error) == "Step failed"
    assert count(result.run_id, "step1") == 1
    assert calls(result.run_id, "step2") == list(range(retries + 1))


@pytest.mark.parity("RETRY-01")
def test_a_failing_step_is_not_tried_again_unless_told(runtime: Harness) -> None:
    """Without `retries` it is called once."""
    assert_failed_after(runtime.execute(retry.retry_01), retries=0)


@pytest.mark.parity("RETRY-02")
def test_a_workflow_says_how_often_its_steps_are_tried_again(runtime: Harness) -> None:
    """Five retries are six calls."""
    assert_failed_after(runtime.execute(retry.retry_02), retries=5)


@pytest.mark.parity("RETRY-03")
def test_a_steps_own_number_of_retries_counts_more_than_its_workflows(runtime: Harness) -> None:
    """The smaller number of the step stands against the larger one of the workflow."""
    assert_failed_after(runtime.execute(retry.retry_03), retries=5)
