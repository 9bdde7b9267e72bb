"""The request of a time travel: its target, and what the caller gives for the steps before it.

Values are named by their ids: this module must not know how they are encoded or validated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import StepNotFound
from orchestrator.rules.graph import Foreach, Graph, Nested, Path
from orchestrator.rules.model import Activation, RunHeader


@dataclass(frozen=True, slots=True)
class StepOverride:
    """A caller's statement about a step, in place of what is stored: ids of values, and times."""

    output: str = ""
    input: str = ""
    suspend: str = ""  # the suspend payload
    resume: str = ""  # the resume data
    has_ended: bool = True  # it has succeeded, with that output
    is_suspended: bool = False  # it has suspended and not ended, so resume data may go to it
    started_at: int = 0
    ended_at: int = 0
    suspended_at: int = 0
    resumed_at: int = 0


@dataclass(frozen=True, slots=True)
class TravelRequest:
    """Everything that the plan of a time travel is made of."""

    graph: Graph
    header: RunHeader
    activations: Mapping[Path, Activation]  # those of the present visits, by path
    target: Path
    overrides: Mapping[Path, StepOverride] = field(default_factory=dict)  # by the path of the step
    input: str | None = None  # value id of the target's input: the output of what stands before it; None: as stored
    resume: bool = False  # there is resume data
    per_step: bool = False  # the run goes on by single steps
    fresh: str = ""  # prefix of new value ids


def find_target(graph: Graph, ids: Sequence[str]) -> Path:
    """Find the path that a list of step ids leads to, from the outside in.

    Raises `StepNotFound`, naming what is missing.
    """
    path: Path = ()
    if not ids:
        raise StepNotFound("time travel needs a step to go to", workflow_id=graph.id)
    for depth, step_id in enumerate(ids):
        around = graph.node(path) if depth else None
        where = ".".join(ids[:depth]) or graph.id
        # Ids do not tell one item from another, so only the foreach as a whole can be a target.
        if isinstance(around, Foreach):
            text = f"{where} runs once for each item: travel to {where} as a whole, and not to {step_id!r} in it"
            raise StepNotFound(text, workflow_id=graph.id)
        found = graph.find(path, step_id) if around is None or isinstance(around, Nested) else None
        if found is None:
            raise StepNotFound(f"there is no step {step_id!r} in {where}", workflow_id=graph.id)
        path = found
    return path


def entry_before(graph: Graph, target: Path) -> Path | None:
    """Return the entry before the target in the innermost flow around it; None where the target begins that flow."""
    depth = len(graph.scope(target))
    return (*target[:depth], target[depth] - 1) if target[depth] else None
