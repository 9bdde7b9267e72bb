"""VAR: what a step is given, how values are mapped, and what templates make of them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import GraphInvalid, RunResult, Workflow, template
from tests.parity.calls import calls
from tests.parity.flows import var
from tests.parity.harness import Harness


def mapped(result: RunResult) -> dict[str, Any]:
    """Return the output of the only map whose id was generated."""
    [found] = [record for step_id, record in result.steps.items() if step_id.startswith("mapping_")]
    assert found.status == "success"
    return found.output


@pytest.mark.parity("VAR-01")
def test_an_input_key_may_be_called_input(runtime: Harness) -> None:
    """Two steps share one function, and the run's input has a key named like the argument."""
    result = runtime.execute(var.var_01, {"input": "test-input"})

    assert result.status == "success"
    for step_id in ("step1", "step2"):
        assert result.steps[step_id].status == "success"
        assert result.steps[step_id].output == {"result": "success"}


@pytest.mark.parity("VAR-02")
def test_a_step_reads_an_earlier_result_by_object_and_by_id(runtime: Harness) -> None:
    """A step that is not in the run has no result, which is None and no error."""
    result = runtime.execute(var.var_02)

    assert result.steps["step1"].status == "success"
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output == {
        "by_object": {"value": "step1-result"},
        "by_id": {"value": "step1-result"},
        "stranger": None,
        "unknown_id": None,
    }


@pytest.mark.parity("VAR-03")
def test_the_first_step_gets_the_whole_run_input(runtime: Harness) -> None:
    """The argument and `ctx.input` are the same whole dict."""
    result = runtime.execute(var.var_03, {"input": "test-input"})

    assert result.status == "success"
    assert calls(result.run_id, "argument") == [{"input": "test-input"}]
    assert calls(result.run_id, "context") == [{"input": "test-input"}]


@pytest.mark.parity("VAR-04")
def test_a_later_step_reads_the_run_input(runtime: Harness) -> None:
    """`ctx.init_data` is the run's input in every step."""
    result = runtime.execute(var.var_04, {"cool": "test-input"})

    assert calls(result.run_id, "argument") == [{"cool": "test-input"}]
    assert result.steps["step2"].output == {"result": {"cool": "test-input"}}


@pytest.mark.parity("VAR-05")
def test_a_map_takes_a_value_at_a_path_of_an_earlier_step(runtime: Harness) -> None:
    """The mapped dict is the next step's input."""
    result = runtime.execute(var.var_05)

    assert result.status == "success"
    assert calls(result.run_id, "step2") == [{"previous_value": "step1-data"}]


@pytest.mark.parity("VAR-06")
def test_a_step_may_return_a_bare_string(runtime: Harness) -> None:
    """The next step gets the string itself."""
    result = runtime.execute(var.var_06)

    assert result.status == "success"
    assert result.steps["step1"].output == "step1-data"
    assert result.steps["step2"].output == {"result": "success", "input": "step1-data"}


@pytest.mark.parity("VAR-07")
def test_a_step_may_return_a_list(runtime: Harness) -> None:
    """The next step gets the list itself."""
    result = runtime.execute(var.var_07)

    assert result.status == "success"
    assert result.steps["step1"].output == [{"str": "step1-data"}]
    assert result.steps["step2"].output == {"result": "success", "input": [{"str": "step1-data"}]}


@pytest.mark.parity("VAR-08")
def test_an_empty_list_and_zero_are_constants_like_any_other(runtime: Harness) -> None:
    """A falsy constant is not a missing one."""
    result = runtime.execute(var.var_08)

    assert result.steps["step2"].output == {"result": "none", "second": 0}


@pytest.mark.parity("VAR-10")
def test_a_map_takes_values_from_run_input_and_request_context(runtime: Harness) -> None:
    """Neither has to pass through the steps before."""
    result = runtime.execute(var.var_10, {"cool": "test-input"}, request_context={"life": 42})

    assert result.steps["step2"].output == {"result": "test-input", "second": 42}


@pytest.mark.parity("VAR-11")
def test_a_map_takes_values_from_functions(runtime: Harness) -> None:
    """A function sees the data or the context, like a step."""
    result = runtime.execute(var.var_11, {"cool": "test-input"})

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "test-input", "second": "Hello success"}
    assert result.result == {"result": "test-input", "second": "success"}


@pytest.mark.parity("VAR-13")
def test_a_template_fills_in_strings_and_integers(runtime: Harness) -> None:
    """The literal text around them stays, non-ASCII included."""
    result = runtime.execute(var.var_13)

    assert result.status == "success"
    assert mapped(result) == {"text": "In Oslo it is 22 °C."}


