"""`ctx.update_state`: of steps that write the state side by side, none undoes what another has written."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import InputInvalid, RunResult, Workflow
from tests.parity.flows import state_updates as flows
from tests.parity.harness import Harness

NUMBERS = list(range(flows.WRITERS))


def check_all(result: RunResult, numbers: list[int]) -> None:
    """Each of the numbers has been counted, and once."""
    assert result.status == "success", result.error
    assert result.state["total"] == len(numbers)
    assert sorted(result.state["seen"]) == numbers


@pytest.mark.parametrize("flow", [flows.in_items, flows.in_coroutines, flows.in_nested], ids=lambda flow: flow.id)
def test_no_update_of_items_side_by_side_is_lost(runtime: Harness, flow: Workflow) -> None:
    """Of functions, coroutines and nested workflows; values that are set beside it are kept as well."""
    result = runtime.start(flow, NUMBERS)
    check_all(result, NUMBERS)
    if flow is not flows.in_coroutines:
        assert [result.state[f"own-{number}"] for number in NUMBERS] == NUMBERS


def test_no_update_of_arms_side_by_side_is_lost(runtime: Harness) -> None:
    """Twelve steps of one parallel; what was in the state before stays."""
    result = runtime.start(flows.in_arms, 0, state={"kept": "yes"})
    check_all(result, NUMBERS)
    assert result.state["kept"] == "yes"


def test_an_attempt_that_fails_updates_nothing(runtime: Harness) -> None:
    """The one that follows does, once."""
    check_all(runtime.start(flows.in_attempts, [0, 1, 2, 3]), [0, 1, 2, 3])


def test_a_suspended_attempt_updates_once(runtime: Harness) -> None:
    """What it wrote is kept, and the resumed attempt writes by itself."""
    result = runtime.start(flows.over_suspensions, [0, 1, 2])
    assert (result.status, result.state["total"]) == ("suspended", 3)
    for number in range(3):
        result = runtime.resume(flows.over_suspensions, result.run_id, {}, label=f"n{number}")
    assert result.status == "success"
    assert (result.state["total"], sorted(result.state["seen"])) == (6, [0, 0, 1, 1, 2, 2])


def test_the_model_holds_for_what_all_have_written_together(runtime: Harness) -> None:
    """Ten of twelve fit, whoever they are; the eleventh fails, and has written nothing."""
    result = runtime.start(flows.limited, NUMBERS)
    assert result.status == "failed"
    assert isinstance(result.error, InputInvalid)
    assert 1 <= result.state["total"] <= 10
    assert len(result.state["seen"]) == result.state["total"]


@pytest.mark.parametrize(
    "flow, error, text", [(flows.raising, LookupError, "nothing"), (flows.forgetful, TypeError, "mapping")]
)
def test_a_function_that_cannot_update_fails_its_step(runtime: Harness, flow: Workflow, error: Any, text: str) -> None:
    """With its own error, or one that says what it has to return."""
    result = runtime.start(flow, 1)
    assert result.status == "failed"
    assert isinstance(result.error, error)
    assert text in str(result.error)
