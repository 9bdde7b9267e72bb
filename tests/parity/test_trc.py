"""TRC: every step has a span, real or one that records nothing."""

from __future__ import annotations

import pytest

from orchestrator import Context, step
from tests.parity.calls import names
from tests.parity.flows import trc
from tests.parity.harness import Harness


@pytest.mark.parity("TRC-01")
def test_a_step_has_a_span(runtime: Harness) -> None:
    """It takes attributes and events, whether or not anybody records them."""
    result = runtime.execute(trc.trc_01)

    assert result.status == "success"
    assert result.steps["step1"].output == {"result": "step1"}
    assert names(result.run_id) == ["step1"]


@pytest.mark.parity("TRC-02")
def test_a_step_that_uses_the_span_can_be_made(runtime: Harness) -> None:
    """The step is never run; its use of the span is not looked at."""

    @step(id="traced")
    def traced(ctx: Context) -> str:
        with ctx.span as span:
            return str(span.get_span_context())

    assert traced.id == "traced"


@pytest.mark.parity("TRC-03")
def test_every_step_has_a_span_in_its_turn(runtime: Harness) -> None:
    """Both see one, in order."""
    result = runtime.execute(trc.trc_03)

    assert result.status == "success"
    assert names(result.run_id) == ["step1", "step2"]
