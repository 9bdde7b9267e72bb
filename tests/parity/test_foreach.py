"""FOREACH: a list of items through one body, in order, as many at a time as is allowed, with progress on the stream."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from orchestrator import RunResult
from tests.parity.calls import calls, count, peak
from tests.parity.flows import foreach
from tests.parity.harness import Harness

VALUES = [{"value": 1}, {"value": 22}, {"value": 333}]
MAPPED = [{"value": 12}, {"value": 33}, {"value": 344}]
PROGRESS = "workflow-step-progress"


def assert_mapped(result: RunResult) -> None:
    """Check the outputs of the body and of the step after it."""
    assert result.status == "success"
    assert result.input == VALUES
    body = result.steps["map"]
    assert body.status == "success"
    assert body.output == MAPPED
    assert isinstance(body.started_at, datetime)
    assert isinstance(body.ended_at, datetime)
    assert result.steps["final"].status == "success"
    assert result.steps["final"].output == {"finalValue": 389}


@pytest.mark.parity("FOREACH-01")
def test_items_run_one_after_the_other_by_default(runtime: Harness) -> None:
    """Three items of a second each take nearly three seconds at least."""
    began = time.monotonic()
    result = runtime.execute(foreach.one_at_a_time, VALUES)
    took = time.monotonic() - began
    assert_mapped(result)
    assert took > 2.8


@pytest.mark.parity("FOREACH-02")
def test_items_run_at_the_same_time_where_that_is_allowed(runtime: Harness) -> None:
    """Three items of a second each take less than two seconds, and their outputs keep the order of the input."""
    began = time.monotonic()
    result = runtime.execute(foreach.three_at_a_time, VALUES)
    took = time.monotonic() - began
    assert_mapped(result)
    assert took < 2


@pytest.mark.parity("FOREACH-03")
def test_the_limit_of_concurrency_is_reached_and_never_exceeded(runtime: Harness) -> None:
    """Of four items exactly two run at the same time."""
    result = runtime.execute(foreach.two_at_a_time, [{"value": number} for number in (1, 2, 3, 4)])
    assert result.status == "success"
    assert peak(result.run_id, "map") == 2
    assert result.steps["map"].output == [{"value": number} for number in (12, 13, 14, 15)]
    assert result.steps["final"].output == {"finalValue": 54}


@pytest.mark.parity("FOREACH-04")
def test_an_empty_list_is_done_at_once(runtime: Harness) -> None:
    """The body is a success with an empty list, which the next step gets."""
    result = runtime.execute(foreach.over_nothing, [])
    assert result.status == "success"
    assert count(result.run_id, "map") == 0
    assert result.steps["map"].status == "success"
    assert result.steps["map"].output == []
    assert calls(result.run_id, "final") == [[]]
    assert result.steps["final"].output == {"count": 0}


@pytest.mark.parity("FOREACH-05")
def test_the_list_may_be_the_output_of_a_step(runtime: Harness) -> None:
    """With validation on, items and lists come back as the declared types."""
    result = runtime.execute(foreach.over_an_output, {"count": 3})
    assert result.status == "success"
    assert result.steps["generate"].output == [foreach.Value(value=number) for number in (1, 2, 3)]
    assert result.steps["transform"].output == [foreach.Doubled(doubled=number) for number in (2, 4, 6)]
    assert result.steps["sum"].output == foreach.Total(total=12)


@pytest.mark.parity("FOREACH-07")
def test_bail_in_an_item_ends_the_run_with_the_bailed_value(runtime: Harness) -> None:
    """The value is the result as it is, and the state that earlier items wrote is kept."""
    result = runtime.execute(foreach.bailing, [1, 2, 3, 4], state={"output": 0})
    assert result.status == "success"
    assert result.state["output"] == 2
    assert result.result == [15]
    assert calls(result.run_id, "map") == [1, 2, 3]


@pytest.mark.parity("FOREACH-09")
def test_every_finished_item_is_one_progress_event(runtime: Harness) -> None:
    """One after the other, counted, and named by the body's id."""
    streamed = runtime.stream(foreach.with_progress, VALUES)
    progress = [event.payload for event in streamed.of_type(PROGRESS)]
    assert len(progress) == 3
    for index, payload in enumerate(progress):
        assert payload["id"] == "map"
        assert payload["completed_count"] == index + 1
        assert payload["total_count"] == 3
        assert payload["current_index"] == index
        assert payload["iteration_status"] == "success"
    assert_mapped(streamed.result)


@pytest.mark.parity("FOREACH-11")
def test_a_failing_item_is_a_progress_event_too(runtime: Harness) -> None:
    """The item before it succeeded, the one after it does not run, and the run fails."""
    streamed = runtime.stream(foreach.failing, VALUES)
    progress = [event.payload for event in streamed.of_type(PROGRESS)]
    assert progress
    first = progress[0]
    assert (first["completed_count"], first["total_count"]) == (1, 3)
    assert (first["current_index"], first["iteration_status"]) == (0, "success")
    assert any(payload["iteration_status"] == "failed" and payload["current_index"] == 1 for payload in progress)
    assert streamed.result.status == "failed"
    assert calls(streamed.result.run_id, "map") == [1, 22]
