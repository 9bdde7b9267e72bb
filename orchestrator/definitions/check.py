"""What `commit` looks for: everything that is wrong with a workflow, found together."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from orchestrator.definitions import blocks
from orchestrator.definitions.blocks import entries_of, named
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.sources import FromStep, MapSpec
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
    uses: dict[str, list[_Use]] = {}
    for name, block in named(workflow.id, workflow.blocks):
        yield from _problems_of_block(name, block)
        for place, entry in entries_of(name, block):
            uses.setdefault(entry.id, []).append(_Use(place, block, entry))
            yield from _problems_of_nested(workflow, entry)
    for id, found in uses.items():
        yield from _problems_of_id(id, found)
        if len(found) > 1:
            yield _used_again(id, found, next(free for number in count(2) if (free := f"{id}_{number}") not in uses))
    for name, block in named(workflow.id, workflow.blocks):
        if isinstance(block, blocks.Map):
            yield from _problems_of_map(name, block.spec, uses)


@dataclass(frozen=True, slots=True)
class _Use:
    """A use of an id: the place in words, and what stands there."""

    place: str
    block: blocks.Block
    entry: blocks.Entry | blocks.ControlEntry


def _problems_of_id(id: str, uses: list[_Use]) -> Iterator[str]:
    if not _ID.fullmatch(id):
        yield f"the id {id!r} ({uses[0].place}) must match [A-Za-z0-9_-]+"
    if id == _RESERVED:
        yield f"the id {id!r} ({uses[0].place}) is reserved"


def _used_again(id: str, uses: list[_Use], free: str) -> str:
    places = [use.place for use in uses]
    where = ", ".join(places) if len(set(places)) > 1 else f"each is {places[0]}"
    return f"the id {id!r} is used {len(uses)} times: {where}; give one of them another id: {_renamed(uses[-1], free)}"


def _renamed(use: _Use, id: str) -> str:
    """How to write that this use has the id."""
    match use.block, use.entry:
        case blocks.Map(), _:
            return f'.map(..., id="{id}")'
        case blocks.Sleep(), _:
            return f'.sleep(..., id="{id}")'
        case blocks.Wait(), blocks.ControlEntry():
            return f'.wait_for_event(..., id="{id}")'
        case blocks.Then(), entry:
            return f'.then({_name(entry)}, id="{id}")'
        case _, TaskEntry():
            return f'step(..., id="{id}")'
        case _, Step() as step:
            return f'clone_step({_name(step)}, id="{id}")'
        case _:
            return f'clone_workflow(..., id="{id}")'


def _name(entry: blocks.Entry | blocks.ControlEntry) -> str:
    """What the user most likely calls it."""
    return entry.id if isinstance(entry, Step) and entry.id.isidentifier() else "..."


def _problems_of_map(name: str, spec: MapSpec, known: Container[str]) -> Iterator[str]:
    for key, source in spec.targets:
        for id in source.steps if isinstance(source, FromStep) else ():
            if id not in known:
                yield (
                    f"the mapping {name!r} takes {key!r} from the step {id!r}, but no entry of this workflow has that "
                    "id (those of nested workflows do not count)"
                )


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
