"""The `RunInfo`, which is a run as its hooks see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from orchestrator.definitions.statuses import RunStatus
from orchestrator.errors import TripWire
from orchestrator.rules.model import RunHeader


class RunInfo:
    """A run as `on_start`, `on_finish` and `on_error` see it.

    What a hook does not look at is not read: a run of ten thousand items settles as fast as one of two.
    """

    # The status that it settles with; `pending` in `on_start`.
    status: RunStatus
    # Of the outermost workflow, as is `workflow_id`: hooks are called for whole runs.
    run_id: str
    workflow_id: str
    # The resource that the run belongs to, as its caller said.
    resource_id: str | None
    # The request context as the last step left it.
    request_context: Mapping[str, Any]
    # Its records carry the run's ids.
    logger: logging.Logger | logging.LoggerAdapter[Any]
    # The `Orchestrator` that runs the workflow.
    orchestrator: Any

    def __init__(
        self,
        status: RunStatus,
        header: RunHeader,
        request_context: Mapping[str, Any],
        logger: logging.Logger | logging.LoggerAdapter[Any],
        orchestrator: Any,
        read: Mapping[str, Callable[[], Any]],
    ) -> None:
        self.status = status
        self.run_id, self.workflow_id = header.run_id, header.workflow_id
        self.resource_id = header.resource_id or None
        self.request_context = request_context
        self.logger = logger
        self.orchestrator = orchestrator
        # For the properties below; what it has no entry for is not there.
        self._read = read

    def __repr__(self) -> str:
        return f"RunInfo({self.run_id!r}, {self.status})"

    def _get(self, name: str, otherwise: Any = None) -> Any:
        return self._read[name]() if name in self._read else otherwise

    @cached_property
    def result(self) -> Any:
        """The run's result, None unless it has ended well."""
        return self._get("result")

    @cached_property
    def error(self) -> BaseException | None:
        """The run's error, None unless it has failed."""
        found = self._ended_with
        return None if isinstance(found, TripWire) else found

    @cached_property
    def tripwire(self) -> Any:
        """The reason and metadata of the `TripWire` that ended the run, else None."""
        found = self._ended_with
        return found if isinstance(found, TripWire) else None

    @cached_property
    def _ended_with(self) -> BaseException | None:
        found: BaseException | None = self._get("error")
        return found

    @cached_property
    def steps(self) -> Mapping[str, Any]:
        """A `StepResult` for each step that has begun, by its id."""
        found: Mapping[str, Any] = self._get("steps", {})
        return found

    @cached_property
    def state(self) -> Mapping[str, Any]:
        """The run's state."""
        found: Mapping[str, Any] = self._get("state", {})
        return found

    @cached_property
    def init_data(self) -> Any:
        """The run's input."""
        return self._get("input")

    @cached_property
    def execution_path(self) -> list[str]:
        """Ids of the steps in the order in which they began."""
        found: list[str] = self._get("execution_path", [])
        return found
