"""Requests that end an attempt at once when its child process is dead, instead of waiting for the end of the lease.

After a hard time limit the step fails, or its next attempt follows. After a child has died, the activations that it had
claimed go back into the queue.
"""

from __future__ import annotations

from typing import Any

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from orchestrator.tasks.deliveries import Deliveries

# By what the pool, and Celery, tell of a child that has not told an outcome itself.
_GONE = (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)


def request_class(deliveries: Deliveries, base: type[Request] = Request) -> type[Request]:
    """Make the class of the requests of step messages in this app's workers, or of an existing task that is a step."""
    if getattr(base, "settles_for", None) is deliveries:
        return base

    class StepRequest(base):  # type: ignore[misc]  # Celery has no types
        """A step message in the worker's main process."""

        settles_for = deliveries

        def on_accepted(self, pid: int, time_accepted: float) -> None:
            deliveries.begin(self, pid)
            super().on_accepted(pid, time_accepted)

        def on_timeout(self, soft: bool, timeout: float) -> None:
            if not soft:
                text = f"step {self.name} ran into its time limit of {timeout} s"
                deliveries.limit(self, TimeLimitExceeded(text))
            super().on_timeout(soft, timeout)

        def terminate(self, pool: Any, signal: Any = None) -> None:
            # Before the process is dead: its watcher would take it for one that was lost.
            deliveries.terminate(self)
            super().terminate(pool, signal)

        def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
            deliveries.end(self)
            return super().on_success(failed__retval__runtime, **kwargs)

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
            if isinstance(error, _GONE):
                deliveries.lose(self)
            elif not isinstance(error, TimeLimitExceeded):  # told of by `on_timeout`
                deliveries.end(self)
            return super().on_failure(exc_info, send_failed_event, return_ok)

    return StepRequest
