"""A workflow as its author wrote it: frozen data, one value for each builder call.

`check` and `compile_definition` are functions of this data, and a clone is `dataclasses.replace` of it. Nothing here
knows how a workflow is written down (that is `builder`), or how it is started (that is `workflow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, assert_never

from orchestrator.definitions.callables import Callback, require_hook
from orchestrator.definitions.entry import WorkflowEntry
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.sources import MapSpec
from orchestrator.definitions.step import Step, require_flag, require_number

Hook = Callable[..., Any]
# The entries that a block runs. A nested workflow stays the object that the user holds: it may be changed and committed
# after it was added, and counts as it is when the outer workflow is committed.
BlockEntry: TypeAlias = "Step[Any, Any, Any] | TaskEntry | WorkflowEntry[Definition]"


@dataclass(frozen=True, slots=True)
class Then:
    """One entry."""

    kind: ClassVar[str] = "then"
    entry: BlockEntry


@dataclass(frozen=True, slots=True)
class Parallel:
    """All entries at once."""

    kind: ClassVar[str] = "parallel"
    entries: tuple[BlockEntry, ...]
    # A failed arm counts as None instead of failing the run.
    allow_failure: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """Every entry whose condition holds."""

    kind: ClassVar[str] = "branch"
    # Conditions and the entries that they guard.
    arms: tuple[tuple[Callback, BlockEntry], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """The entry, again while the condition holds or until it does."""

    kind: ClassVar[str] = "loop"
    entry: BlockEntry
    # Asked with the entry's output.
    condition: Callback
    # True: again until it holds. False: again while it holds.
    until: bool


@dataclass(frozen=True, slots=True)
class Foreach:
    """The entry for each item."""

    kind: ClassVar[str] = "foreach"
    entry: BlockEntry
    # Items under way at a time: said beforehand, or computed when the block begins.
    concurrency: int | Callback


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping."""

    kind: ClassVar[str] = "mapping"
    spec: MapSpec
    # None: a generated one.
    id: str | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """A sleep. One of `seconds`, `until` and `callback` says how long."""

    kind: ClassVar[str] = "sleep"
    # Never negative.
    seconds: float | None
    # Aware, in UTC.
    until: datetime | None
    # Returns seconds, a timedelta or a datetime.
    callback: Callback | None
    # None: a generated one.
    id: str | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an event."""

    kind: ClassVar[str] = "wait"
    event: str
    # The annotation of the event's data, None where anything goes.
    schema: Any
    # Seconds; None: for ever.
    timeout: float | None
    # Runs with the wait's input when the timeout has passed; without it the run fails.
    on_timeout: BlockEntry | None
    # None: the event's name.
    id: str | None


Block: TypeAlias = Then | Parallel | Branch | Loop | Foreach | Map | Sleep | Wait


@dataclass(frozen=True, slots=True)
class ControlEntry:
    """A mapping, sleep or wait as an entry of `workflow.steps`."""

    id: str
    # `MAP`, `SLEEP` or `WAIT`.
    component: str
    # Empty, because a block has no description of its own; all entries have this field.
    description: str
    # The annotation of a waited event's data.
    output: Any = None
    input: ClassVar[None] = None


# Compared by identity: a flow may contain itself until `check` has refused it, and comparing that would never end.
@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A whole workflow.

    Making one raises TypeError for an id that is no text, a hook that cannot be called with one `RunInfo`, and other
    options of a wrong type; ValueError for a negative number.
    """

    # Matches [A-Za-z0-9_-]+, which `check` looks at.
    id: str
    # For people.
    description: str = ""
    # The annotation of the run's input, None where anything goes.
    input: Any = None
    # The annotation of the run's result, which is not checked.
    output: Any = None
    # The model of the run's state, None where any key is allowed.
    state: Any = None
    # A part of the fingerprint: another version is another graph.
    version: str | int | None = None
    # Attempts beyond the first, for steps that do not say it themselves.
    retries: int = 0
    # Seconds between two attempts, for steps that do not say it themselves.
    retry_delay: float = 0.0
    # The run's input, and that of each step, is checked against its annotation.
    validate_inputs: bool = True
    # Called with one `RunInfo` before the first step.
    on_start: Hook | None = None
    # Called with one `RunInfo` when the run suspends or ends.
    on_finish: Hook | None = None
    # Called with one `RunInfo` when the run fails or a tripwire ends it.
    on_error: Hook | None = None
    # A run whose worker has died goes on by itself.
    auto_restart: bool = True
    # Steps show in the stream of events.
    emit_step_events: bool = True
    # A step may run at once in the worker that ended the step before, without a message.
    inline: bool = False
    # The flow, in the order in which it was written.
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(f"a workflow's id is a text, not {self.id!r}")
        require_number(f"workflow {self.id!r}: retries", self.retries, whole=True)
        require_number(f"workflow {self.id!r}: retry_delay", self.retry_delay)
        for name in ("validate_inputs", "auto_restart", "emit_step_events", "inline"):
            require_flag(f"workflow {self.id!r}: {name}", getattr(self, name))
        for name in ("on_start", "on_finish", "on_error"):
            if getattr(self, name) is not None:
                require_hook(f"workflow {self.id!r}: {name}", getattr(self, name))

    def identify_blocks(self) -> Iterator[tuple[str, Block]]:
        """Each block with its id, the same whenever the workflow is built again.

        Generated ones are `<kind>_<workflow>_<n>`, where n counts the blocks of that kind from 0, those with their own
        id too.
        """
        seen: dict[str, int] = {}
        for block in self.blocks:
            number = seen.get(block.kind, 0)
            seen[block.kind] = number + 1
            yield _own_id(block) or f"{block.kind}_{self.id}_{number}", block

    def walk_entries(self) -> Iterator[tuple[str, Block, BlockEntry | ControlEntry]]:
        """Each entry that keeps results, with its place in words and its block; not those inside nested workflows."""
        for id, block in self.identify_blocks():
            for place, entry in entries_of(id, block):
                yield place, block, entry


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


def entries_of(id: str, block: Block) -> Iterator[tuple[str, BlockEntry | ControlEntry]]:
    """The entries of a block that keep results, each with its place in words."""
    match block:
        case Then(entry=entry):
            yield "an entry of its own", entry
        case Parallel(entries=entries):
            yield from ((f"arm {number} of {id}", entry) for number, entry in enumerate(entries))
        case Branch(arms=arms):
            yield from ((f"arm {number} of {id}", entry) for number, (_, entry) in enumerate(arms))
        case Loop(entry=entry) | Foreach(entry=entry):
            yield f"the body of {id}", entry
        case Map():
            yield "a mapping", ControlEntry(id, "MAP", "")
        case Sleep():
            yield "a sleep", ControlEntry(id, "SLEEP", "")
        case Wait(schema=schema, on_timeout=on_timeout):
            yield "a wait", ControlEntry(id, "WAIT", "", schema)
            if on_timeout is not None:
                yield f"the timeout of {id}", on_timeout
        case _:
            assert_never(block)
