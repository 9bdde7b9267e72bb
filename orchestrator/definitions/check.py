"""What `commit` looks for: everything that is wrong with a workflow, found together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.definitions import blocks
from orchestrator.definitions.blocks import entries_of, named
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.step import Step

if TYPE_CHECKING:
    from orchestrator.definitions.workflow import Workflow

_ID = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = "input"


def problems_of(workflow: Workflow) -> list[str]:
    """One sentence for each thing that is wrong; none for a workflow that can run."""
    return list(_problems(workflow))


def _problems(workflow: Workflow) -> Iterator[str]:
    if not _ID.fullmatch(workflow.id):
        yield f"the workflow's id {workflow.id!r} must match [A-Za-z0-9_-]+"
    places: dict[str, list[str]] = {}
    for name, block in named(workflow.id, workflow.blocks):
        yield from _problems_of_block(name, block)
        for place, entry in entries_of(name, block):
            places.setdefault(entry.id, []).append(place)
            yield from _problems_of_nested(workflow, entry)
    for id, found in places.items():
        yield from _problems_of_id(id, found)


def _problems_of_id(id: str, places: list[str]) -> Iterator[str]:
    if not _ID.fullmatch(id):
        yield f"the id {id!r} ({places[0]}) must match [A-Za-z0-9_-]+"
    if id == _RESERVED:
        yield f"the id {id!r} ({places[0]}) is reserved"
    if len(places) > 1:
        yield f"the id {id!r} is used {len(places)} times: {', '.join(places)}; give one of them another id"


def _problems_of_block(name: str, block: blocks.Block) -> Iterator[str]:
    match block:
        case blocks.Parallel(entries=()):
            yield f"{name} has no entries"
        case blocks.Branch(arms=()):
            yield f"{name} has no arms"
        case blocks.Foreach(concurrency=int(concurrency), entry=entry) if concurrency < 1:
            yield f"the concurrency of {name} ({entry.id}) must be 1 or more, not {concurrency}"
        case blocks.Sleep(seconds=float(seconds)) if not math.isfinite(seconds):
            yield f"{name} sleeps {seconds} seconds, which never end"
        case blocks.Wait(timeout=timeout, on_timeout=on_timeout):
            if timeout is None and on_timeout is not None:
                yield f"the wait {name!r} has on_timeout, but no timeout"
            if timeout is not None and not math.isfinite(timeout):
                yield f"the timeout of the wait {name!r} is {timeout}, which never ends"
        case _:
            pass


def _problems_of_nested(outer: Workflow, entry: blocks.Entry | blocks.ControlEntry) -> Iterator[str]:
    if isinstance(entry, (Step, TaskEntry, blocks.ControlEntry)):
        return
    if circle := _way_to(outer, entry, ()):
        yield f"the workflow {outer.id!r} is nested in itself: {' in '.join([*reversed(circle), outer.id])}"
    elif not entry.blocks:
        yield f"the nested workflow {entry.id!r} has no flow"
    elif not entry.committed:
        yield f"the nested workflow {entry.id!r} has uncommitted changes: call its .commit() first"


def _way_to(wanted: Workflow, workflow: Workflow, passed: tuple[Workflow, ...]) -> list[str]:
    """The ids of the workflows from this one down to `wanted`; none if it is not in there."""
    if workflow is wanted:
        return [workflow.id]
    if workflow in passed:
        return []
    for name, block in named(workflow.id, workflow.blocks):
        for _, entry in entries_of(name, block):
            if isinstance(entry, (Step, TaskEntry, blocks.ControlEntry)):
                continue
            if way := _way_to(wanted, entry, (*passed, workflow)):
                return [workflow.id, *way]
    return []
