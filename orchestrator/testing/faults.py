"""Faults on purpose: a worker that is lost, a store that fails, a message that comes twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.app import Run
from orchestrator.engine.calling import WorkerLost
from orchestrator.errors import StoreUnavailable
from orchestrator.ports import Store
from orchestrator.rules.change import Dispatch

__all__ = ["FailingStore", "WorkerLost", "deliver_again"]


class FailingStore:
    """A store of which some calls fail, otherwise the one it is given.

    The calls of `verb` that `when` picks (all, if it is None) fail, the first `after` of them excepted, `times` in all
    (None: for ever). With `lost_reply` the call is carried out and only its answer is lost: the outcome is unknown
    to the caller, and yet decided.
    """

    def __init__(
        self,
        store: Store,
        verb: str = "commit",
        *,
        after: int = 0,
        times: int | None = 1,
        when: Callable[..., bool] | None = None,
        lost_reply: bool = False,
        error: BaseException | None = None,
    ) -> None:
        self._store = store
        self._verb = verb
        self._after = after
        self._times = times
        self._when = when
        self._lost_reply = lost_reply
        self._error = error or StoreUnavailable("the store does not answer (on purpose)")

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        return self._wrap(call) if name == self._verb else call

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_or_fail(*args: Any, **kwargs: Any) -> Any:
            if not self._should_fail(*args, **kwargs):
                return call(*args, **kwargs)
            if self._lost_reply:
                call(*args, **kwargs)
            raise self._error

        return call_or_fail

    def _should_fail(self, *args: Any, **kwargs: Any) -> bool:
        if self._times == 0 or (self._when is not None and not self._when(*args, **kwargs)):
            return False
        if self._after:
            self._after -= 1
            return False
        if self._times is not None:
            self._times -= 1
        return True


def deliver_again(run: Run) -> int:
    """Send the last message of every activation of the run once more, as a broker may; returns how many were sent."""
    orchestrator = run.orchestrator
    activations = orchestrator.store.load(run.run_id)
    again = [
        Dispatch(activation.path, activation.seq, activation.route) for activation in activations if activation.seq
    ]
    orchestrator.executor.runtime.publish(run.header(), again)
    return len(again)
