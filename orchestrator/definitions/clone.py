"""The same step or workflow under another id."""

from __future__ import annotations

from dataclasses import replace
from typing import ParamSpec, TypeVar

from orchestrator.definitions.step import Step
from orchestrator.definitions.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")
Out = TypeVar("Out")


def clone_step(step: Step[P, R, Out], *, id: str) -> Step[P, R, Out]:
    """The same function and options under another id."""
    return replace(step, id=id)


def clone_workflow(workflow: Workflow, *, id: str) -> Workflow:
    """The same flow and options under another id; generated ids follow the new one.

    It is committed if the original is, changes independently of it from then on, and is registered nowhere.
    """
    clone = Workflow(
        id,
        input=workflow.input,
        output=workflow.output,
        state=workflow.state,
        version=workflow.version,
        retries=workflow.retries,
        retry_delay=workflow.retry_delay,
        validate_inputs=workflow.validate_inputs,
        on_start=workflow.on_start,
        on_finish=workflow.on_finish,
        on_error=workflow.on_error,
        auto_restart=workflow.auto_restart,
        emit_step_events=workflow.emit_step_events,
        inline=workflow.inline,
        description=workflow.description,
    )
    clone.blocks = workflow.blocks
    return clone.commit() if workflow.committed and workflow.blocks else clone
