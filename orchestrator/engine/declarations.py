"""The declarations at one place of a graph: its workflow, the types of its values, the model of its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from orchestrator.codec import ANY, Shape, Typed, is_any_annotation, restore, validate
from orchestrator.definitions import bodies
from orchestrator.definitions.definition import Definition
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import RunHeader


def workflow_at(graph: Graph, scope: Path) -> Definition:
    """Return the workflow whose scope this is."""
    return bodies.definition_at(graph, scope)


def unknown_graph(header: RunHeader) -> Graph:
    """Return a graph for a run whose workflow is not known here: one without entries, types and hooks."""
    return Graph(header.workflow_id, (), header.fingerprint, body=Definition(header.workflow_id))


def input_shape(graph: Graph, path: Path) -> Shape:
    """Return the shape of the input at this path."""
    return bodies.shape_given(graph.node(path))


def shape_of(annotation: Any) -> Shape:
    """Return an annotation as a shape."""
    # Nothing declared means anything goes, like `Any`: the value keeps its plain shape.
    return ANY if annotation is None or is_any_annotation(annotation) else Typed(annotation)


def restore_as(annotation: Any, plain: Any) -> Any:
    """Return a plain value as its declared type, or as it is where it does not fit."""
    # Not refused: values are checked where they enter a run. Here code of a newer release may read an older value.
    return restore(shape_of(annotation), plain)


def view_of_state(workflow: Definition, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state as a workflow's model declares it: typed, defaults filled in, other keys left out.

    Without a model, return it as it is. Raises `InputInvalid` where the model does not allow the state.
    """
    # A nested workflow shares the run's state, and its model declares the part that it uses: it sees no more.
    if workflow.state is None:
        return dict(plain)
    seen = validate(workflow.state, dict(plain), header="State does not fit: ")
    if isinstance(seen, BaseModel):
        return {name: getattr(seen, name) for name in type(seen).model_fields}
    return dict(seen)
