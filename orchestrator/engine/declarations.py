"""The declarations at one place of a graph: its workflow, the types of its values, the model of its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from orchestrator.codec import ANY, Shape, Typed, is_any_annotation, restore, validate
from orchestrator.definitions import bodies
from orchestrator.definitions.definition import Definition
from orchestrator.rules.graph import Graph, Path


def workflow_at(graph: Graph, scope: Path) -> Definition:
    """The workflow whose scope this is."""
    return bodies.definition_at(graph, scope)


def input_shape(graph: Graph, path: Path) -> Shape:
    """The shape of the input at this path."""
    return bodies.shape_given(graph.node(path))


def shape_of(annotation: Any) -> Shape:
    """An annotation as a shape."""
    return ANY if annotation is None or is_any_annotation(annotation) else Typed(annotation)


def restore_as(annotation: Any, plain: Any) -> Any:
    """A plain value as its declared type, if it fits."""
    return restore(shape_of(annotation), plain)


def view_of_state(workflow: Definition, plain: Mapping[str, Any]) -> dict[str, Any]:
    """State as a workflow's model declares it.

    Typed, defaults filled in, other keys left out. Plain where none is declared. Raises `InputInvalid` where the model
    does not allow it.
    """
    # A nested workflow shares the run's state and declares the part of it that is its business: it sees no more.
    if workflow.state is None:
        return dict(plain)
    seen = validate(workflow.state, dict(plain), header="State does not fit: ")
    if isinstance(seen, BaseModel):
        return {name: getattr(seen, name) for name in type(seen).model_fields}
    return dict(seen)
