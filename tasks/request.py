"""Requests that settle a step at once when its child process is gone, instead of waiting for the lease.

A hard time limit ends the step as failed (or leads to its next attempt); a child that died gives its claim back. Both
talk to the store, so they do it in a thread of their own: the main process has a broker to listen to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from orchestrator.canvas.messages import HEADER
from orchestrator.engine.executor import Executor
from orchestrator.errors import StoreUnavailable

log = logging.getLogger("orchestrator")


def _call_patiently(executor: Executor, call: Callable[..., None], place: tuple[str, str, int]) -> None:
    """Call the engine, for the time of a lease while the store is away: after that the lease brings it about."""
    try:
        executor.services.retry_while_unavailable(lambda: call(*place))
    except StoreUnavailable as error:
        log.warning("run %s: the end of a worker is not recorded: %s", place[0], error, extra={"run_id": place[0]})
    except Exception:  # nobody else sees what this thread comes across
        log.exception("run %s: the end of a worker is not recorded", place[0], extra={"run_id": place[0]})


def request_class(executor: Executor) -> type[Request]:
    """The class of the requests of step messages in this app's workers."""

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
                threading.Thread(
                    target=_call_patiently, args=(executor, call, place), name="orchestrator-settle", daemon=True
                ).start()

    return StepRequest
