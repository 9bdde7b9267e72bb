"""What the worker's main process does when a child is gone: it tells the engine at once, instead of waiting for the
lease.

A hard time limit ends the step as failed (or leads to its next attempt); a child that died gives its claim back. Both
talk to the store, so they do it in a thread of their own: the main process has a broker to listen to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from orchestrator.canvas.messages import HEADER
from orchestrator.engine.delivery import Engine


def request_class(find_engine: Callable[[], Engine]) -> type[Request]:
    """The class of the requests of step messages in this app's workers. The engine is made after its tasks."""

    class StepRequest(Request):  # type: ignore[misc]  # Celery has no types
        """A step message in the worker's main process."""

        def on_timeout(self, soft: bool, timeout: float) -> None:
            super().on_timeout(soft, timeout)
            if not soft:
                text = f"step {self.name} ran into its time limit of {timeout} s"
                self._tell(lambda run, path, seq: find_engine().settle(run, path, seq, TimeLimitExceeded(text)))

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
            if isinstance(error, WorkerLostError):
                self._tell(find_engine().release)
            return super().on_failure(exc_info, send_failed_event, return_ok)

        def _tell(self, word: Callable[..., None]) -> None:
            poke = (self.request_dict or {}).get(HEADER)
            if poke:
                place = (poke["run"], poke["path"], poke["seq"])
                threading.Thread(target=word, args=place, name="orchestrator-settle", daemon=True).start()

    return StepRequest
