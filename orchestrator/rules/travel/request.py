"""MODULE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import StepNotFound
from orchestrator.rules.graph import Foreach, Graph, Nested, Path
from orchestrator.rules.model import Activation, RunHeader


@dataclass(frozen=True, slots=True)
class StepOverride:
    """What a caller says of a step: ids of values, and times.

    `made`: it has ended well, with that output. `held`: it has suspended, and not ended.
    """

    output: str = ""
    input: str = ""
    suspend: str = ""
    resume: str = ""
    has_ended: bool = True
    is_suspended: bool = False
    started_at: int = 0
    ended_at: int = 0
    suspended_at: int = 0
    resumed_at: int = 0


@dataclass(frozen=True, slots=True)
class TravelRequest:
    """Where a run travels to, and with what.

    `records` are those of the present visits, by path; `given` is what the caller says of steps, by their paths.
    `input` (a value id) is what the target gets: the output of what stands before it. `resume` says that there is
    resume data. `fresh` makes new value ids.
    """

    graph: Graph
    header: RunHeader
    activations: Mapping[Path, Activation]
    target: Path
    overrides: Mapping[Path, StepOverride] = field(default_factory=dict)
    input: str | None = None
    resume: bool = False
    per_step: bool = False
    fresh: str = ""


def find_target(graph: Graph, ids: Sequence[str]) -> Path:
    """The path that a list of step ids leads to, from the outside in. Raises `StepNotFound`, naming it."""
    path: Path = ()
    if not ids:
        raise StepNotFound("time travel needs a step to go to", workflow_id=graph.id)
    for depth, step_id in enumerate(ids):
        around = graph.node(path) if depth else None
        where = ".".join(ids[:depth]) or graph.id
        if isinstance(around, Foreach):
            text = f"{where} runs once for each item: travel to {where} as a whole, and not to {step_id!r} in it"
            raise StepNotFound(text, workflow_id=graph.id)
        found = graph.find(path, step_id) if around is None or isinstance(around, Nested) else None
        if found is None:
            raise StepNotFound(f"there is no step {step_id!r} in {where}", workflow_id=graph.id)
        path = found
    return path


def entry_before(graph: Graph, target: Path) -> Path | None:
    """The entry before the target in the innermost flow around it; None where the target begins that flow."""
    depth = len(graph.scope(target))
    return (*target[:depth], target[depth] - 1) if target[depth] else None
