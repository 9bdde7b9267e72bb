"""A graph as plain data, for pages and tools that show it."""

from __future__ import annotations

from typing import Any, assert_never

from orchestrator.codec import is_any_annotation, type_adapter
from orchestrator.definitions.bodies import (
    BranchBody,
    ForeachBody,
    LoopBody,
    MapBody,
    NestedBody,
    SleepBody,
    StepBody,
    TaskBody,
    WaitBody,
    definition_at,
)
from orchestrator.definitions.definition import Definition
from orchestrator.rules import graph
from orchestrator.rules.graph import Graph, Node

Plain = dict[str, Any]


def describe(whole: Graph) -> Plain:
    """The graph of a workflow as JSON-able data."""
    return _workflow(definition_at(whole, ()), whole.flow)


def _workflow(definition: Definition, flow: tuple[Node, ...]) -> Plain:
    return {
        "type": "workflow",
        "id": definition.id,
        "component": "WORKFLOW",
        "description": definition.description,
        "version": definition.version,
        "input": _schema(definition.input),
        "output": _schema(definition.output),
        "state": _schema(definition.state),
        "entries": [_node(node) for node in flow],
    }


def _node(node: Node) -> Plain:
    match node:
        case graph.Step():
            return _leaf(node)
        case graph.Sleep(body=body):
            about: Plain = {"type": "sleep", "id": node.id, "component": "SLEEP", "seconds": node.seconds}
            return about | (_sleep(body) if isinstance(body, SleepBody) else {})
        case graph.Wait(body=body, otherwise=otherwise):
            about = {"type": "wait", "id": node.id, "component": "WAIT", "event": node.event, "timeout": node.timeout}
            schema = body.schema if isinstance(body, WaitBody) else None
            return about | {"schema": _schema(schema), "on_timeout": None if otherwise is None else _node(otherwise)}
        case graph.Nested(body=body):
            return _workflow(body.definition, node.flow) if isinstance(body, NestedBody) else {}
        case graph.Parallel():
            about = {"type": "parallel", "id": node.id, "allow_failure": node.allow_failure}
            return about | {"entries": [_node(arm) for arm in node.arms]}
        case graph.Branch():
            return {"type": "branch", "id": node.id, "arms": _arms(node)}
        case graph.Loop():
            return {"type": "loop", "id": node.id} | _loop(node)
        case graph.Foreach(body=body):
            computed = body.concurrency.name if isinstance(body, ForeachBody) and body.concurrency else None
            about = {"type": "foreach", "id": node.id, "concurrency": node.concurrency, "computed": computed}
            return about | {"entry": _node(node.body_node)}
        case _:
            assert_never(node)


def _leaf(node: graph.Step) -> Plain:
    about: Plain = {"type": node.component.lower(), "id": node.id, "component": node.component}
    match node.body:
        case StepBody(step=step):
            schemas = {name: _schema(getattr(step, name)) for name in ("input", "output", "resume", "suspend")}
            return about | {"description": step.description, "queue": step.queue} | schemas
        case TaskBody(task=task):
            return about | {"description": task.description, "queue": node.route.queue, "task": task.name}
        case MapBody(mapping=mapping):
            return about | {"sources": mapping.describe()}
        case _:
            return about


def _sleep(body: SleepBody) -> Plain:
    return {
        "until": None if body.until is None else body.until.isoformat(),
        "computed": None if body.callback is None else body.callback.name,
    }


def _arms(node: graph.Branch) -> list[Plain]:
    return [
        {"condition": name, "entry": _node(arm)} for name, arm in zip(condition_names(node), node.arms, strict=True)
    ]


def condition_names(node: graph.Branch) -> list[str]:
    """The names of the conditions of a branch."""
    if isinstance(node.body, BranchBody):
        return [condition.name for condition in node.body.conditions]
    return [""] * len(node.arms)


def _loop(node: graph.Loop) -> Plain:
    return {"until": node.until, "condition": condition_name(node), "entry": _node(node.body_node)}


def condition_name(node: graph.Loop) -> str:
    """The name of the condition of a loop."""
    return node.body.condition.name if isinstance(node.body, LoopBody) else ""


def _schema(annotation: Any) -> Any:
    """The JSON schema of an annotation; None where nothing is declared, its name where it has no schema."""
    if annotation is None or is_any_annotation(annotation):
        return None
    try:
        return type_adapter(annotation).json_schema()
    except Exception:  # noqa: BLE001 - types that pydantic knows nothing of, and schemas of users' own making
        return {"title": getattr(annotation, "__name__", str(annotation))}
