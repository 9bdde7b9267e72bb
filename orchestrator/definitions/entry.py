"""An entry seen from outside: what steps, Celery tasks, workflows and control blocks have in common.

This module imports nothing of its package, so that `Context` can name the entries whose results it reads.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

Out = TypeVar("Out")
Flow = TypeVar("Flow", covariant=True)


class Entry(Protocol):
    """Anything that a workflow keeps a result of, under its id."""

    @property
    def id(self) -> str:
        """The id, unique in the workflow around it."""
        ...

    @property
    def component(self) -> str:
        """The kind: `STEP`, `TASK`, `WORKFLOW`, `MAP`, `SLEEP` or `WAIT`."""
        ...

    @property
    def description(self) -> str:
        """A line for people, which may be empty."""
        ...

    @property
    def input(self) -> Any:
        """The annotation of the input, None where anything goes."""
        ...

    @property
    def output(self) -> Any:
        """The annotation of the output, None where anything goes."""
        ...


class WorkflowEntry(Entry, Protocol[Flow]):
    """A workflow as an entry of another one. `Flow` is what it is defined by."""

    @property
    def definition(self) -> Flow:
        """The flow and options as they are now."""
        ...

    @property
    def committed(self) -> bool:
        """True where nothing was changed since `commit` was called last."""
        ...


class TypedEntry(Generic[Out]):
    """An entry whose output is an `Out` for a type checker.

    A step's function says so in one of several ways (plain, async, generator), which no structure could tell apart. So
    the type stands in a base class, which holds nothing at run time.
    """
