"""NEST: a workflow as a step of another, with an input and results of its own and the state in common."""

from __future__ import annotations

import pytest

from tests.parity.calls import count
from tests.parity.flows import nest
from tests.parity.harness import Harness


@pytest.mark.parity("NEST-01")
def test_a_nested_workflow_is_one_step_of_the_outer_one(runtime: Harness) -> None:
    """Its output is that of its last step, and its inner steps stay inside."""
    result = runtime.execute(nest.nest_01)

    assert result.status == "success"
    assert [count(result.run_id, step_id) for step_id in ("step1", "step2", "step3")] == [1, 1, 1]
    assert set(result.steps) == {"step1", "nested-workflow"}
    assert result.steps["nested-workflow"].status == "success"
    assert result.steps["nested-workflow"].output == {"result": "step3"}


@pytest.mark.parity("NEST-02")
def test_a_failing_inner_step_fails_the_nested_workflow_with_its_error(runtime: Harness) -> None:
    """The nested workflow's result has the inner step's exception."""
    result = runtime.execute(nest.nest_02)

    assert result.status == "failed"
    assert result.steps["step1"].status == "success"
    nested = result.steps["failing-nested"]
    assert nested.status == "failed"
    assert isinstance(nested.error, Exception)
    assert str(nested.error) == "Step execution failed"


@pytest.mark.parity("NEST-03")
def test_data_flows_into_a_nested_workflow_and_out_of_it(runtime: Harness) -> None:
    """The nested workflow's input is the output of the step before."""
    result = runtime.execute(nest.nest_03, {"value": "test"})

    assert result.status == "success"
    assert result.steps["outer-step"].output == {"value": "test-outer"}
    assert result.steps["inner-workflow"].output == {"value": "test-outer-inner"}


@pytest.mark.parity("NEST-05")
def test_a_nested_workflow_may_nest_another(runtime: Harness) -> None:
    """The outermost sees the result of all three levels under the middle one's id."""
    result = runtime.execute(nest.nest_05)

    assert result.status == "success"
    assert result.steps["middle-workflow"].status == "success"
    assert result.steps["middle-workflow"].output == {"value": "level1-level2-level3"}


@pytest.mark.parity("NEST-06")
def test_a_nested_workflow_sees_the_part_of_the_state_that_it_declares(runtime: Harness) -> None:
    """The part that it does not know stays as it is in the outer workflow."""
    state = {"value": "test-state", "other_value": "test-other-state"}

    result = runtime.execute(nest.nest_06, state=state)

    assert result.status == "success"
    assert result.steps["step1"].output == {"result": "success", "value": "test-state"}
    assert result.steps["nested-state"].output == {"result": "success", "value": "test-state"}
    assert result.state == state