@pytest.mark.parity("VAR-14")
def test_a_template_reads_input_state_context_and_run_input(runtime: Harness) -> None:
    """State is what the step before has set, over the default of the state's model."""
    result = runtime.execute(var.var_14, {"city": "Helsinki"}, request_context={"user_id": "tony"})

    assert result.status == "success"
    assert mapped(result) == {"line": "Helsinki | cheerful | analyzing | tony"}


@pytest.mark.parity("VAR-15")
def test_a_template_reads_a_step_further_back(runtime: Harness) -> None:
    """The step's id may contain a hyphen."""
    assert mapped(runtime.execute(var.var_15)) == {"text": "It is deep"}


@pytest.mark.parity("VAR-16")
def test_none_in_a_template_is_nothing(runtime: Harness) -> None:
    """The brackets around it stay, empty."""
    result = runtime.execute(var.var_16)

    assert result.status == "success"
    assert mapped(result) == {"text": "x []"}


@pytest.mark.parity("VAR-17")
def test_a_dict_in_a_template_is_compact_json(runtime: Harness) -> None:
    """There is no blank after colon and comma."""
    result = runtime.execute(var.var_17)

    assert result.status == "success"
    assert mapped(result) == {"text": '{"a":1,"b":2}'}


@pytest.mark.parity("VAR-18")
def test_a_template_that_names_an_unknown_step_fails_the_run(runtime: Harness) -> None:
    """The definition is accepted; the error of the run says which step was meant."""
    result = runtime.execute(var.var_18)

    assert result.status == "failed"
    assert "steps.nonexistent" in str(result.error)


@pytest.mark.parity("VAR-19")
def test_an_empty_template_is_an_empty_string(runtime: Harness) -> None:
    """It is a value like any other."""
    result = runtime.execute(var.var_19)

    assert result.status == "success"
    assert mapped(result) == {"text": ""}


@pytest.mark.parity("VAR-20")
def test_a_template_without_placeholders_is_its_text(runtime: Harness) -> None:
    result = runtime.execute(var.var_20)

    assert result.status == "success"
    assert mapped(result) == {"text": "no placeholder at all"}


@pytest.mark.parity("VAR-21")
def test_placeholders_may_touch_each_other_and_the_ends(runtime: Harness) -> None:
    """Nothing around them is lost."""
    result = runtime.execute(var.var_21)

    assert result.status == "success"
    assert mapped(result) == {"both": "AB", "start": "A at the start", "end": "at the end B"}


@pytest.mark.parity("VAR-22")
def test_a_lone_dollar_sign_is_text(runtime: Harness) -> None:
    """A placeholder after it still works."""
    result = runtime.execute(var.var_22)

    assert result.status == "success"
    assert mapped(result) == {"text": "It costs $5 for A"}


@pytest.mark.parity("VAR-23")
def test_a_number_in_a_path_is_an_index(runtime: Harness) -> None:
    """The path goes on inside the item."""
    result = runtime.execute(var.var_23)

    assert result.status == "success"
    assert mapped(result) == {"text": "first"}


@pytest.mark.parity("VAR-25")
def test_a_long_template_is_not_cut(runtime: Harness) -> None:
    """The graph may show a shortened text; the map makes the whole one."""
    result = runtime.execute(var.var_25)

    assert result.status == "success"
    text = mapped(result)["text"]
    assert len(text) > 1000
    assert text.endswith("value=A")


def map_with(text: str) -> Workflow:
    """Return a workflow with one map of this template, not committed."""
    return Workflow("template-at-definition").then(var.stringy).map({"text": template(text)})


@pytest.mark.parity("VAR-26")
def test_blanks_inside_a_placeholder_are_refused(runtime: Harness) -> None:
    """The map itself says so, long before a run."""
    with pytest.raises((GraphInvalid, ValueError), match="whitespace-padded"):
        map_with("hello ${ input.a }")


@pytest.mark.parity("VAR-27")
def test_an_empty_placeholder_is_refused(runtime: Harness) -> None:
    """The map itself says so, long before a run."""
    with pytest.raises((GraphInvalid, ValueError), match="empty or whitespace-padded"):
        map_with("a${}b")


@pytest.mark.parity("VAR-28")
def test_an_unknown_scope_is_refused(runtime: Harness) -> None:
    """The map itself says so, by the scope's name."""
    with pytest.raises((GraphInvalid, ValueError), match='unknown namespace "nope"'):
        map_with("${nope.a}")


@pytest.mark.parity("VAR-29")
def test_a_step_without_a_path_is_its_whole_output(runtime: Harness) -> None:
    """The definition is accepted."""
    assert map_with("${steps.stringy}").commit().committed


@pytest.mark.parity("VAR-30")
def test_a_step_placeholder_without_an_id_is_refused(runtime: Harness) -> None:
    """The message shows how it is written."""
    with pytest.raises((GraphInvalid, ValueError), match=r"steps\.<id>"):
        map_with("${steps.}")
