"""The builder methods of a workflow: each adds one block to its definition and returns the workflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, Never, Self, TypeAlias, overload

from typing_extensions import TypeVar

from orchestrator.definitions.annotations import require_annotation
from orchestrator.definitions.callables import Callback
from orchestrator.definitions.check import check
from orchestrator.definitions.clone import clone_step, clone_workflow
from orchestrator.definitions.compile import compile_definition
from orchestrator.definitions.definition import (
    Block,
    BlockEntry,
    Branch,
    Definition,
    Foreach,
    Hook,
    Loop,
    Map,
    Parallel,
    Sleep,
    Then,
    Wait,
)
from orchestrator.definitions.foreign import TaskEntry, is_foreign, task_entry
from orchestrator.definitions.paths import require_text
from orchestrator.definitions.sources import Source, map_spec
from orchestrator.definitions.step import Step, step
from orchestrator.rules.bounds import to_seconds
from orchestrator.rules.graph import Graph

T = TypeVar("T")
EntryLike: TypeAlias = "Callable[..., Any] | Builder | TaskEntry | str | dict[str, Any]"


class _Field(Generic[T]):
    """An attribute of a workflow that reads the field of the same name in its definition.

    It cannot be set: a definition is frozen, and a workflow that has been committed must stay what was checked.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, workflow: None, owner: type) -> Self: ...

    @overload
    def __get__(self, workflow: Builder, owner: type) -> T: ...

    def __get__(self, workflow: Builder | None, owner: type) -> Self | T:
        if workflow is None:
            return self
        found: T = getattr(workflow.definition, self.name)
        return found

    def __set__(self, workflow: Builder, value: Never) -> None:
        raise AttributeError(f"{self.name} of the workflow {workflow.id!r} cannot be set: give it to Workflow()")


