"""How users read and clone a workflow: checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

from orchestrator import Workflow, clone_workflow, from_input
from tests.public_types.usage import reserve


def reading(workflow: Workflow) -> None:
    """A workflow's options have their types and are never set; a clone is a workflow again."""
    assert_type(workflow.id, str)
    assert_type(workflow.retries, int)
    assert_type(workflow.version, str | int | None)
    assert_type(workflow.steps["reserve"].component, str)
    assert_type(clone_workflow(workflow, id="v"), Workflow)
    workflow.map({"a": from_input("sku", workflow=workflow)})
    workflow.retries = 3  # type: ignore[assignment]
    from_input(workflow=reserve)  # type: ignore[arg-type]
    clone_workflow(reserve, id="v")  # type: ignore[type-var]
