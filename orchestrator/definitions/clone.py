"""The same step or workflow under another id."""

from __future__ import annotations

from dataclasses import replace
from typing import ParamSpec, Protocol, Self, TypeVar

from orchestrator.definitions.definition import Definition
from orchestrator.definitions.entry import WorkflowEntry
from orchestrator.definitions.step import Step

P = ParamSpec("P")
R = TypeVar("R")
Out = TypeVar("Out")


class ClonableWorkflow(WorkflowEntry[Definition], Protocol):
    """A workflow that can be made again from its definition."""

    @classmethod
    def from_definition(cls, definition: Definition) -> Self:
        """Make an uncommitted workflow of a definition."""
        ...

    def commit(self) -> Self:
        """Check the whole flow and make it ready to run."""
        ...


W = TypeVar("W", bound=ClonableWorkflow)


def clone_step(step: Step[P, R, Out], *, id: str) -> Step[P, R, Out]:
    """The same function and options under another id."""
    return replace(step, id=id)


def clone_workflow(workflow: W, *, id: str) -> W:
    """The same flow and options under another id; generated ids follow the new one.

    It is committed if the original is, changes independently of it from then on, and is registered nowhere.
    """
    clone = workflow.from_definition(replace(workflow.definition, id=id))
    return clone.commit() if workflow.committed and workflow.definition.blocks else clone