# Its methods are the words of the public builder API, which makes them more than twelve.
class Builder:
    """A workflow under construction: a definition that grows block by block, and its graph once it is committed.

    An entry is a `Step`, a `Workflow`, a Celery task or signature, the registered name of a Celery task, or a function.
    A condition or computed setting takes `(data)`, `(ctx)` or `(data, ctx)`, plain or async. Anything else given raises
    TypeError at once. A block that is added after `commit` makes the workflow uncommitted again.
    """

    component: ClassVar[str] = "WORKFLOW"

    id = _Field[str]()
    description = _Field[str]()
    input = _Field[Any]()
    output = _Field[Any]()
    state = _Field[Any]()
    version = _Field[str | int | None]()
    retries = _Field[int]()
    retry_delay = _Field[float]()
    validate_inputs = _Field[bool]()
    on_start = _Field[Hook | None]()
    on_finish = _Field[Hook | None]()
    on_error = _Field[Hook | None]()
    auto_restart = _Field[bool]()
    emit_step_events = _Field[bool]()
    inline = _Field[bool]()

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._committed: Definition | None = None
        self._graph: Graph | None = None

    @classmethod
    def from_definition(cls, definition: Definition) -> Self:
        """Make an uncommitted workflow of a definition, bound to nothing."""
        workflow = cls.__new__(cls)
        Builder.__init__(workflow, definition)
        return workflow

    @property
    def definition(self) -> Definition:
        """The flow and options as they are now, as frozen data."""
        return self._definition

    @property
    def committed(self) -> bool:
        """True where the flow is as it was when `commit` was called last."""
        return self._committed is self._definition

    def commit(self) -> Self:
        """Check the whole flow and make it ready to run. Doing so again without a change does nothing.

        Raises FlowNotDefined without any entry, and GraphInvalid with everything that is wrong: ids that are used
        twice, are reserved or do not match, empty blocks, nested workflows that are empty, uncommitted or nested in
        themselves, a concurrency below 1, a wait with `on_timeout` but no timeout, a mapping from a step that is not
        in this workflow.
        """
        if not self.committed:
            self._graph = self._build_graph()
            self._committed = self._definition
        return self

    def _build_graph(self) -> Graph:
        check(self._definition)
        return compile_definition(self._definition)

    def _add(self, block: Block) -> Self:
        self._definition = replace(self._definition, blocks=(*self._definition.blocks, block))
        return self

    def then(self, entry: EntryLike, id: str | None = None) -> Self:
        """Run an entry with the output of what came before. `id` runs it under another id."""
        return self._add(Then(as_entry(entry, id)))

    def parallel(self, *entries: EntryLike, allow_failure: bool = False) -> Self:
        """Run all entries at once, with the same input; the output is a dict by their ids.

        All are waited for. A failed one fails the run, or counts as None with `allow_failure`.
        """
        return self._add(Parallel(tuple(map(as_entry, entries)), allow_failure))

    def branch(self, *arms: tuple[Callable[..., Any], EntryLike]) -> Self:
        """Run every entry whose condition is truthy, at once; the output is a dict of those that ran, by their ids.

        Where no condition holds it is the empty dict. A condition that raises fails the run.
        """
        return self._add(Branch(tuple(_arm(number, arm) for number, arm in enumerate(arms))))

    def do_while(self, entry: EntryLike, condition: Callable[..., Any]) -> Self:
        """Run the entry, and again with its own output as long as the condition holds for that. At least once."""
        return self._add(Loop(as_entry(entry), as_callback(condition, "the condition of do_while"), until=False))

    def do_until(self, entry: EntryLike, condition: Callable[..., Any]) -> Self:
        """Run the entry, and again with its own output until the condition holds for that. At least once."""
        return self._add(Loop(as_entry(entry), as_callback(condition, "the condition of do_until"), until=True))

    def foreach(self, entry: EntryLike, concurrency: int | Callable[..., Any] = 1) -> Self:
        """Run the entry once for each item of the list that arrives; the output is the list of outputs, in input order.

        At most `concurrency` items are under way at a time, or as many as a function says when the block begins.
        """
        if isinstance(concurrency, int) and not isinstance(concurrency, bool):
            return self._add(Foreach(as_entry(entry), concurrency))
        return self._add(Foreach(as_entry(entry), as_callback(concurrency, "the concurrency of foreach")))

    def map(self, spec: Callable[..., Any] | Source | Mapping[str, Any], id: str | None = None) -> Self:
        """Make the next entry's input: by one function or source, or as a dict whose values are sources or functions.

        Sources are `from_step`, `from_input`, `from_context`, `constant` and `template`. The id is by default
        `mapping_<workflow>_<n>`. TypeError names a key whose value is no source.
        """
        return self._add(Map(map_spec(spec), id))

    def sleep(self, seconds: float | timedelta | Callable[..., Any], id: str | None = None) -> Self:
        """Wait so many seconds, or as long as a function says, and pass the input on. A negative time counts as 0."""
        if callable(seconds):
            return self._add(Sleep(None, None, as_callback(seconds, "sleep"), id))
        return self._add(Sleep(as_seconds(seconds, "sleep"), None, None, id))

    def sleep_until(self, moment: datetime | Callable[..., Any], id: str | None = None) -> Self:
        """Wait until a moment, or the one that a function says, and pass the input on. One in the past is over at once.

        A datetime without a zone is in local time.
        """
        if isinstance(moment, datetime):
            return self._add(Sleep(None, as_moment(moment), None, id))
        return self._add(Sleep(None, None, as_callback(moment, "sleep_until"), id))

    def wait_for_event(
        self,
        name: str,
        schema: Any = None,
        timeout: float | timedelta | None = None,
        on_timeout: EntryLike | None = None,
        id: str | None = None,
    ) -> Self:
        """Wait for an event, sent before or after the wait begins; its data is the output.

        * `schema`: the annotation of the data.
        * `timeout`: seconds or a timedelta. When it has passed, the entry `on_timeout` runs with the wait's input, and
          its output is the wait's; without one the run fails.
        * `id`: the event's name by default.
        """
        seconds = None if timeout is None else as_seconds(timeout, "the timeout of wait_for_event")
        otherwise = None if on_timeout is None else as_entry(on_timeout)
        declared = require_annotation(schema, "the schema of wait_for_event")
        event = require_text(name, "wait_for_event() takes the name of an event")
        return self._add(Wait(event, declared, seconds, otherwise, id))


def _arm(number: int, arm: Any) -> tuple[Callback, BlockEntry]:
    if not isinstance(arm, tuple) or len(arm) != 2:
        raise TypeError(f"arm {number} of branch() is {arm!r}, not a pair (condition, entry)")
    condition, entry = arm
    return as_callback(condition, f"the condition of arm {number} of branch()"), as_entry(entry)


def as_entry(given: Any, id: str | None = None) -> BlockEntry:
    """The entry that a user gave, under its own id or this one.

    Raises TypeError for what is no entry, and for a lambda without an id.
    """
    if isinstance(given, Step):
        return given if id is None else clone_step(given, id=id)
    if isinstance(given, Builder):
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
    """The condition or computed setting that a user gave. TypeError for an entry, and for what is no function."""
    if is_foreign(given) or isinstance(getattr(given, "component", None), str) or not callable(given):
        raise TypeError(f"{what} takes a function, not {given!r}")
    return Callback(given)


def as_seconds(given: Any, what: str) -> float:
    """Seconds, never negative. TypeError for what is no duration."""
    if isinstance(given, timedelta):
        return max(given.total_seconds(), 0.0)
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        seconds = to_seconds(given, what)
        return seconds if math.isnan(seconds) else max(seconds, 0.0)
    raise TypeError(f"{what} takes seconds or a timedelta, not {given!r}")


def as_moment(given: datetime) -> datetime:
    """An aware moment in UTC; a naive one is local time, as everywhere in Python."""
    return given.astimezone(UTC)
