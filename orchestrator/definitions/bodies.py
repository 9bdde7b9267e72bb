"""What the engine executes at each node of a graph: carried in `node.body`, never looked at by the core.

Everywhere `given` is the static shape of the value that arrives and `made` the shape of the value that leaves. A
parallel block has no body: its output is the dict of its arms.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_never

from orchestrator.codec import ANY, DictOf, ListOf, Shape
from orchestrator.core import graph
from orchestrator.definitions.callables import Callback
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.sources import MapSpec
from orchestrator.definitions.step import Step

if TYPE_CHECKING:
    from orchestrator.definitions.workflow import Workflow

__all__ = [
    "BranchBody",
    "Callback",
    "ForeachBody",
    "LoopBody",
    "MapBody",
    "NestedBody",
    "SleepBody",
    "StepBody",
    "TaskBody",
    "WaitBody",
    "shape_made",
]


@dataclass(frozen=True, slots=True)
class StepBody:
    """A step. With `validate` its input is checked against `step.input`."""

    step: Step[Any, Any, Any]
    given: Shape
    made: Shape
    validate: bool


@dataclass(frozen=True, slots=True)
class TaskBody:
    """An existing Celery task."""

    task: TaskEntry
    given: Shape
    made: Shape


@dataclass(frozen=True, slots=True)
class MapBody:
    """A mapping."""

    mapping: MapSpec
    given: Shape
    made: Shape


@dataclass(frozen=True, slots=True)
class SleepBody:
    """A sleep, which passes its input on.

    The node's `seconds` says how long; where that is None, `until` does (aware, UTC), or `callback`, which returns
    seconds, a timedelta or a datetime.
    """

    callback: Callback | None
    until: datetime | None
    given: Shape

    @property
    def made(self) -> Shape:
        """What arrives, leaves."""
        return self.given


@dataclass(frozen=True, slots=True)
class WaitBody:
    """A wait. `schema` is the annotation of the event's data, None where anything goes.

    `made` is what leaves: the event's data, or what the entry for the timeout has made.
    """

    schema: Any
    given: Shape
    made: Shape


@dataclass(frozen=True, slots=True)
class BranchBody:
    """The conditions of a branch, one for each arm, all asked with what arrives."""

    conditions: tuple[Callback, ...]
    given: Shape


@dataclass(frozen=True, slots=True)
class LoopBody:
    """The condition of a loop. `given` is the shape of what it is asked with: the output of the loop's body."""

    condition: Callback
    given: Shape


@dataclass(frozen=True, slots=True)
class ForeachBody:
    """What computes the concurrency, None where the node says it. `given` is the shape of the list."""

    concurrency: Callback | None
    given: Shape


@dataclass(frozen=True, slots=True)
class NestedBody:
    """A nested workflow. With `validate` its input is checked against `workflow.input`."""

    workflow: Workflow
    given: Shape
    made: Shape
    validate: bool


def shape_made(node: graph.Node) -> Shape:
    """The shape of the value that leaves a node."""
    match node:
        case graph.Parallel(arms=arms) | graph.Branch(arms=arms):
            return DictOf({arm.id: shape_made(arm) for arm in arms})
        case graph.Loop(body_node=body):
            return shape_made(body)
        case graph.Foreach(body_node=body):
            return ListOf(shape_made(body))
        case graph.Step() | graph.Sleep() | graph.Wait() | graph.Nested():
            made: Shape = getattr(node.body, "made", ANY)
            return made
        case _:
            assert_never(node)
