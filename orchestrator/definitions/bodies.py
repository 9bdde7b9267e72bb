"""The bodies of a graph's nodes, which the engine executes.

The core carries a body in `node.body` and never looks inside; `body_of` gives it back with its type. Nodes are not
generic in their body: every function of the core would carry a type parameter that it must not use.

Everywhere `given` is the static shape of the value that arrives and `made` the shape of the value that leaves. A
parallel block has no body: its output is the dict of its arms.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, assert_never

from orchestrator.codec import ANY, DictOf, ListOf, Shape
from orchestrator.definitions.callables import Callback
from orchestrator.definitions.definition import Definition
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.sources import MapSpec
from orchestrator.definitions.step import Step
from orchestrator.rules import graph
from orchestrator.rules.graph import Graph, Path

__all__ = [
    "Body",
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
    "body_of",
    "definition_at",
    "shape_given",
    "shape_made",
    "step_of",
]


@dataclass(frozen=True, slots=True)
class StepBody:
    """A step."""

    step: Step[Any, Any, Any]
    given: Shape
    made: Shape
    # The input is checked against `step.input`.
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
    """A sleep, which passes its input on. The node's `seconds` says how long; where that is None, one of these does."""

    # Returns seconds, a timedelta or a datetime.
    callback: Callback | None
    # Aware, in UTC.
    until: datetime | None
    given: Shape

    @property
    def made(self) -> Shape:
        """The shape of the input, which is passed on."""
        return self.given


@dataclass(frozen=True, slots=True)
class WaitBody:
    """A wait for an event."""

    # The annotation of the event's data, None where anything goes.
    schema: Any
    given: Shape
    # The event's data, or what the entry for the timeout has made.
    made: Shape


@dataclass(frozen=True, slots=True)
class BranchBody:
    """The conditions of a branch."""

    # One for each arm, all asked with what arrives.
    conditions: tuple[Callback, ...]
    given: Shape


@dataclass(frozen=True, slots=True)
class LoopBody:
    """The condition of a loop."""

    condition: Callback
    # The shape of what the condition is asked with: the output of the loop's body.
    given: Shape


@dataclass(frozen=True, slots=True)
class ForeachBody:
    """The concurrency of a foreach, where it is computed."""

    # None where the node says it.
    concurrency: Callback | None
    # The shape of the whole list.
    given: Shape


@dataclass(frozen=True, slots=True)
class NestedBody:
    """A nested workflow, as it was when the outermost one was committed."""

    definition: Definition
    given: Shape
    made: Shape
    # The input is checked against `definition.input`.
    validate: bool


Body: TypeAlias = (
    StepBody | TaskBody | MapBody | SleepBody | WaitBody | BranchBody | LoopBody | ForeachBody | NestedBody
)


def body_of(node: graph.Node) -> Body | None:
    """The body of a node; None for a parallel block, and in a graph that was not compiled from a definition."""
    body = None if isinstance(node, graph.Parallel) else node.body
    return body if isinstance(body, Body) else None


def step_of(node: graph.Node) -> Step[Any, Any, Any] | None:
    """The step that a node runs; None for any other kind of node."""
    body = body_of(node)
    return body.step if isinstance(body, StepBody) else None


def definition_at(whole: Graph, scope: Path) -> Definition:
    """The definition of the workflow whose scope this is; `()` is the outermost one. LookupError for another place."""
    body = body_of(whole.node(scope)) if scope else whole.body
    definition = body.definition if isinstance(body, NestedBody) else body
    if not isinstance(definition, Definition):
        raise LookupError(f"{scope} is not a workflow of the graph {whole.id!r}")
    return definition


def shape_given(node: graph.Node) -> Shape:
    """The shape of the value that arrives at a node."""
    body = body_of(node)
    return ANY if body is None else body.given


def shape_made(node: graph.Node) -> Shape:
    """The shape of the value that leaves a node."""
    match node:
        case graph.Parallel(arms=arms) | graph.Branch(arms=arms):
            return DictOf({arm.id: shape_made(arm) for arm in arms})
        case graph.Loop(body_node=inner):
            return shape_made(inner)
        case graph.Foreach(body_node=inner):
            return ListOf(shape_made(inner))
        case graph.Step() | graph.Sleep() | graph.Wait() | graph.Nested():
            body = body_of(node)
            return body.made if isinstance(body, _Producer) else ANY
        case _:
            assert_never(node)


_Producer: TypeAlias = StepBody | TaskBody | MapBody | SleepBody | WaitBody | NestedBody
