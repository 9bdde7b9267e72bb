"""The same step or workflow under another id."""

from __future__ import annotations

import pytest

from orchestrator import FlowNotDefined, Workflow, clone_step, clone_workflow, step
from tests.definitions.models import Approval, Order, Receipt, always, charge, reserve


def test_a_cloned_step_differs_in_its_id_alone() -> None:
    """The original stays as it is."""
    original = step(reserve.fn, retries=3, queue="q", description="Said.")
    clone = clone_step(original, id="other")
    assert (clone.id, original.id) == ("other", "reserve")
    assert (clone.fn, clone.retries, clone.queue, clone.description) == (reserve.fn, 3, "q", "Said.")
    assert (clone.input, clone.output) == (original.input, original.output)
    assert clone(Order(sku="a")) == reserve(Order(sku="a"))


def test_a_cloned_workflow_keeps_flow_options_and_commitment() -> None:
    """Generated ids follow the new id."""
    options = {"version": "2", "retries": 3, "retry_delay": 1.0, "validate_inputs": False, "auto_restart": False}
    more = {"emit_step_events": False, "inline": True, "description": "Said.", "on_start": always, "on_error": len}
    original = Workflow("w", input=Order, output=Receipt, state=Approval, on_finish=always, **options, **more)  # type: ignore[arg-type]
    original.then(reserve).map(always).then(charge).commit()
    clone = clone_workflow(original, id="v")
    assert (clone.id, clone.committed, clone.compiled.id) == ("v", True, "v")
    assert list(clone.steps) == ["reserve", "mapping_v_0", "charge"]
    assert (clone.input, clone.output, clone.state, clone.on_finish) == (Order, Receipt, Approval, always)
    for name, value in (options | more).items():
        assert getattr(clone, name) == value


def test_a_clone_changes_independently() -> None:
    """Neither sees what is added to the other."""
    original = Workflow("w").then(reserve).commit()
    clone = clone_workflow(original, id="v").then(charge)
    assert (original.committed, clone.committed) == (True, False)
    assert list(original.steps) == ["reserve"]


def test_an_uncommitted_workflow_has_an_uncommitted_clone() -> None:
    """So has an empty one, which could not be committed."""
    assert not clone_workflow(Workflow("w").then(reserve), id="v").committed
    with pytest.raises(FlowNotDefined):
        clone_workflow(Workflow("w"), id="v").commit()
