"""ABT: a step may abort its run, and has a signal by which it hears of an abort."""

from __future__ import annotations

import pytest

from tests.parity.calls import count
from tests.parity.flows import abt
from tests.parity.harness import Harness


@pytest.mark.parity("ABT-01")
def test_a_step_has_an_abort_signal(runtime: Harness) -> None:
    """It is not set, can be waited for, and takes listeners."""
    result = runtime.execute(abt.abt_01, {})

    assert result.status == "success"
    assert result.steps["step1"].output == {"set": False, "waited": False, "listens": True}


@pytest.mark.parity("ABT-02")
def test_a_step_can_abort(runtime: Harness) -> None:
    """The context has the function for it."""
    result = runtime.execute(abt.abt_02, {})

    assert result.status == "success"
    assert result.steps["step1"].output == {"callable": True}


@pytest.mark.parity("ABT-03")
def test_a_step_that_aborts_cancels_its_run(runtime: Harness) -> None:
    """That it returns a value makes no difference: what follows is not called."""
    result = runtime.execute(abt.abt_03, {})

    assert result.status == "canceled"
    assert [count(result.run_id, step_id) for step_id in ("step1", "step2", "step3")] == [1, 1, 0]


@pytest.mark.parity("ABT-04")
def test_a_long_step_that_nobody_aborts_succeeds(runtime: Harness) -> None:
    """It is called once."""
    result = runtime.execute(abt.abt_04, {})

    assert result.status == "success"
    assert count(result.run_id, "step1") == 1


@pytest.mark.slow
@pytest.mark.parity("ABT-05")
def test_a_step_listens_for_an_abort_that_never_comes(runtime: Harness) -> None:
    """It takes its whole time."""
    result = runtime.execute(abt.abt_05, {})

    assert result.status == "success"
    assert result.steps["step2"].output == {"result": "completed"}
    assert count(result.run_id, "step1") == 1


@pytest.mark.parity("ABT-07")
def test_a_run_waits_until_somebody_decides(runtime: Harness) -> None:
    """The step after the suspended one is not called."""
    result = runtime.execute(abt.abt_07, {})

    assert result.status == "suspended"
    assert result.steps["step2"].status == "suspended"
    assert result.steps["step2"].suspend_payload == {"reason": "waiting for approval"}
    assert count(result.run_id, "step3") == 0
