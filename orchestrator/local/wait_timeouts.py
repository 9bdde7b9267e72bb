"""The timeouts of waits for events in runs of this process.

A wait leaves its run suspended: no thread is at work on it, and no scheduler sweeps the runs of this runtime. So this
process ends the wait when its time is over, as long as the process lives.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from orchestrator.background import on_fork
from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_token
from orchestrator.ports import Store
from orchestrator.rules.change import Committed
from orchestrator.rules.model import ActivationStatus
from orchestrator.rules.timers import on_deadline, with_request_id

log = logging.getLogger("orchestrator")

_RETRY_DELAY = 1_000  # ms until a timeout that the store did not answer is tried again


@dataclass(frozen=True, slots=True)
class WaitTimeout:
    """A wait and its deadline."""

    run_id: str
    # The path of the wait.
    path: str
    # By the store's clock, in ms. With the path it tells this wait from a later one at the same path.
    deadline: int


class WaitTimeouts:
    """Ends waits whose time is over. `call_later` calls a function in so many ms, not before.

    It returns a key by which `discard` forgets the call. `on_timeout` is called with the commit that has ended a wait.
    """

    def __init__(
        self,
        store: Store,
        redelivery_delay: int,
        call_later: Callable[[int, Callable[[], None]], int],
        discard: Callable[[int], None],
        on_timeout: Callable[[Committed], None],
    ) -> None:
        self._store = store
        self._redelivery_delay = redelivery_delay
        self._call_later = call_later
        self._discard = discard
        self._on_timeout = on_timeout
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's timeouts, as their timers are forgotten: else a child could not arm the same again."""
        self._lock = threading.Lock()
        self._armed: dict[str, dict[WaitTimeout, int]] = {}  # by run: the keys of their calls

    def arm(self, run_id: str) -> None:
        """End each wait of the run when its time is over, and forget those that are over already. Idempotent."""
        # What another thread arms while the store is read may not be among what was read: it stays.
        with self._lock:
            known = list(self._armed.get(run_id, ()))
        waits = self._waits_of(run_id)
        for timeout in waits:
            self._add(timeout, timeout.deadline - self._store.now())
        self._forget(run_id, [timeout for timeout in known if timeout not in waits])

    def is_armed(self, run_id: str) -> bool:
        """Return True if a wait of the run may still end here."""
        return run_id in self._armed

    def forget(self, run_id: str) -> None:
        """Let all waits of a run be that is over: their moments may be weeks away."""
        with self._lock:
            known = list(self._armed.get(run_id, ()))
        self._forget(run_id, known)

    def _waits_of(self, run_id: str) -> set[WaitTimeout]:
        header = self._store.header(run_id)
        if header is None or not header.waiting:
            return set()
        return {
            WaitTimeout(run_id, activation.path, activation.deadline)
            for activation in self._store.load_awaiting(run_id)
            if activation.status == ActivationStatus.WAITING and activation.deadline
        }

    def _add(self, timeout: WaitTimeout, delay: int) -> None:
        with self._lock:
            armed = self._armed.setdefault(timeout.run_id, {})
            if timeout not in armed:
                armed[timeout] = self._call_later(delay, partial(self._try_expire, timeout))

    def _forget(self, run_id: str, timeouts: Iterable[WaitTimeout]) -> None:
        with self._lock:
            armed = self._armed.get(run_id, {})
            for timeout in timeouts:
                if (key := armed.pop(timeout, None)) is not None:
                    self._discard(key)
            if not armed:
                self._armed.pop(run_id, None)

    def _try_expire(self, timeout: WaitTimeout) -> None:
        self._forget(timeout.run_id, [timeout])
        try:
            self._expire(timeout)
        except StoreUnavailable as error:
            extra = {"run_id": timeout.run_id}
            log.warning("run %s: the time of a wait is over, and %s", timeout.run_id, error, extra=extra)
            self._add(timeout, _RETRY_DELAY)
        except Exception:  # the thread must outlive an error of a single wait
            text = "run %s: the time of a wait is over, and it could not be ended"
            log.exception(text, timeout.run_id, extra={"run_id": timeout.run_id})

    def _expire(self, timeout: WaitTimeout) -> None:
        """End the wait as a sweep does for the runs of workers."""
        store, run_id = self._store, timeout.run_id
        header, found = store.header(run_id), store.load(run_id, [timeout.path])
        if (
            header is None
            or not found
            or found[0].status != ActivationStatus.WAITING
            or found[0].deadline != timeout.deadline
        ):
            return  # an event came first, or the step waits anew: that wait has a timeout of its own
        # The thread goes by this process's clock and the deadline by the store's: the store decides.
        if (left := timeout.deadline - store.now()) > 0:
            self._add(timeout, left)
            return
        action = on_deadline(header, found[0], self._redelivery_delay)
        # Under an id: should the answer get lost, no sweep comes here that would publish what is in the queue then.
        answer = store.commit(run_id, with_request_id(action.change, new_token())) if action is not None else None
        if isinstance(answer, Committed):
            self._on_timeout(answer)
