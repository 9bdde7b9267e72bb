"""RST: a run whose worker was lost goes on from where it was, without repeating what was done."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator import RunNotActive, RunResult, Workflow
from tests.parity.calls import calls, count
from tests.parity.flows import rst
from tests.parity.harness import Harness


def lose(runtime: Harness, workflow: Workflow, input: Any) -> str:
    """Start a run, wait until the worker of one of its steps is lost, and return the run's id."""
    run_id = f"{workflow.id}-{uuid.uuid4().hex}"
    with runtime.open() as orchestrator:
        orchestrator.create_run(workflow, run_id=run_id).submit(input)
        while not count(run_id, rst.LOST):
            time.sleep(0.02)
    return run_id


def restart(runtime: Harness, run_id: str) -> RunResult:
    """Restart a stored run by its id alone."""
    with runtime.open() as orchestrator:
        return orchestrator.get_run(run_id).restart()


@pytest.mark.parity("RST-01")
def test_a_run_that_was_never_started_cannot_be_restarted(runtime: Harness) -> None:
    """There is nothing to go on from."""
    with runtime.open() as orchestrator, pytest.raises(RunNotActive):
        orchestrator.create_run(rst.rst_01).restart()


@pytest.mark.parity("RST-02")
def test_a_lost_step_runs_again_with_its_own_input(runtime: Harness) -> None:
    """It comes to its end once, and knows that it was restarted."""
    run_id = lose(runtime, rst.rst_02, {"value": 42})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.steps["counter"].output == {"count": 1, "value": 42}
    assert calls(run_id, "counter") == [True]


@pytest.mark.parity("RST-03")
def test_a_restart_does_not_repeat_finished_steps(runtime: Harness) -> None:
    """Only the lost one runs again."""
    run_id = lose(runtime, rst.rst_03, {"value": 5})
    assert count(run_id, "step1") == 1

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.steps["step1"].output == {"value": 15}
    assert result.steps["step2"].payload == {"value": 15}
    assert result.steps["step2"].output == {"value": 30}
    assert count(run_id, "step1") == 1
    assert count(run_id, "step2") == 1


@pytest.mark.parity("RST-04")
def test_a_step_that_was_lost_may_succeed_when_restarted(runtime: Harness) -> None:
    """The first, lost attempt leaves no trace in the result."""
    run_id = lose(runtime, rst.rst_04, {"text": "hello"})

    result = restart(runtime, run_id)

    assert result.status == "success"
    assert result.steps["failing-step"].output == {"text": "HELLO"}
    assert count(run_id, "failing-step") == 1


def assert_moment(moment: datetime | None) -> None:
    """It is an aware datetime."""
    assert moment is not None
    assert datetime(2020, 1, 1, tzinfo=UTC) < moment


@pytest.mark.parity("RST-06")
def test_a_restarted_run_suspends_and_is_resumed_like_any_other(runtime: Harness) -> None:
    """It suspends twice, and the step before the lost one is not called again."""
    run_id = lose(runtime, rst.rst_06, {"input": "test"})
    assert count(run_id, "getUserInput") == 1

    with runtime.open() as orchestrator:
        run = orchestrator.get_run(run_id)

        restarted = run.restart()
        assert restarted.status == "suspended"
        waiting = restarted.steps["promptAgent"]
        assert waiting.status == "suspended"
        assert waiting.suspend_payload == {"test_payload": "hello"}
        assert_moment(waiting.started_at)
        assert_moment(waiting.suspended_at)

        first = run.resume(data={"user_input": "test input"}, step="promptAgent")
        assert first.status == "suspended"
        assert first.steps["promptAgent"].output == {"model_output": "test output"}
        assert first.steps["evaluateTone"].output == {"tone_score": 0.8, "completeness_score": 0.7}
        assert first.steps["improveResponse"].status == "suspended"

        last = run.resume(data={"tone_score": 0.8}, step="improveResponse")

    assert last.status == "success"
    assert last.steps["improveResponse"].output == {"improved_output": "improved output"}
    assert last.steps["evaluateImproved"].output == {"tone_score": 0.9, "completeness_score": 0.8}
    assert count(run_id, "promptAgent") == 2
    assert count(run_id, "getUserInput") == 1
