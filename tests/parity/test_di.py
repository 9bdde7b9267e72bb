"""DI: the request context travels with the run, and what steps change in it stays changed."""

from __future__ import annotations

import pytest

from tests.parity.calls import calls
from tests.parity.flows import di
from tests.parity.harness import Harness


@pytest.mark.parity("DI-01")
def test_there_is_always_a_request_context(runtime: Harness) -> None:
    """Also where the caller gave none."""
    result = runtime.execute(di.di_01)

    assert result.status == "success"
    assert result.steps["step1"].output == {"present": True}


@pytest.mark.parity("DI-02")
def test_a_later_step_reads_what_an_earlier_one_put_into_the_request_context(runtime: Harness) -> None:
    """The step that put it there reads it as well."""
    result = runtime.execute(di.di_02)

    assert result.status == "success"
    assert result.steps["step1"].output == {"read": "test-value"}
    assert result.steps["step2"].output == {"read": "test-value"}


@pytest.mark.parity("DI-03")
def test_a_key_removed_after_a_resume_stays_removed(runtime: Harness) -> None:
    """The resumed step still found it: it was kept over the suspension."""
    started = runtime.execute(di.di_03, {"value": 0})
    assert started.status == "suspended"

    resumed = runtime.resume(di.di_03, started.run_id, {"value": 21}, step="resume")

    assert resumed.status == "success"
    assert calls(started.run_id, "before removal") == ["test-value"]
    assert resumed.steps["final"].output == {"read": None, "present": False}


@pytest.mark.parity("DI-05")
def test_a_key_given_at_the_start_is_there_after_a_resume(runtime: Harness) -> None:
    """The caller that resumes does not give it again."""
    started = runtime.execute(di.di_05, request_context={"injectedKey": "injected-value"})
    assert started.status == "suspended"

    resumed = runtime.resume(di.di_05, started.run_id, {})

    assert resumed.status == "success"
    assert resumed.steps["step1"].output == {"read": "injected-value"}
