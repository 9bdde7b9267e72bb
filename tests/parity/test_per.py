"""PER: with `per_step` a run does one step and is then paused."""

from __future__ import annotations

import pytest

from orchestrator import RunResult
from tests.parity.calls import count
from tests.parity.flows import per
from tests.parity.harness import Harness


def assert_paused_after(result: RunResult, step_id: str, *others: str) -> None:
    """The run did this step alone: the others were not called and have no result."""
    assert result.status == "paused"
    assert result.result is None
    assert set(result.steps) == {step_id}
    assert result.steps[step_id].status == "success"
    assert count(result.run_id, step_id) == 1
    assert [count(result.run_id, other) for other in others] == [0] * len(others)


@pytest.mark.parity("PER-01")
def test_the_second_of_two_steps_waits(runtime: Harness) -> None:
    """It has no result, since it has not begun."""
    result = runtime.execute(per.per_01, {}, per_step=True)

    assert_paused_after(result, "step1", "step2")
    assert result.steps["step1"].output == {"result": "step1"}


@pytest.mark.parity("PER-02")
def test_only_the_first_step_of_a_parallel_runs(runtime: Harness) -> None:
    """Neither its sibling nor what follows has a result."""
    assert_paused_after(runtime.execute(per.per_02, {}, per_step=True), "A", "B", "C")


@pytest.mark.parity("PER-04")
def test_a_nested_workflow_waits_like_a_step(runtime: Harness) -> None:
    """It has no result before its turn."""
    assert_paused_after(runtime.execute(per.per_04, {}, per_step=True), "outerStep", "innerStep", "finalStep")


@pytest.mark.parity("PER-05")
def test_a_run_that_is_to_be_continued_pauses_after_its_first_step(runtime: Harness) -> None:
    """The store has it as paused, for the caller that continues it."""
    result = runtime.execute(per.per_05, {}, per_step=True)

    assert_paused_after(result, "step1", "step2")
    record = runtime.runs.get(result.run_id)
    assert record is not None
    assert record.status == "paused"
