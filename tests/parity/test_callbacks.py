"""CB: callbacks are called once, awaited, and told all about the run, wherever it ended."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import RunResult
from tests.parity.calls import calls, count
from tests.parity.flows import callbacks
from tests.parity.harness import Harness


def told(result: RunResult, callback: str) -> dict[str, Any]:
    """Return what the one call of a callback saw."""
    (info,) = calls(result.run_id, callback)
    return dict(info)


@pytest.mark.parity("CB-01")
def test_on_finish_is_called_once_after_success(runtime: Harness) -> None:
    """The run succeeds and on_finish has been called when the result is there."""
    result = runtime.execute(callbacks.finish_of_success, {})
    assert result.status == "success"
    assert count(result.run_id, "on_finish") == 1


@pytest.mark.parity("CB-02")
def test_on_error_is_called_once_after_failure(runtime: Harness) -> None:
    """The failure is returned, not raised."""
    result = runtime.execute(callbacks.error_of_failure, {})
    assert result.status == "failed"
    assert count(result.run_id, "on_error") == 1


@pytest.mark.parity("CB-03")
def test_on_finish_is_told_the_status(runtime: Harness) -> None:
    """It is the status that the caller gets."""
    result = runtime.execute(callbacks.finish_of_success, {})
    assert told(result, "on_finish")["status"] == "success"


@pytest.mark.parity("CB-04")
def test_on_error_is_not_called_after_success(runtime: Harness) -> None:
    """A successful run has no error to tell of."""
    result = runtime.execute(callbacks.error_of_success, {})
    assert result.status == "success"
    assert count(result.run_id, "on_error") == 0


@pytest.mark.parity("CB-05")
def test_both_callbacks_are_called_after_failure(runtime: Harness) -> None:
    """A failed run has finished too."""
    result = runtime.execute(callbacks.both_of_failure, {})
    assert result.status == "failed"
    assert count(result.run_id, "on_finish") == 1
    assert count(result.run_id, "on_error") == 1


@pytest.mark.parity("CB-06")
def test_an_async_on_finish_is_awaited(runtime: Harness) -> None:
    """Its work after a pause is done when the result is there."""
    result = runtime.execute(callbacks.slow_finish, {})
    assert result.status == "success"
    assert count(result.run_id, "on_finish") == 1
    assert count(result.run_id, "flag") == 1


@pytest.mark.parity("CB-07")
def test_an_async_on_error_is_awaited(runtime: Harness) -> None:
    """Its work after a pause is done when the result is there."""
    result = runtime.execute(callbacks.slow_error, {})
    assert result.status == "failed"
    assert count(result.run_id, "on_error") == 1
    assert count(result.run_id, "flag") == 1


@pytest.mark.parity("CB-08")
def test_on_finish_is_told_the_run_id(runtime: Harness) -> None:
    """An id that the caller chose is passed on."""
    result = runtime.execute(callbacks.finish_of_success, {}, run_id="cb-08-custom-run-id")
    assert result.run_id == "cb-08-custom-run-id"
    assert told(result, "on_finish")["run_id"] == "cb-08-custom-run-id"


@pytest.mark.parity("CB-09")
def test_on_finish_is_told_the_workflow_id(runtime: Harness) -> None:
    """It is the id of the definition."""
    result = runtime.execute(callbacks.finish_of_success, {})
    assert told(result, "on_finish")["workflow_id"] == callbacks.finish_of_success.id


@pytest.mark.parity("CB-10")
def test_on_finish_is_told_the_state(runtime: Harness) -> None:
    """The step's writes are in it."""
    result = runtime.execute(callbacks.finish_with_state, {}, state={"counter": 0})
    assert result.status == "success"
    assert told(result, "on_finish")["counter"] == 1


@pytest.mark.parity("CB-11")
def test_on_finish_is_told_the_resource_id(runtime: Harness) -> None:
    """It is the one the run was created with."""
    result = runtime.execute(callbacks.finish_of_success, {}, resource_id="cb-resource")
    assert told(result, "on_finish")["resource_id"] == "cb-resource"


@pytest.mark.parity("CB-12")
def test_on_error_is_told_the_run_id(runtime: Harness) -> None:
    """An id that the caller chose is passed on."""
    result = runtime.execute(callbacks.error_of_failure, {}, run_id="cb-12-custom-run-id")
    assert result.status == "failed"
    assert told(result, "on_error")["run_id"] == "cb-12-custom-run-id"


@pytest.mark.parity("CB-14")
def test_on_finish_is_called_when_the_run_suspends(runtime: Harness) -> None:
    """The status it is told is suspended."""
    result = runtime.execute(callbacks.finish_of_suspension, {})
    assert result.status == "suspended"
    assert told(result, "on_finish")["status"] == "suspended"


@pytest.mark.parity("CB-15")
def test_on_finish_is_told_the_input_of_the_run(runtime: Harness) -> None:
    """It arrives as it was given."""
    result = runtime.execute(callbacks.finish_of_success, {"userId": "user-123"})
    assert told(result, "on_finish")["init_data"] == {"userId": "user-123"}


@pytest.mark.parity("CB-17")
def test_on_finish_has_a_logger(runtime: Harness) -> None:
    """Its methods can be called."""
    result = runtime.execute(callbacks.finish_of_success, {})
    assert told(result, "on_finish")["logger"] is True


@pytest.mark.parity("CB-18")
def test_on_error_has_a_logger(runtime: Harness) -> None:
    """Its methods can be called."""
    result = runtime.execute(callbacks.error_of_failure, {})
    assert told(result, "on_error")["logger"] is True


@pytest.mark.parity("CB-19")
def test_on_finish_has_the_request_context(runtime: Harness) -> None:
    """A key given at start can be read from it."""
    result = runtime.execute(callbacks.finish_of_success, {}, request_context={"customKey": "customValue"})
    assert told(result, "on_finish")["custom_key"] == "customValue"


@pytest.mark.parity("CB-21")
def test_on_finish_has_the_orchestrator(runtime: Harness) -> None:
    """It can start and look up other runs."""
    result = runtime.execute(callbacks.finish_of_success, {})
    assert told(result, "on_finish")["orchestrator"] is True


@pytest.mark.parity("CB-22")
def test_on_error_has_the_orchestrator(runtime: Harness) -> None:
    """It can start and look up other runs."""
    result = runtime.execute(callbacks.error_of_failure, {})
    assert told(result, "on_error")["orchestrator"] is True


@pytest.mark.parity("CB-24")
def test_on_error_is_told_the_state_written_before_the_failure(runtime: Harness) -> None:
    """A later failure does not take the state of an earlier step back."""
    result = runtime.execute(callbacks.error_with_state, {})
    assert result.status == "failed"
    assert told(result, "on_error")["counter"] == 10
