"""SCHEMA: what does not fit is refused with its place, and what is missing gets its default."""

from __future__ import annotations

import pytest

from orchestrator import InputInvalid
from tests.parity.calls import count
from tests.parity.flows import schema
from tests.parity.harness import Harness


def places(error: BaseException | None) -> list[tuple[str, str]]:
    """Return the dotted path and the kind of each problem."""
    assert isinstance(error, InputInvalid)
    return [(issue.path, issue.kind) for issue in error.issues]


@pytest.mark.parity("SCHEMA-01")
def test_a_run_input_that_does_not_fit_raises_to_the_caller(runtime: Harness) -> None:
    """The message has a header and one line per problem, each with its dotted path; nothing runs."""
    with pytest.raises(InputInvalid) as refused:
        runtime.execute(
            schema.schema_01, {"required": "test", "nested": {"value": "not-a-number"}}, run_id="schema-01-run"
        )

    assert str(refused.value).startswith("Invalid input data: \n- nested.value: ")
    assert places(refused.value) == [("nested.value", "int_parsing")]
    assert count("schema-01-run", "step1") == 0


@pytest.mark.parity("SCHEMA-02")
def test_a_missing_part_of_the_run_input_gets_its_default(runtime: Harness) -> None:
    """The step, its output and the run's result all have it."""
    result = runtime.execute(schema.schema_02, {"required": "test"})

    assert result.status == "success"
    assert result.steps["step1"].output == {"required": "test", "nested": {"value": 1}}
    assert result.result == {"required": "test", "nested": {"value": 1}}


@pytest.mark.parity("SCHEMA-03")
def test_a_number_is_not_taken_for_text_in_the_run_input(runtime: Harness) -> None:
    """It is refused before the first of the steps runs."""
    with pytest.raises(InputInvalid) as refused:
        runtime.execute(schema.schema_03, {"start": 123}, run_id="schema-03-run")

    assert str(refused.value).startswith("Invalid input data: \n- start: ")
    assert places(refused.value) == [("start", "string_type")]
    assert count("schema-03-run", "step1") == 0


@pytest.mark.parity("SCHEMA-04")
def test_a_step_gets_the_default_of_a_field_that_the_step_before_does_not_give(runtime: Harness) -> None:
    """The key that it does give, and the step does not know, is dropped."""
    result = runtime.execute(schema.schema_04)

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "default-value-processed"}


@pytest.mark.parity("SCHEMA-06")
def test_a_function_map_after_a_foreach_gets_the_list(runtime: Harness) -> None:
    """It is not checked against what the body takes, one item."""
    result = runtime.execute(schema.schema_06, [{"value": 1}, {"value": 22}, {"value": 333}])

    assert result.status == "success"
    assert count(result.run_id, "map") == 3
    assert result.steps["map"].status == "success"
    assert result.steps["map"].output == [schema.Number(value=value) for value in (12, 33, 344)]
    assert result.steps["map-step"].output == {"input_value": 389}
    assert result.steps["final"].output == {"final_value": 389}


@pytest.mark.parity("SCHEMA-07")
def test_a_step_input_that_does_not_fit_fails_the_run(runtime: Harness) -> None:
    """The caller gets a result, whose error names the place."""
    result = runtime.execute(schema.schema_07, {"start": 2})

    assert result.status == "failed"
    assert "Step input validation failed" in str(result.error)
    assert "start: " in str(result.error)
    assert places(result.error) == [("start", "string_type")]
    assert places(result.steps["step2"].error) == [("start", "string_type")]
    assert count(result.run_id, "step2") == 0


@pytest.mark.parity("SCHEMA-09")
def test_the_error_of_a_step_input_lists_every_problem(runtime: Harness) -> None:
    """Two missing fields are two problems."""
    result = runtime.execute(schema.schema_09, {})

    assert result.status == "failed"
    assert "Step input validation failed" in str(result.error)
    assert places(result.error) == [("required_field", "missing"), ("number_field", "missing")]
    assert count(result.run_id, "step1") == 0
