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
        """Register a committed workflow; the same again takes its place. Raises ValueError where another has its id."""
        workflow.require_committed()
        before = self._workflows.get(workflow.id)
        if before is not None and before.fingerprint != workflow.fingerprint:
            text = f"two different workflows have the id {workflow.id!r}: give one of them another id"
            raise ValueError(text)
        self._workflows[workflow.id] = workflow

    def get(self, workflow_id: str) -> Workflow | None:
        """The workflow, or None."""
        return self._workflows.get(workflow_id)

    def graph_if_same(self, header: RunHeader) -> Graph | None:
        """The graph of a stored run, None where it is not known here, or has changed since the run was started."""
        # Paths are places in one graph. In another they would lead to other steps, and the run would go on with those.
        workflow = self.get(header.workflow_id)
        if workflow is None or workflow.compiled.fingerprint != header.fingerprint:
            return None
        return workflow.compiled

    def all(self) -> list[Workflow]:
        """All of them."""
        return list(self._workflows.values())
