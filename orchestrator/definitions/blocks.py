"""What a workflow is built of, in the order in which it was written: one frozen value for each builder call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, assert_never

from orchestrator.definitions.callables import Callback
from orchestrator.definitions.foreign import TaskEntry, is_foreign, task_entry
from orchestrator.definitions.sources import MapSpec
from orchestrator.definitions.step import Step, step

if TYPE_CHECKING:
    from orchestrator.definitions.workflow import Workflow

    Entry: TypeAlias = Step[Any, Any, Any] | Workflow | TaskEntry
    EntryLike: TypeAlias = Callable[..., Any] | Workflow | TaskEntry | str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Then:
    """One entry."""

    kind: ClassVar[str] = "then"
    entry: Entry


@dataclass(frozen=True, slots=True)
class Parallel:
    """All entries at once."""

    kind: ClassVar[str] = "parallel"
    entries: tuple[Entry, ...]
    allow_failure: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """Every entry whose condition holds."""

    kind: ClassVar[str] = "branch"
    arms: tuple[tuple[Callback, Entry], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """The entry, again while the condition holds or until it does."""

    kind: ClassVar[str] = "loop"
    entry: Entry
    condition: Callback
    until: bool


@dataclass(frozen=True, slots=True)
class Foreach:
    """The entry for each item."""

    kind: ClassVar[str] = "foreach"
    entry: Entry
    concurrency: int | Callback


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping; without an id it gets a generated one."""

    kind: ClassVar[str] = "mapping"
    spec: MapSpec
    id: str | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """A sleep of so many seconds, until a moment, or computed."""

    kind: ClassVar[str] = "sleep"
    seconds: float | None
    until: datetime | None
    callback: Callback | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an event; its id is the event's name unless it has one."""

    kind: ClassVar[str] = "wait"
    event: str
    schema: Any
    timeout: float | None
    on_timeout: Entry | None
    id: str | None


Block: TypeAlias = Then | Parallel | Branch | Loop | Foreach | Map | Sleep | Wait


@dataclass(frozen=True, slots=True)
class ControlEntry:
    """A mapping, sleep or wait as an entry of `workflow.steps`."""

    id: str
    component: str
    description: str
    output: Any = None
    input: ClassVar[None] = None


def named(workflow_id: str, blocks: Sequence[Block]) -> Iterator[tuple[str, Block]]:
    """Each block with its id, the same whenever the workflow is built again.

    Generated ones are `<kind>_<workflow>_<n>`, where n counts the blocks of that kind from 0, those with their own id
    too.
    """
    seen: dict[str, int] = {}
    for block in blocks:
        number = seen.get(block.kind, 0)
        seen[block.kind] = number + 1
        yield _own_id(block) or f"{block.kind}_{workflow_id}_{number}", block


def _own_id(block: Block) -> str | None:
    match block:
        case Then(entry=entry):
            return entry.id
        case Wait(event=event, id=id):
            return event if id is None else id
        case Map(id=id) | Sleep(id=id):
            return id
        case Parallel() | Branch() | Loop() | Foreach():
            return None
        case _:
            assert_never(block)


def entries_of(name: str, block: Block) -> Iterator[tuple[str, Entry | ControlEntry]]:
    """The entries of a block that keep results, each with its place in words."""
    match block:
        case Then(entry=entry):
            yield "an entry of its own", entry
        case Parallel(entries=entries):
            yield from ((f"arm {number} of {name}", entry) for number, entry in enumerate(entries))
        case Branch(arms=arms):
            yield from ((f"arm {number} of {name}", entry) for number, (_, entry) in enumerate(arms))
        case Loop(entry=entry) | Foreach(entry=entry):
            yield f"the body of {name}", entry
        case Map():
            yield "a mapping", ControlEntry(name, "MAP", "")
        case Sleep():
            yield "a sleep", ControlEntry(name, "SLEEP", "")
        case Wait(schema=schema, on_timeout=on_timeout):
            yield "a wait", ControlEntry(name, "WAIT", "", schema)
            if on_timeout is not None:
                yield f"the timeout of {name}", on_timeout
        case _:
            assert_never(block)


def as_entry(given: Any, id: str | None = None) -> Entry:
    """What a user gave as an entry, under its own id or this one.

    Raises TypeError for what is no entry, and for a lambda without an id.
    """
    from orchestrator.definitions.clone import clone_step, clone_workflow
    from orchestrator.definitions.workflow import Workflow

    if isinstance(given, Step):
        return given if id is None else clone_step(given, id=id)
    if isinstance(given, Workflow):
        return given if id is None else clone_workflow(given, id=id)
    if isinstance(given, TaskEntry):
        return given if id is None else replace(given, id=id)
    if is_foreign(given) or (isinstance(given, str) and given):
        return task_entry(given, id)
    if callable(given):
        made: Step[Any, Any, Any] = step(given, id=id)
        return made
    raise TypeError(
        f"{given!r} is no entry: use a Step, a Workflow, a Celery task or signature, the registered name of a task, or "
        "a function"
    )


def as_callback(given: Any, what: str) -> Callback:
    """What a user gave as a condition or a computed setting. TypeError for an entry, and for what is no function."""
    if is_foreign(given) or isinstance(getattr(given, "component", None), str) or not callable(given):
        raise TypeError(f"{what} takes a function, not {given!r}")
    return Callback(given)


def as_seconds(given: Any, what: str) -> float:
    """Seconds, never negative. TypeError for what is no duration."""
    if isinstance(given, timedelta):
        return max(given.total_seconds(), 0.0)
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return float(given) if math.isnan(given) else max(float(given), 0.0)
    raise TypeError(f"{what} takes seconds or a timedelta, not {given!r}")


def as_moment(given: datetime) -> datetime:
    """An aware moment in UTC; a naive one is local time, as everywhere in Python."""
    return given.astimezone(UTC)
