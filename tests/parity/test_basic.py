"""BASIC: a run of a few steps, what it returns, and definitions that cannot be run."""

from __future__ import annotations

import pytest

from orchestrator import FlowNotCommitted, FlowNotDefined
from tests.parity.calls import calls, count
from tests.parity.flows import basic
from tests.parity.harness import Harness


@pytest.mark.parity("BASIC-01")
def test_a_single_step_runs(runtime: Harness) -> None:
    """The step is called; run and step are successful, with its output."""
    result = runtime.execute(basic.one_step, {})
    assert count(result.run_id, "step1") == 1
    assert result.status == "success"
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"result": "success"}


@pytest.mark.parity("BASIC-02")
def test_the_same_step_runs_in_a_workflow_of_another_name(runtime: Harness) -> None:
    """A second workflow of the same step gives the same."""
    result = runtime.execute(basic.second_name, {})
    assert result.status == "success"
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"result": "success"}


@pytest.mark.parity("BASIC-03")
def test_a_workflow_can_be_run_again_and_again(runtime: Harness) -> None:
    """Three runs of one definition call the step once each and do not know of each other."""
    results = [runtime.execute(basic.reusable, {}) for _ in range(3)]
    assert len({result.run_id for result in results}) == 3
    for result in results:
        assert result.status == "success"
        assert result.steps["step1"].output == {"result": "success"}
        assert count(result.run_id, "step1") == 1


@pytest.mark.parity("BASIC-04")
def test_a_step_reads_and_writes_the_state(runtime: Harness) -> None:
    """The step sees the state given at start."""
    result = runtime.execute(basic.with_state, {}, state={"value": "test-state"})
    assert count(result.run_id, "step1") == 1
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"result": "success", "value": "test-state!!!"}


@pytest.mark.parity("BASIC-05")
def test_two_steps_run_in_sequence(runtime: Harness) -> None:
    """Both are called once and both outputs are kept."""
    result = runtime.execute(basic.sequence, {})
    assert result.status == "success"
    for name in ("step1", "step2"):
        assert count(result.run_id, name) == 1
        assert result.steps[name].status == "success"
        assert result.steps[name].output == {"value": f"{name}-result"}


@pytest.mark.parity("BASIC-06")
def test_two_steps_run_in_parallel(runtime: Harness) -> None:
    """Both are called once and both outputs are kept."""
    result = runtime.execute(basic.side_by_side, {})
    assert result.status == "success"
    for name in ("step1", "step2"):
        assert count(result.run_id, name) == 1
        assert result.steps[name].status == "success"
        assert result.steps[name].output == {"value": name}


@pytest.mark.parity("BASIC-07")
def test_bail_ends_the_run_after_a_successful_step(runtime: Harness) -> None:
    """The bailing step is a success with the bailed value, and what follows has no result."""
    result = runtime.execute(basic.bailing, {"value": "bail"})
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"result": "bailed"}
    assert "step2" not in result.steps


@pytest.mark.parity("BASIC-07")
def test_a_step_that_could_bail_and_does_not_changes_nothing(runtime: Harness) -> None:
    """The run goes on to the next step."""
    result = runtime.execute(basic.bailing, {"value": "no-bail"})
    assert result.steps["step1"].output == {"result": "step1: no-bail"}
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output == {"result": "step2: step1: no-bail"}


@pytest.mark.parity("BASIC-08")
def test_a_step_knows_its_run_id(runtime: Harness) -> None:
    """The context has the run's id."""
    result = runtime.execute(basic.knows_run_id, {})
    assert isinstance(result.run_id, str)
    assert calls(result.run_id, "run_id") == [result.run_id]


@pytest.mark.parity("BASIC-10")
def test_the_result_of_a_run_is_the_last_output(runtime: Harness) -> None:
    """A nested value comes back whole."""
    result = runtime.execute(basic.nested_result, {})
    assert result.status == "success"
    assert result.result == {"nested": {"value": "step1-data"}}


@pytest.mark.parity("BASIC-11")
def test_the_first_step_gets_the_input_of_the_run(runtime: Harness) -> None:
    """It arrives unchanged."""
    result = runtime.execute(basic.takes_input, {"foo": "hello", "bar": 42})
    assert calls(result.run_id, "input") == [{"foo": "hello", "bar": 42}]


@pytest.mark.parity("BASIC-12")
def test_a_workflow_without_a_flow_cannot_be_run(runtime: Harness) -> None:
    """Creating a run says that nothing was defined."""
    with (
        runtime.open() as orchestrator,
        pytest.raises(FlowNotDefined, match="Execution flow of workflow is not defined"),
    ):
        orchestrator.create_run(basic.not_defined)


@pytest.mark.parity("BASIC-13")
def test_a_workflow_that_was_not_committed_cannot_be_run(runtime: Harness) -> None:
    """The workflow says so of itself, and creating a run is refused."""
    assert basic.not_committed.committed is False
    with (
        runtime.open() as orchestrator,
        pytest.raises(FlowNotCommitted, match="Uncommitted step flow changes detected"),
    ):
        orchestrator.create_run(basic.not_committed)


@pytest.mark.parity("BASIC-14")
def test_a_step_that_never_suspended_has_no_suspend_data(runtime: Harness) -> None:
    """Its suspend data is falsy."""
    result = runtime.execute(basic.never_suspended, {"value": "test"})
    assert result.status == "success"
    assert result.result == {"result": "test: No suspend data"}
