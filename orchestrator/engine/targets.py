"""Which of the steps that wait a caller means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.core.graph import Foreach, Graph, Nested, Path
from orchestrator.core.records import Header, Record, Status
from orchestrator.errors import ResumeAmbiguous, RunNotSuspended, StepNotSuspended


def named(step: Any) -> list[str]:
    """A step as its ids from the outside in: given as an id, a dotted path, an entry, or a list of those."""
    if step is None:
        return []
    if isinstance(step, str):
        return step.split(".")
    if isinstance(step, Iterable):
        return [name for part in step for name in named(part)]
    return [str(step.id)]


def id_path(graph: Graph, path: Path) -> list[str]:
    """The step ids from the outermost workflow down to the place."""
    ids = [graph.node(path[:cut]).id for cut in range(1, len(path)) if isinstance(graph.node(path[:cut]), Nested)]
    return [*ids, graph.node(path).id]


def item_index(graph: Graph, path: Path) -> int | None:
    """The index of the innermost foreach item that the place is in, None outside."""
    for cut in range(len(path) - 1, 0, -1):
        if isinstance(graph.node(path[:cut]), Foreach):
            return path[cut]
    return None


def addressed(
    graph: Graph, header: Header, held: Sequence[Record], ids: list[str], label: str | None, index: int | None
) -> list[Record]:
    """The records that a resume speaks of: one, or all waiting items of one foreach.

    Raises `StepNotSuspended` where none fits and `ResumeAmbiguous`, naming the candidates, where several do.
    """
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    paused = [record for record in held if record.status == Status.PAUSED]
    if paused and not ids and label is None and index is None and len(paused) == len(held):
        return paused[:1]
    waiting = [record for record in held if record.status == Status.SUSPENDED]
    places = [(record, id_path(graph, record.at)) for record in waiting]
    if not places:
        text = f"nothing in run {header.run_id!r} is suspended (it is {header.status})"
        raise RunNotSuspended(text, actual_status=header.status, **about)
    fitting = [(record, path) for record, path in places if path[: len(ids)] == ids or path == ids]
    if label is not None:
        fitting = [(record, path) for record, path in fitting if record.label == label]
    if index is not None:
        fitting = [(record, path) for record, path in fitting if item_index(graph, record.at) == index]
    if not fitting:
        asked = " ".join(
            [".".join(ids), f"label {label!r}" if label else "", f"item {index}" if index is not None else ""]
        )
        waits = ", ".join(sorted({".".join(path) for _, path in places}))
        raise StepNotSuspended(f"{asked.strip()} is not suspended in run {header.run_id!r}: {waits} is", **about)
    distinct = list(dict.fromkeys(".".join(path) for _, path in fitting))
    if len(distinct) > 1 or (label is not None and len(fitting) > 1):
        text = f"multiple steps are suspended in run {header.run_id!r}: pass `step`, one of {', '.join(distinct)}"
        raise ResumeAmbiguous(text, candidates=distinct, **about)
    return [record for record, _ in fitting]
