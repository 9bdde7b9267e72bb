"""The registry of workflows: by their ids, the graphs that this process can run."""

from __future__ import annotations

from orchestrator.definitions import Workflow
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import RunHeader


class Registry:
    """The workflows that this process knows, by id."""

    def __init__(self) -> None:
        self._workflows: dict[str, Workflow] = {}

    def add(self, workflow: Workflow) -> None:
        """Register a committed workflow. Raises ValueError where a different one has its id."""
        workflow.require_committed()
        # A module that is loaded twice (a reload, a test) registers an equal workflow again, which is no mistake.
        before = self._workflows.get(workflow.id)
        if before is not None and before.fingerprint != workflow.fingerprint:
            text = f"two different workflows have the id {workflow.id!r}: give one of them another id"
            raise ValueError(text)
        self._workflows[workflow.id] = workflow

    def get(self, workflow_id: str) -> Workflow | None:
        """Return the workflow, or None."""
        return self._workflows.get(workflow_id)

    def graph_if_same(self, header: RunHeader) -> Graph | None:
        """Return the run's graph; None where this process does not know it, or knows another one under its id."""
        # Paths are places in one graph. In another graph they lead to other steps, and the run would go on with those.
        workflow = self.get(header.workflow_id)
        if workflow is None or workflow.compiled.fingerprint != header.fingerprint:
            return None
        return workflow.compiled

    def all(self) -> list[Workflow]:
        """Return all workflows."""
        return list(self._workflows.values())
