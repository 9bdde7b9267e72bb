"""BRANCH: every arm whose condition is true runs, and no other."""

from __future__ import annotations

import pytest

from tests.parity.calls import count
from tests.parity.flows import branch
from tests.parity.harness import Harness

LEAVES = ("low", "medium", "high")


@pytest.mark.parity("BRANCH-01")
def test_a_true_condition_runs_its_arm(runtime: Harness) -> None:
    """The nested workflow of the other arm does not run, so its step has no result."""
    result = runtime.execute(branch.nested_arm, {"startValue": 1})
    assert count(result.run_id, "start") == 1
    assert count(result.run_id, "other") == 0
    assert count(result.run_id, "final") == 1
    assert result.steps["finalIf"].output == {"finalValue": 2}
    assert result.steps["start"].output == {"newValue": 2}


@pytest.mark.parity("BRANCH-02")
def test_an_arm_may_be_a_nested_workflow(runtime: Harness) -> None:
    """Its result stands under the nested workflow's id."""
    result = runtime.execute(branch.nested_arm, {"startValue": 6})
    assert count(result.run_id, "start") == 1
    assert count(result.run_id, "other") == 1
    assert count(result.run_id, "final") == 1
    assert result.steps["branch-else-nested"].output == {"finalValue": 33}
    assert result.steps["start"].output == {"newValue": 7}


@pytest.mark.parametrize(
    "value, chosen",
    [
        pytest.param(10, "low", marks=pytest.mark.parity("BRANCH-03")),
        pytest.param(50, "medium", marks=pytest.mark.parity("BRANCH-04")),
        pytest.param(80, "high", marks=pytest.mark.parity("BRANCH-05")),
    ],
)
def test_of_three_arms_one_is_chosen(runtime: Harness, value: int, chosen: str) -> None:
    """The two others are not called and have no result."""
    result = runtime.execute(branch.three_arms, {"value": value})
    assert result.status == "success"
    assert count(result.run_id, "check") == 1
    assert {name: count(result.run_id, name) for name in LEAVES} == {name: int(name == chosen) for name in LEAVES}
    assert result.steps[chosen].output == {"result": chosen}
    assert set(result.steps) == {"check", chosen}


@pytest.mark.parity("BRANCH-06")
def test_an_arm_gets_the_whole_previous_output(runtime: Harness) -> None:
    """Conditions and the chosen arm see the same data."""
    result = runtime.execute(branch.on_a_flag, {"rawValue": 100})
    assert result.status == "success"
    assert count(result.run_id, "initial") == 1
    assert count(result.run_id, "truePath") == 1
    assert count(result.run_id, "falsePath") == 0
    assert result.steps["initial"].output == {"processedValue": 200, "flag": True}
    assert result.steps["truePath"].output == {"final": "processed: 200, flag: true"}
