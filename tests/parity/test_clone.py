"""CLONE: a copy under another id does what its original does."""

from __future__ import annotations

import pytest

from tests.parity.calls import count
from tests.parity.flows import clone
from tests.parity.harness import Harness


@pytest.mark.parity("CLONE-01")
def test_cloned_steps_and_workflows_run_under_their_new_ids(runtime: Harness) -> None:
    """Two nested workflows share a step and keep their results apart."""
    result = runtime.execute(clone.clones, {"startValue": 0})
    assert result.status == "success"
    expected = {"start": 2, "other": 1, "final": 1, "last": 1}
    assert {name: count(result.run_id, name) for name in expected} == expected
    assert result.steps["clone-nested-wf-a-clone"].status == "success"
    assert result.steps["clone-nested-wf-a-clone"].output == {"finalValue": 27}
    assert result.steps["clone-nested-wf-b"].status == "success"
    assert result.steps["clone-nested-wf-b"].output == {"finalValue": 1}
