"""Log records of runs: each carries `run_id`, `workflow_id` and `step`, so that logs can be searched by them."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from orchestrator.rules.model import Activation, RunHeader

log = logging.getLogger("orchestrator")


def log_context(header: RunHeader, activation: Activation | None = None, workflow_id: str = "") -> dict[str, str]:
    """The `extra` of an activation about a run, and about one of its steps where it is one's.

    `run_id` is always that of the run as a whole; `workflow_id` is the innermost workflow's where that is known.
    """
    found = {"run_id": header.run_id, "workflow_id": workflow_id or header.workflow_id}
    # The run's own activation is none of a step.
    if activation is not None and activation.path:
        found["step"] = activation.step
    return found


def error_text(error: BaseException) -> str:
    """The text of an error, whatever its class does when it is asked."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (a user's class)
        return f"<{type(error).__qualname__} without text>"


def log_lost_worker(run_id: str, error: BaseException) -> None:
    """Log that a thread of this process ended in the middle of a run."""
    log.error("run %s was left as a lost worker would leave it: %r", run_id, error, extra={"run_id": run_id})


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """The logger that user code gets. An `extra` given with a call is added; Python's own adapter would drop it."""

    def __init__(self, extra: dict[str, str]) -> None:
        super().__init__(log, extra)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add `run_id`, `workflow_id` and `step`."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs
