"""The check of a definition: everything that is wrong with it is found together."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from orchestrator.definitions.check_types import problems_of_events, problems_of_types
from orchestrator.definitions.definition import (
    Block,
    BlockEntry,
    Branch,
    ControlEntry,
    Definition,
    Foreach,
    Map,
    Parallel,
    Sleep,
    Then,
    Wait,
    entries_of,
)
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.sources import FromStep, MapSpec
from orchestrator.definitions.step import Step
from orchestrator.errors import FlowNotDefined, GraphInvalid
from orchestrator.rules.bounds import MAX_ID, MAX_NAME, MAX_NESTING, MAX_SECONDS, name_size

_ID = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = "input"  # a time travel's context has the run's input under this key, beside the steps


def check(definition: Definition) -> None:
    """Raise FlowNotDefined without any entry, and GraphInvalid with one sentence for each thing that is wrong."""
    require_flow(definition)
    if problems := list(_problems(definition)):
        header = f"The graph of the workflow {definition.id!r} is not valid:"
        raise GraphInvalid(problems, header=header, workflow_id=definition.id)


def require_flow(definition: Definition) -> None:
    """Raise FlowNotDefined for a workflow without any entry."""
    if not definition.blocks:
        raise FlowNotDefined(
            f"Execution flow of workflow is not defined: workflow {definition.id!r} has no entries. Add some with "
            ".then() or another builder method, then call .commit()",
            workflow_id=definition.id,
        )


def _problems(definition: Definition) -> Iterator[str]:
    if not _ID.fullmatch(definition.id):
        yield f"the workflow's id {definition.id!r} must match [A-Za-z0-9_-]+"
    if len(definition.id) > MAX_ID - 50:  # generated ids of blocks have it in them
        yield f"the workflow's id {definition.id[:40]!r}… has more than {MAX_ID - 50} characters"
    uses: dict[str, list[_Use]] = {}
    for name, block in definition.identify_blocks():
        yield from _problems_of_block(name, block)
        for place, entry in entries_of(name, block):
            uses.setdefault(entry.id, []).append(_Use(place, block, entry))
            yield from _problems_of_nested(definition, entry)
    for id, found in uses.items():
        yield from _problems_of_id(id, found)
        if len(found) > 1:
            yield _problem_of_reuse(id, found, _free_id(id, uses))
    for name, block in definition.identify_blocks():
        if isinstance(block, Map):
            yield from _problems_of_map(name, block.spec, uses)
    yield from problems_of_types(definition)
    yield from problems_of_events(definition)


def _free_id(id: str, known: Container[str]) -> str:
    return next(free for number in count(2) if (free := f"{id}_{number}") not in known)


@dataclass(frozen=True, slots=True)
class _Use:
    """A use of an id."""

    # In words, for the message.
    place: str
    # The block in which it stands, which decides how an id is given to it.
    block: Block
    entry: BlockEntry | ControlEntry


def _problems_of_id(id: str, uses: list[_Use]) -> Iterator[str]:
    if not _ID.fullmatch(id):
        yield f"the id {id!r} ({uses[0].place}) must match [A-Za-z0-9_-]+"
    if len(id) > MAX_ID:
        yield f"the id {id[:40]!r}… ({uses[0].place}) has {len(id)} characters, where {MAX_ID} are allowed"
    if id == _RESERVED:
        yield f"the id {id!r} ({uses[0].place}) is reserved"


def _problem_of_reuse(id: str, uses: list[_Use], free: str) -> str:
    places = [use.place for use in uses]
    where = ", ".join(places) if len(set(places)) > 1 else f"each is {places[0]}"
    return (
        f"the id {id!r} is used {len(uses)} times: {where}; give one of them another id: {_suggest_id(uses[-1], free)}"
    )


def _suggest_id(use: _Use, id: str) -> str:
    """The code that gives this use the id."""
    match use.block, use.entry:
        case Map(), _:
            return f'.map(..., id="{id}")'
        case Sleep(), _:
            return f'.sleep(..., id="{id}")'
        case Wait(), ControlEntry():
            return f'.wait_for_event(..., id="{id}")'
        case Then(), entry:
            return f'.then({_source_name(entry)}, id="{id}")'
        case _, TaskEntry():
            return f'step(..., id="{id}")'
        case _, Step() as step:
            return f'clone_step({_source_name(step)}, id="{id}")'
        case _:
            return f'clone_workflow(..., id="{id}")'


def _source_name(entry: BlockEntry | ControlEntry) -> str:
    """The name under which the user's code most likely has it."""
    return entry.id if isinstance(entry, Step) and entry.id.isidentifier() else "..."


