"""ERR: an error is an exception object again wherever it is read, and what is stored has no stack."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator import OrchestratorError, StepResult
from tests.parity.calls import calls, count
from tests.parity.flows import err
from tests.parity.harness import Harness

STACKS = {"stack", "stacktrace", "stack_trace", "traceback"}
IN_THIS_PROCESS = {"local", "celery-memory"}


def assert_timed(record: StepResult) -> None:
    """Both ends of a step are aware datetimes, in order, and whole milliseconds in JSON."""
    assert record.started_at is not None
    assert record.ended_at is not None
    assert record.started_at.tzinfo is not None
    assert datetime(2020, 1, 1, tzinfo=UTC) < record.started_at <= record.ended_at
    shown = record.to_dict()
    assert isinstance(shown["started_at"], int)
    assert isinstance(shown["ended_at"], int)


def keys_of(value: Any) -> Iterator[str]:
    """Yield every key at every depth of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)
    elif isinstance(value, list):
        for item in value:
            yield from keys_of(item)


def read_back(runtime: Harness, run_id: str) -> dict[str, Any]:
    """Return a stored run as JSON has it."""
    record = runtime.runs.get(run_id)
    assert record is not None
    return json.loads(json.dumps(record.to_dict()))


@pytest.mark.parity("ERR-01")
def test_an_exception_in_a_step_fails_the_run(runtime: Harness) -> None:
    """The run and the step's result both have the exception; the result has its times."""
    result = runtime.execute(err.err_01, {})

    assert result.status == "failed"
    assert isinstance(result.error, Exception)
    assert "Step execution failed" in str(result.error)
    assert result.input == {}
    record = result.steps["step1"]
    assert record.status == "failed"
    assert isinstance(record.error, Exception)
    assert str(record.error) == "Step execution failed"
    assert_timed(record)


@pytest.mark.parity("ERR-02")
def test_a_step_that_returns_nothing_succeeds(runtime: Harness) -> None:
    """Its result has its times and no output."""
    result = runtime.execute(err.err_02)

    assert result.status == "success"
    assert result.steps["step1"].status == "success"
    assert result.steps["step1"].output == {"data": "step1-data"}
    assert calls(result.run_id, "step2") == [{"data": "step1-data"}]
    assert result.steps["step2"].status == "success"
    assert result.steps["step2"].output is None
    assert_timed(result.steps["step2"])


@pytest.mark.parity("ERR-03")
def test_a_failing_step_of_a_parallel_keeps_the_results_of_the_others(runtime: Harness) -> None:
    """The step after the parallel does not run."""
    result = runtime.execute(err.err_03)

    assert result.status == "failed"
    assert result.steps["ok"].status == "success"
    assert result.steps["ok"].output == {"result": "ok"}
    assert result.steps["failing"].status == "failed"
    assert isinstance(result.steps["failing"].error, Exception)
    assert str(result.steps["failing"].error) == "Step execution failed"
    assert "step3" not in result.steps
    assert count(result.run_id, "step3") == 0


@pytest.mark.parity("ERR-04")
def test_an_error_keeps_its_attributes(runtime: Harness) -> None:
    """It is of its own class again, since that class is loaded."""
    result = runtime.execute(err.err_04)

    assert result.status == "failed"
    for error in (result.error, result.steps["step1"].error):
        assert isinstance(error, err.TooManyRequests)
        assert str(error) == "Rate limit exceeded"
        assert error.status_code == 429
        assert error.response_headers == {"retry-after": "60"}
        assert error.is_retryable is True


@pytest.mark.parity("ERR-05")
def test_an_error_keeps_its_code_and_its_details(runtime: Harness) -> None:
    """A class whose arguments are not its attributes comes back as well."""
    result = runtime.execute(err.err_05)

    assert result.status == "failed"
    assert result.steps["step1"].status == "failed"
    error = result.steps["step1"].error
    assert isinstance(error, err.Coded)
    assert str(error) == "Something is wrong"
    assert error.code == "E_WRONG"
    assert error.details == {"field": "name", "tried": [1, 2]}


@pytest.mark.parity("ERR-08")
def test_a_stored_error_is_read_by_name_message_and_attributes(runtime: Harness) -> None:
    """There is no stack in it."""
    runtime.execute(err.err_08, run_id="err-08-run")

    stored = read_back(runtime, "err-08-run")
    assert stored["status"] == "failed"
    error = stored["steps"]["step1"]["error"]
    assert error["message"] == "Internal server error"
    assert error["name"] == "Error"
    assert error["status_code"] == 500
    assert error["error_code"] == "INTERNAL_ERROR"
    assert STACKS.isdisjoint(error)


@pytest.mark.parity("ERR-09")
def test_a_failed_run_is_read_back_without_any_stack(runtime: Harness) -> None:
    """Neither the run nor any step has one, at any depth."""
    run_id = runtime.execute(err.err_09).run_id

    stored = read_back(runtime, run_id)
    assert stored["status"] == "failed"
    assert stored["steps"]["step1"]["status"] == "failed"
    assert stored["steps"]["step1"]["error"]["message"] == "Step execution failed"
    assert STACKS.isdisjoint(keys_of(stored))


@pytest.mark.parity("ERR-10")
def test_the_frameworks_own_error_passes_through_a_step_like_any_other(runtime: Harness) -> None:
    """It keeps message, code and details, and has no stack."""
    result = runtime.execute(err.err_10)

    error = result.steps["step1"].error
    assert isinstance(error, OrchestratorError)
    assert str(error) == "The framework says no"
    assert error.code == "ORCHESTRATOR_ERROR"
    assert error.details == {"workflow_id": "err-10", "run_id": result.run_id, "domain": "test"}
    stored = read_back(runtime, result.run_id)
    assert stored["steps"]["step1"]["error"]["message"] == "The framework says no"
    assert STACKS.isdisjoint(keys_of(stored))


@pytest.mark.parity("ERR-11")
def test_a_failing_step_is_logged_as_an_error(
    runtime: Harness, caplog: pytest.LogCaptureFixture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The line stands in the log of the process that ran it and names run, workflow and step."""
    with caplog.at_level(logging.ERROR, logger="orchestrator"):
        result = runtime.execute(err.err_11)

    assert result.status == "failed"
    if runtime.name in IN_THIS_PROCESS:
        lines = [line.getMessage() for line in caplog.records if belongs(line)]
    else:
        logs = tmp_path_factory.getbasetemp().glob("session-workers*/worker-*.log")
        lines = [line for log in logs for line in Path(log).read_text().splitlines() if ": ERROR/" in line]
    found = [line for line in lines if result.run_id in line]
    assert found, "no error of this run is logged"
    assert any("err-11" in line and "step1" in line for line in found), found


def belongs(line: logging.LogRecord) -> bool:
    """Tell whether a line of this process is an error under the project's logger."""
    return line.levelno == logging.ERROR and (line.name + ".").startswith("orchestrator.")


@pytest.mark.parity("ERR-12")
def test_a_workflow_that_never_ran_has_no_runs(runtime: Harness) -> None:
    """Listing them is no error."""
    page = runtime.runs.list(workflow="err-12")

    assert list(page.runs) == []
    assert page.total == 0
