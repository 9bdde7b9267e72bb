"""The check of a definition's types: what pydantic cannot build, and waits for one event that disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from orchestrator.codec import is_any_annotation, type_adapter
from orchestrator.definitions.definition import Block, ControlEntry, Definition, Wait, entries_of
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.step import Step


def problems_of_types(definition: Definition) -> Iterator[str]:
    """One sentence for each declared type that no value can be checked against, nested workflows apart."""
    # Found out at the commit: in a run, the steps before would have had their effects already.
    for what in ("input", "output", "state"):
        yield from _problem_of_type(f"the {what} of the workflow", getattr(definition, what))
    for _, block in definition.identify_blocks():
        for what, annotation in _types_of(block):
            yield from _problem_of_type(what, annotation)


def _types_of(block: Block) -> Iterator[tuple[str, Any]]:
    if isinstance(block, Wait):
        yield f"the schema of the wait for {block.event!r}", block.schema
    for _, entry in entries_of("", block):
        if isinstance(entry, Step):
            for what in ("input", "output", "resume", "suspend"):
                yield f"the {what} of the step {entry.id!r}", getattr(entry, what)


def _problem_of_type(what: str, annotation: Any) -> Iterator[str]:
    if annotation is None or is_any_annotation(annotation):
        return
    try:
        type_adapter(annotation)
    except PydanticUndefinedAnnotation:
        return  # a class that names another one which its module has yet to define: pydantic looks again later
    except PydanticUserError as error:
        reason = _REASONS.get(error.code or "", error.message)
        yield f"{what} is {name_of_type(annotation)}, which pydantic cannot check values against: {reason}"


_REASONS = {
    "typed-dict-version": "take TypedDict from `typing_extensions` in the place of `typing` (Python below 3.12)",
    "type-adapter-config-unused": (
        "a class inside is unknown to pydantic; make it a model or dataclass, or allow it there by "
        "`__pydantic_config__ = {'arbitrary_types_allowed': True}`"
    ),
}


def problems_of_events(definition: Definition) -> Iterator[str]:
    """One sentence for each event whose waits take different types, be they in nested workflows."""
    # The waits of a run for one event share a mailbox. An event may be sent before any of them has begun, and nobody
    # knows then which will receive it: it is checked against the type of all.
    types: dict[str, list[Any]] = {}
    for wait in _waits_of(definition, ()):
        found = types.setdefault(wait.event, [])
        if wait.schema not in found:
            found.append(wait.schema)
    for event, found in types.items():
        if len(found) > 1:
            names = " and ".join("any data" if each is None else name_of_type(each) for each in found)
            yield (
                f"the waits for the event {event!r} take different data: {names}; give them one schema (`A | B` takes "
                "either), or give each an event of its own"
            )


def _waits_of(definition: Definition, around: tuple[Definition, ...]) -> Iterator[Wait]:
    if any(definition is each for each in around):
        return  # nested in itself, which is another problem
    for _, block in definition.identify_blocks():
        if isinstance(block, Wait):
            yield block
        for _, entry in entries_of("", block):
            if not isinstance(entry, (Step, TaskEntry, ControlEntry)):
                yield from _waits_of(entry.definition, (*around, definition))


def name_of_type(annotation: Any) -> str:
    """The name of an annotation as an author would write it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
