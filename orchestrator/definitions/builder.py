"""The builder methods of a workflow: each adds one block and returns the workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from orchestrator.definitions import blocks
from orchestrator.definitions.annotations import stated
from orchestrator.definitions.blocks import as_callback, as_entry, as_moment, as_seconds
from orchestrator.definitions.paths import as_text
from orchestrator.definitions.sources import map_spec

if TYPE_CHECKING:
    from orchestrator.definitions.blocks import Block, Entry, EntryLike
    from orchestrator.definitions.callables import Callback


class Builder:
    """What a workflow is built with, block by block.

    An entry is a `Step`, a `Workflow`, a Celery task or signature, the registered name of a Celery task, or a function.
    A condition or computed setting takes `(data)`, `(ctx)` or `(data, ctx)`, plain or async. Anything else given raises
    TypeError at once. A block that is added after `commit` makes the workflow uncommitted again.
    """

    def __init__(self) -> None:
        self.blocks: tuple[Block, ...] = ()

    def _add(self, block: Block) -> Self:
        self.blocks = (*self.blocks, block)
        return self

    def then(self, entry: EntryLike, id: str | None = None) -> Self:
        """Run an entry with the output of what came before. `id` runs it under another id."""
        return self._add(blocks.Then(as_entry(entry, id)))

    def parallel(self, *entries: EntryLike, allow_failure: bool = False) -> Self:
        """Run all entries at once, with the same input; the output is a dict by their ids.

        All are waited for. A failed one fails the run, or counts as None with `allow_failure`.
        """
        return self._add(blocks.Parallel(tuple(map(as_entry, entries)), allow_failure))

    def branch(self, *arms: tuple[Callable[..., Any], EntryLike]) -> Self:
        """Run every entry whose condition is truthy, at once; the output is a dict of those that ran, by their ids.

        Where no condition holds it is the empty dict. A condition that raises fails the run.
        """
        return self._add(blocks.Branch(tuple(_arm(number, arm) for number, arm in enumerate(arms))))

    def do_while(self, entry: EntryLike, condition: Callable[..., Any]) -> Self:
        """Run the entry, and again with its own output as long as the condition holds for that. At least once."""
        return self._add(blocks.Loop(as_entry(entry), as_callback(condition, "the condition of do_while"), until=False))

    def do_until(self, entry: EntryLike, condition: Callable[..., Any]) -> Self:
        """Run the entry, and again with its own output until the condition holds for that. At least once."""
        return self._add(blocks.Loop(as_entry(entry), as_callback(condition, "the condition of do_until"), until=True))

    def foreach(self, entry: EntryLike, concurrency: int | Callable[..., Any] = 1) -> Self:
        """Run the entry once for each item of the list that arrives; the output is the list of outputs, in input order.

        At most `concurrency` items are under way at a time, or as many as a function says when the block begins.
        """
        if isinstance(concurrency, int) and not isinstance(concurrency, bool):
            return self._add(blocks.Foreach(as_entry(entry), concurrency))
        return self._add(blocks.Foreach(as_entry(entry), as_callback(concurrency, "the concurrency of foreach")))

    def map(self, spec: Callable[..., Any] | Mapping[str, Any], id: str | None = None) -> Self:
        """Make the next entry's input: by one function, or as a dict whose values are sources or functions.

        Sources are `from_step`, `from_input`, `from_context`, `constant` and `template`. The id is by default
        `mapping_<workflow>_<n>`. TypeError names a key whose value is no source.
        """
        return self._add(blocks.Map(map_spec(spec), id))

    def sleep(self, seconds: float | timedelta | Callable[..., Any], id: str | None = None) -> Self:
        """Wait so many seconds, or as long as a function says, and pass the input on. A negative time counts as 0."""
        if callable(seconds):
            return self._add(blocks.Sleep(None, None, as_callback(seconds, "sleep"), id))
        return self._add(blocks.Sleep(as_seconds(seconds, "sleep"), None, None, id))

    def sleep_until(self, moment: datetime | Callable[..., Any], id: str | None = None) -> Self:
        """Wait until a moment, or the one that a function says, and pass the input on. One in the past is over at once.

        A datetime without a zone is in local time.
        """
        if isinstance(moment, datetime):
            return self._add(blocks.Sleep(None, as_moment(moment), None, id))
        return self._add(blocks.Sleep(None, None, as_callback(moment, "sleep_until"), id))

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
        declared = stated(schema, "the schema of wait_for_event")
        event = as_text(name, "wait_for_event() takes the name of an event")
        return self._add(blocks.Wait(event, declared, seconds, otherwise, id))


def _arm(number: int, arm: Any) -> tuple[Callback, Entry]:
    if not isinstance(arm, tuple) or len(arm) != 2:
        raise TypeError(f"arm {number} of branch() is {arm!r}, not a pair (condition, entry)")
    condition, entry = arm
    return as_callback(condition, f"the condition of arm {number} of branch()"), as_entry(entry)
