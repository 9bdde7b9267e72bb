"""Requests that end an attempt at once when its child process is dead, instead of waiting for the end of the lease.

After a hard time limit the step fails, or its next attempt follows. After a child has died, the activation goes back
into the queue. Both need the store, and use a thread of their own for it: the main process has to serve the broker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from orchestrator.canvas.messages import HEADER
from orchestrator.engine.executor import Executor


def request_class(executor: Executor) -> type[Request]:
    """Make the class of the requests of step messages in this app's workers."""

    class StepRequest(Request):  # type: ignore[misc]  # Celery has no types
        """A step message in the worker's main process."""

        def on_timeout(self, soft: bool, timeout: float) -> None:
            super().on_timeout(soft, timeout)
            if not soft:
                text = f"step {self.name} ran into its time limit of {timeout} s"
                self._call_engine(
                    lambda run, path, seq: executor.fail_abandoned_attempt(run, path, seq, TimeLimitExceeded(text))
                )

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
            if isinstance(error, WorkerLostError):
                self._call_engine(executor.release)
            return super().on_failure(exc_info, send_failed_event, return_ok)

        def _call_engine(self, call: Callable[..., None]) -> None:
            envelope = (self.request_dict or {}).get(HEADER)
            if envelope:
                place = (envelope["run"], envelope["path"], envelope["seq"])
                threading.Thread(target=call, args=place, name="orchestrator-abandon", daemon=True).start()

    return StepRequest
