"""Log messages about runs: each carries `run_id`, `workflow_id` and `step`, so that logs can be searched by them."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from orchestrator.rules.model import Activation, RunHeader
from orchestrator.safe_text import guard_log

log = logging.getLogger("orchestrator")
guard_log("orchestrator")


def log_context(header: RunHeader, activation: Activation | None = None, workflow_id: str = "") -> dict[str, str]:
    """Return the `extra` of a log message about a run, or about one of its steps.

    `run_id` is always that of the run as a whole; `workflow_id` is the innermost workflow's where that is known.
    """
    found = {"run_id": header.run_id, "workflow_id": workflow_id or header.workflow_id}
    # The run's own activation, which settles it, is no step.
    if activation is not None and activation.path:
        found["step"] = activation.step
    return found


def error_text(error: BaseException) -> str:
    """Return the text of an error, whatever its class does when it is asked; an exit's with its name."""
    name = type(error).__qualname__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (a user's class)
        return f"<{name} without text>"
    return text if isinstance(error, Exception) else f"{name}: {text}" if text else name


def log_abandoned_attempt(run_id: str, error: BaseException) -> None:
    """Log that a thread of this process ended in the middle of an attempt."""
    log.error("run %s: an attempt was abandoned in this process: %r", run_id, error, extra={"run_id": run_id})


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """The logger that user code gets. It keeps the `extra` of a call, which Python's own adapter would drop."""

    def __init__(self, extra: dict[str, str]) -> None:
        super().__init__(log, extra)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add `run_id`, `workflow_id` and `step`."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs
