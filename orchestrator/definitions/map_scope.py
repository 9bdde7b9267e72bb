"""The values that a mapping may speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class MapScope(Protocol):
    """The values that a mapping reads while it is evaluated."""

    @property
    def data(self) -> Any:
        """The value that arrives."""
        ...

    @property
    def state(self) -> Mapping[str, Any]:
        """The run's state."""
        ...

    @property
    def context(self) -> Mapping[str, Any]:
        """The request context."""
        ...

    @property
    def context_object(self) -> Any:
        """The `Context` that callables get."""
        ...

    def init(self, workflow_id: str | None) -> Any:
        """The input of this workflow, or of the one around it that has this id."""
        ...

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Return True and its output for a step of this workflow that has succeeded, else False and None."""
        ...