def _problems_of_map(name: str, spec: MapSpec, known: Container[str]) -> Iterator[str]:
    whole = [("its value", spec.whole)] if spec.whole is not None else []
    for what, source in [*whole, *((repr(key), source) for key, source in spec.targets)]:
        for id in source.steps if isinstance(source, FromStep) else ():
            if id not in known:
                yield (
                    f"the mapping {name!r} takes {what} from the step {id!r}, but no entry of this workflow has that "
                    "id (those of nested workflows do not count)"
                )


def _problems_of_block(name: str, block: Block) -> Iterator[str]:
    match block:
        case Parallel(entries=()):
            yield f"{name} has no entries"
        case Branch(arms=()):
            yield f"{name} has no arms"
        case Foreach(concurrency=int(concurrency), entry=entry) if concurrency < 1:
            yield f"the concurrency of {name} ({entry.id}) must be 1 or more, not {concurrency}"
        case Sleep(seconds=float(seconds)) if not seconds <= MAX_SECONDS:
            yield f"{name} sleeps {seconds} seconds, which never end"
        case Wait(event=event) if name_size(event) > MAX_NAME:
            yield f"the event {event[:40]!r}… of {name} is longer than {MAX_NAME} bytes"
        case Wait(timeout=timeout, on_timeout=on_timeout):
            if timeout is None and on_timeout is not None:
                yield f"the wait {name!r} has on_timeout, but no timeout"
            if timeout is not None and not timeout <= MAX_SECONDS:
                yield f"the timeout of the wait {name!r} is {timeout}, which never ends"
        case _:
            pass


def _problems_of_nested(outer: Definition, entry: BlockEntry | ControlEntry) -> Iterator[str]:
    if isinstance(entry, (Step, TaskEntry, ControlEntry)):
        return
    circle, is_too_deep = _search(outer, entry.definition)
    if circle:
        yield f"the workflow {outer.id!r} is nested in itself: {' in '.join([*reversed(circle), outer.id])}"
    elif is_too_deep:
        yield (
            f"the nested workflow {entry.id!r} makes more than {MAX_NESTING} workflows inside each other, or has one "
            "that is nested in itself: write what repeats with .do_until, .do_while or .foreach"
        )
    elif not entry.definition.blocks:
        yield f"the nested workflow {entry.id!r} has no flow"
    elif not entry.committed:
        yield f"the nested workflow {entry.id!r} has uncommitted changes: call its .commit() first"


def _search(outer: Definition, start: Definition) -> tuple[list[str], bool]:
    """Look for `outer` among the workflows from `start` down.

    Returns the ids on the way to it, from `start` on (none if it is not in there), and if the way down is too long.
    """
    # Level by level: each workflow is looked at once per level however often it is nested there, and a circle further
    # down, which is another workflow's mistake, ends with the levels.
    above: dict[Definition, Definition | None] = {start: None}
    level = [start]
    for _ in range(MAX_NESTING - 1):
        if outer in above:
            return _way_down(outer, above), False
        inner = dict.fromkeys((nested, each) for each in level for nested in _nested_in(each))
        for nested, each in inner:
            above.setdefault(nested, each)
        level = list(dict.fromkeys(nested for nested, _ in inner))
        if not level:
            return [], False
    return [], True


def _nested_in(definition: Definition) -> Iterator[Definition]:
    for _, _, entry in definition.walk_entries():
        if not isinstance(entry, (Step, TaskEntry, ControlEntry)):
            yield entry.definition


def _way_down(end: Definition, above: Mapping[Definition, Definition | None]) -> list[str]:
    way: list[str] = []
    at: Definition | None = end
    while at is not None:
        way.append(at.id)
        at = above[at]
    return way[::-1]
