"""COND, COMPLEX and CHAIN: a chosen arm has a result as a step of its own, the others have none."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orchestrator import StepResult
from tests.parity.calls import count
from tests.parity.flows import conditions
from tests.parity.harness import Harness


def assert_timed(step: StepResult) -> None:
    """Check that a step has a beginning and an end, in UTC."""
    for moment in (step.started_at, step.ended_at):
        assert isinstance(moment, datetime)
        assert moment.utcoffset() == timedelta(0)
    assert step.started_at <= step.ended_at


@pytest.mark.parity("COMPLEX-01")
def test_a_condition_combines_several_earlier_results(runtime: Harness) -> None:
    """The chosen step has as its payload the whole output it was called with, whatever a later map does."""
    result = runtime.execute(conditions.complex_conditions, {})
    assert count(result.run_id, "step2") == 1
    assert count(result.run_id, "step3") == 0
    chosen = result.steps["step2"]
    assert chosen.status == "success"
    assert chosen.output == {"result": "step2"}
    assert chosen.payload == {"status": "partial", "score": 75, "flags": {"isValid": True}}
    assert_timed(chosen)


@pytest.mark.parity("COND-01")
def test_a_map_takes_the_first_of_several_steps_that_has_a_result(runtime: Harness) -> None:
    """The step of the false arm stands first in the list and is passed over."""
    result = runtime.execute(conditions.first_of_several, {"status": "success"})
    assert {name: count(result.run_id, name) for name in ("step1", "step2", "step3")} == {
        "step1": 1,
        "step2": 1,
        "step3": 0,
    }
    assert result.input == {"status": "success"}
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"status": "success"}
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output == {"result": "step2"}
    assert result.steps["step4"].status == "success"
    assert result.steps["step4"].output == {"result": "step2"}


@pytest.mark.parity("COND-03")
def test_a_failed_step_ends_the_run_and_keeps_its_exception(runtime: Harness) -> None:
    """The error in its result is an exception again, of its own class."""
    result = runtime.execute(conditions.failing, {})
    assert count(result.run_id, "step2") == 0
    assert result.input == {}
    failed = result.steps["step1"]
    assert failed.status == "failed"
    assert isinstance(failed.error, RuntimeError)
    assert str(failed.error) == "Failed"
    assert_timed(failed)


@pytest.mark.parity("COND-04")
def test_a_map_of_a_step_that_has_not_run_leaves_earlier_results_alone(runtime: Harness) -> None:
    """The step of the condition after it does not run."""
    result = runtime.execute(conditions.not_run_yet, {"status": "success"})
    assert count(result.run_id, "step1") == 1
    assert count(result.run_id, "step2") == 1
    assert count(result.run_id, "step3") == 0
    assert result.input == {"status": "success"}
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"status": "success"}
    assert_timed(result.steps["step1"])
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output == {"result": "step2"}
    assert_timed(result.steps["step2"])


@pytest.mark.parity("COND-05")
def test_a_condition_reads_a_step_result(runtime: Harness) -> None:
    """The chosen step returns nothing and is a success all the same."""
    result = runtime.execute(conditions.on_a_result, {"count": 5})
    assert count(result.run_id, "step2") == 1
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"count": 5}
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output is None
    assert_timed(result.steps["step2"])


@pytest.mark.parity("CHAIN-01")
def test_two_chains_run_side_by_side(runtime: Harness) -> None:
    """Each nested workflow is a step with its input and the output of its last step."""
    result = runtime.execute(conditions.two_chains, {})
    for name, output in (("nested-a", "success3"), ("nested-b", "success5")):
        chain = result.steps[name]
        assert chain.status == "success"
        assert chain.output == {"result": output}
        assert chain.payload == {}
        assert_timed(chain)
