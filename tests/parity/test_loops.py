"""LOOP: the body runs first, then the condition is asked; the last iteration is what stays."""

from __future__ import annotations

import pytest

from orchestrator import RunResult
from tests.parity.flows import loops
from tests.parity.harness import Harness


def assert_counted_to_twelve(result: RunResult, body: str) -> None:
    """Check what every loop to twelve leaves behind."""
    assert result.status == "success"
    assert result.result == {"finalValue": 12}
    assert result.steps[body].output == {"value": 12}
    assert result.steps["final"].status == "success"
    assert result.steps["final"].output == {"finalValue": 12}


@pytest.mark.parity("LOOP-01")
def test_do_until_repeats_until_the_condition_is_true(runtime: Harness) -> None:
    """Twelve iterations lead to twelve."""
    result = runtime.execute(loops.until, {"target": 10, "value": 0})
    assert_counted_to_twelve(result, "increment")


@pytest.mark.parity("LOOP-02")
def test_do_until_repeats_a_nested_workflow(runtime: Harness) -> None:
    """The result stands under the nested workflow's id."""
    result = runtime.execute(loops.until_nested, {"target": 10, "value": 0})
    assert_counted_to_twelve(result, "nested-loops-until-counter-increment")


@pytest.mark.parity("LOOP-03")
def test_do_while_repeats_while_the_condition_is_true(runtime: Harness) -> None:
    """The opposite condition leads to the same."""
    result = runtime.execute(loops.while_, {"target": 10, "value": 0})
    assert_counted_to_twelve(result, "increment")


@pytest.mark.parity("LOOP-05")
def test_a_body_runs_once_even_if_the_condition_is_false_from_the_start(runtime: Harness) -> None:
    """The condition is asked after the body."""
    result = runtime.execute(loops.at_least_once, {"count": 10})
    assert result.status == "success"
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"count": 11}
