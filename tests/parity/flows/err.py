"""Workflows of the catalogue's ERR entries, and the exceptions that their steps raise."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, OrchestratorError, Workflow, from_step, step
from tests.parity.calls import note


class TooManyRequests(Exception):
    """An answer of a service, with what it said."""

    def __init__(self, message: str, *, status_code: int, response_headers: dict[str, str], is_retryable: bool) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response_headers = response_headers
        self.is_retryable = is_retryable


class Coded(Exception):
    """An error with a code and details."""

    def __init__(self, message: str, code: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Error(Exception):
    """An error named as plainly as can be."""

    def __init__(self, message: str, status_code: int, error_code: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.error_code = error_code


@step(id="step1")
def fail(ctx: Context) -> None:
    """Fail."""
    note(ctx, "step1")
    raise RuntimeError("Step execution failed")


err_01 = Workflow("err-01").then(fail).commit()
err_09 = Workflow("err-09").then(fail).commit()
err_11 = Workflow("err-11").then(fail).commit()
err_12 = Workflow("err-12").then(fail).commit()


@step(id="step1")
def give_data() -> dict[str, str]:
    """Return what is mapped."""
    return {"data": "step1-data"}


@step(id="step2")
def return_nothing(data: dict[str, str], ctx: Context) -> None:
    """Note the input and return nothing."""
    note(ctx, "step2", data)


err_02 = Workflow("err-02").then(give_data).map({"data": from_step(give_data, "data")}).then(return_nothing).commit()


@step(id="ok")
def go_well() -> dict[str, str]:
    """Finish beside a step that fails."""
    return {"result": "ok"}


@step(id="failing")
def fail_beside() -> None:
    """Fail beside a step that finishes."""
    raise RuntimeError("Step execution failed")


@step(id="step3")
def never_reached(ctx: Context) -> None:
    """Note the call that must not happen."""
    note(ctx, "step3")


err_03 = Workflow("err-03").parallel(go_well, fail_beside).then(never_reached).commit()


@step(id="step1")
def exceed_the_rate() -> None:
    """Fail as a service's client does."""
    raise TooManyRequests(
        "Rate limit exceeded", status_code=429, response_headers={"retry-after": "60"}, is_retryable=True
    )


err_04 = Workflow("err-04").then(exceed_the_rate).commit()


@step(id="step1")
def fail_with_code() -> None:
    """Fail with a code and details."""
    raise Coded("Something is wrong", "E_WRONG", {"field": "name", "tried": [1, 2]})


err_05 = Workflow("err-05").then(fail_with_code).commit()


@step(id="step1")
def fail_inside() -> None:
    """Fail with two attributes."""
    raise Error("Internal server error", 500, "INTERNAL_ERROR")


err_08 = Workflow("err-08").then(fail_inside).commit()


@step(id="step1")
def fail_as_the_framework_does(ctx: Context) -> None:
    """Fail with the framework's own class of errors."""
    raise OrchestratorError("The framework says no", workflow_id=ctx.workflow_id, run_id=ctx.run_id, domain="test")


err_10 = Workflow("err-10").then(fail_as_the_framework_does).commit()
