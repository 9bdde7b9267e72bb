"""RUNCOUNT: a step knows how often it was tried before."""

from __future__ import annotations

import pytest

from tests.parity.calls import calls
from tests.parity.flows import runcount
from tests.parity.harness import Harness


@pytest.mark.parity("RUNCOUNT-01")
def test_the_first_attempt_of_a_step_has_no_retries_behind_it(runtime: Harness) -> None:
    """Both steps are called once."""
    result = runtime.execute(runcount.runcount_01)

    assert result.status == "success"
    assert calls(result.run_id, "step1") == [0]
    assert calls(result.run_id, "step2") == [0]
