"""Runs that somebody revokes as if they were tasks: by Flower's buttons, `app.control.revoke`, `AsyncResult.revoke`.

A run has the id of the message that has started it, or that its `AsyncResult` shows, and no message of it lives for as
long as it does. So Celery notes such an id in every worker, and nothing more follows. Here the run is canceled: each
worker that hears of it asks the store whether it is a run, and canceling twice changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from celery.worker import state

from orchestrator.engine.client_ops import cancel
from orchestrator.engine.executor import Executor
from orchestrator.errors import OrchestratorError
from orchestrator.rules.model import FINAL

log = logging.getLogger("orchestrator")


class Revokes:
    """Looks at the ids that this worker has been told to revoke. For one thread at a time."""

    def __init__(self, executor: Callable[[], Executor]) -> None:
        self._executor = executor
        # Those from before are of an earlier life of this worker, which has dealt with them.
        self._known = set(state.revoked)

    def look(self) -> None:
        """Cancel the runs whose ids have been revoked since the last look, in a thread of its own."""
        # Celery keeps up to 50,000 ids. They are gone through only where their number says that there are others; at
        # the limit the oldest make room, and each look goes through them.
        if len(state.revoked) == len(self._known) < state.REVOKES_MAX:
            return
        known, self._known = self._known, set(state.revoked)
        if found := self._known - known:
            threading.Thread(target=self._cancel, args=(found,), name="orchestrator-revokes", daemon=True).start()

    def _cancel(self, ids: Collection[str]) -> None:
        executor = self._executor()
        for run_id in ids:
            try:
                header = executor.store.header(run_id)
                if header is None or header.namespace != executor.settings.namespace or header.status in FINAL:
                    continue
                cancel(executor, header)
                log.info("run %s is canceled, for somebody has revoked it", run_id, extra={"run_id": run_id})
            except OrchestratorError as error:
                text = "run %s, which somebody has revoked, is not canceled by this worker: %s"
                log.warning(text, run_id, error, extra={"run_id": run_id})
