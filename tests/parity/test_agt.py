"""AGT: a step that does what an agent would is a step like any other, alone, nested and cloned."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from tests.parity.flows import agt
from tests.parity.harness import Harness


@pytest.mark.parity("AGT-01")
def test_an_agent_like_step_answers(runtime: Harness) -> None:
    """Its text is its output."""
    result = runtime.execute(agt.agt_01, {"prompt": "Hello, world!"})

    assert result.status == "success"
    assert result.steps["agent-like-step"].output == {"text": "Processed: Hello, world!"}


@pytest.mark.parity("AGT-02")
def test_an_agent_like_step_stands_between_two_others(runtime: Harness) -> None:
    """Each works on what the one before said."""
    result = runtime.execute(agt.agt_02, {"question": "why?"})

    assert result.status == "success"
    assert result.steps["prepare"].output == {"prompt": "Question: why?"}
    assert result.steps["agent-like-step"].output == {"text": "Processed: Question: why?"}
    assert result.steps["post-process"].output == {"text": "PROCESSED: QUESTION: WHY?"}


@pytest.mark.parity("AGT-03")
def test_an_agent_like_step_fails_with_its_message(runtime: Harness) -> None:
    """The step before keeps its result."""
    result = runtime.execute(agt.agt_03, {"question": "why?"})

    assert result.status == "failed"
    assert result.steps["prepare"].status == "success"
    assert result.steps["agent-like-step"].status == "failed"
    assert isinstance(result.steps["agent-like-step"].error, Exception)
    assert str(result.steps["agent-like-step"].error) == "Agent generation failed"


@pytest.mark.parity("AGT-04")
def test_two_nested_agents_run_side_by_side(runtime: Harness) -> None:
    """The next step gets both outputs by the nested workflows' ids."""
    result = runtime.execute(agt.agt_04, {"prompt_a": "one", "prompt_b": "two"})

    assert result.status == "success"
    for step_id in ("start", "nested-a", "nested-b", "final"):
        assert result.steps[step_id].status == "success"
    assert result.steps["nested-a"].output == {"text": "A: one"}
    assert result.steps["nested-b"].output == {"text": "B: two"}
    assert result.steps["final"].output == {"text": "A: one | B: two"}


@pytest.mark.parity("AGT-05")
def test_a_nested_agent_stands_between_two_steps(runtime: Harness) -> None:
    """Its text passes through."""
    result = runtime.execute(agt.agt_05, {"question": "why?"})

    assert result.status == "success"
    for step_id in ("prepare", "nested-agent", "post"):
        assert result.steps[step_id].status == "success"
    assert result.steps["nested-agent"].output == {"text": "Processed: Question: why?"}
    assert result.steps["post"].output == {"text": "Processed: Question: why?"}


@pytest.mark.parity("AGT-07")
def test_options_in_the_input_reach_the_step_unchanged(runtime: Harness) -> None:
    """Numbers stay numbers."""
    options = {"temperature": 0.7, "max_tokens": 100, "instructions": "Be brief."}

    result = runtime.execute(agt.agt_07, {"prompt": "Hello", **options})

    assert result.status == "success"
    assert result.steps["agent-like-step"].output == {"text": "Hello", "options": options}


@pytest.mark.parity("AGT-09")
def test_a_nested_workflow_reads_the_outer_ones_input_and_leaves_no_trace_of_itself(runtime: Harness) -> None:
    """Its result has what every result has, and nothing more."""
    prompts = {"prompt_a": "Capital of France, just the name", "prompt_b": "Capital of UK, just the name"}

    result = runtime.execute(agt.agt_09, prompts)

    assert result.status == "success"
    assert result.steps["nested-workflow"].to_dict() == {
        "status": "success",
        "output": {"text": "Paris London"},
        "payload": prompts,
        "started_at": ANY,
        "ended_at": ANY,
    }
