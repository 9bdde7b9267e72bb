"""Leases: this process renews those of its claims, and learns when one has ended or its run has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf

from orchestrator.background import ForkAwareThread, on_fork
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.logs import log_context
from orchestrator.engine.settings import Settings
from orchestrator.errors import StoreRefused, StoreUnavailable
from orchestrator.green import is_green, sleep_natively, start_native_thread
from orchestrator.host import monotonic
from orchestrator.ports import LeaseRef, Store
from orchestrator.rules.change import Claimed

log = logging.getLogger("orchestrator")

_MAX_NAMED = 5  # runs in one line of the log


@dataclass(slots=True)
class _Lease:
    """One claim of this process."""

    # as the store gave it
    claimed: Claimed
    # set when the lease has gone to another worker, or the run has ended
    signal: AbortSignal
    # the moment, by this process's clock, at which the step is ended for its time limit
    until: float = inf


class LeaseKeeper:
    """The thread of a process that renews the leases of all its claims. It starts with the first claim.

    It renews them in one call, at each third of a lease. A step that holds the interpreter's lock for longer than the
    lease may run twice. Among greenlets, where a step that computes stops this thread as well, a second one renews
    beside it, which is a thread indeed and has connections of its own.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        on_overdue: Callable[[Claimed, Exception], None],
        *,
        starts_thread: bool = True,
    ) -> None:
        """Make a keeper without a thread. Unless it `starts_thread`, somebody else calls `beat`.

        It calls `on_overdue`, in a thread of its own, for a step that is over its time limit by more than a lease.
        """
        # Started with the first claim, so after a fork: a thread does not survive one.
        self._store = store
        self._settings = settings
        self._on_overdue = on_overdue
        self._starts_thread = starts_thread
        self._thread = ForkAwareThread(self._heartbeat, "orchestrator-keeper")
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the parent's claims to the parent, which renews them."""
        self._lock = threading.Lock()
        self._leases: dict[LeaseRef, _Lease] = {}
        self._ended = threading.Event()

    @contextmanager
    def keep_alive(self, claimed: Claimed) -> Iterator[AbortSignal]:
        """Renew the claim's lease until the block is left. The signal is set when the lease or the run has ended."""
        key = LeaseRef(claimed.header.run_id, claimed.activation.path, claimed.activation.lease_token)
        lease = _Lease(claimed, AbortSignal())
        limit = claimed.activation.where.time_limit
        if limit:
            # A lease beyond the limit, so that the pool's own hard limit comes first where the pool has one.
            lease.until = monotonic() + limit + self._settings.lease_seconds
        with self._lock:
            self._leases[key] = lease
            if self._starts_thread:
                self._ensure_started()
        try:
            yield lease.signal
        finally:
            with self._lock:
                del self._leases[key]

    def _ensure_started(self) -> None:
        if not self._thread.is_started and is_green():
            start_native_thread(self._renew_beside)
        self._thread.ensure_started()

    def _renew_beside(self) -> None:
        """Renew all leases, and leave what else there is to do to the heartbeat."""
        # No lock is shared with greenlets, and nothing is logged: locks of theirs mean nothing between real threads.
        store = self._store.with_own_connections()
        while not self._ended.is_set():
            sleep_natively(self._settings.lease_seconds / 3)
            if keys := list(self._leases):
                with suppress(Exception):  # the heartbeat tells what is wrong
                    store.renew(keys, self._settings.lease)

    def abort(self, run_id: str) -> None:
        """Set the signals of all steps of a run that this process runs."""
        # Other processes learn of a canceled run by their next renewal, which the store refuses.
        with self._lock:
            signals = [lease.signal for key, lease in self._leases.items() if key.run_id == run_id]
        for signal in signals:
            signal.set()

    def close(self) -> None:
        """Stop renewing."""
        self._ended.set()

    def beat(self) -> float:
        """Renew all leases, and end what is over its time limit. Returns the seconds until the next time."""
        # Two renewals fit into a lease: one of them may fail, and the step still keeps its lease.
        pause = self._settings.lease_seconds / 3
        with self._lock:
            leases = dict(self._leases)
        # One round trip for all: a pool of a hundred threads asks the store as often as a pool of one. If the store is
        # away, it is asked more often: of a lease there may be little left when it is back.
        if leases and not self._renew(list(leases)):
            pause /= 4
        self._expire([lease for lease in leases.values() if lease.until <= monotonic()])
        return pause

    def _heartbeat(self) -> None:
        pause = self._settings.lease_seconds / 3
        while not self._ended.wait(pause):
            try:
                pause = self.beat()
            except Exception:  # the thread must outlive any single error: without it every lease ends
                log.exception("leases were not renewed, or time limits not enforced")

    def _expire(self, over: Sequence[_Lease]) -> None:
        """Fail steps that are over their time limit. Their own outcomes are refused when they come."""
        # For pools without a hard limit of their own, such as threads: nothing there can stop a function from outside.
        for lease in over:
            lease.until = inf
            activation = lease.claimed.activation
            text = f"step {activation.step!r} ran into its time limit of {activation.where.time_limit} s"
            limit = TimeoutError(text)
            # Whoever heeds the signal leaves with this error, and not as if the run had been canceled.
            lease.signal.set(limit)
            # It reads and commits, and may wait for the store or the broker. Renewals wait for nobody.
            threading.Thread(
                target=self._end_overdue, args=(lease.claimed, limit), name="orchestrator-limit", daemon=True
            ).start()

    def _end_overdue(self, claimed: Claimed, limit: TimeoutError) -> None:
        try:
            self._on_overdue(claimed, limit)
        except Exception as error:  # noqa: BLE001  (the end of a thread; the lease goes on as long as the step does)
            activation, header = claimed.activation, claimed.header
            text = "step %s of run %s is over its time limit, but: %s"
            log.warning(text, activation.step, header.run_id, error, extra=log_context(header, activation))

    def _renew(self, keys: Sequence[LeaseRef]) -> bool:
        try:
            # A lease that is over is renewed too, as long as no other worker has claimed the activation: the step goes
            # on as if the renewal had not been late.
            refused = self._store.renew(keys, self._settings.lease)
        except StoreUnavailable as error:
            log.warning("could not renew %d lease(s), of run %s: %s", len(keys), _runs_of(keys), error)
            return False
        except StoreRefused as error:
            # One of the runs is damaged. The others have been renewed, and what is lost shows the next time.
            log.error("one of %d lease(s), of run %s, was not renewed: %s", len(keys), _runs_of(keys), error)
            return True
        for key, reason in refused.items():
            with self._lock:
                lease = self._leases.get(key)
            if lease is None:  # the attempt has been committed meanwhile
                continue
            activation, header = lease.claimed.activation, lease.claimed.header
            text = "step %s of run %s goes on without this worker: %s"
            log.info(text, activation.step, header.run_id, reason, extra=log_context(header, activation))
            lease.signal.set()
        return True


def _runs_of(keys: Sequence[LeaseRef]) -> str:
    """Name the runs of some leases, a few of them where they are many."""
    ids = sorted({key.run_id for key in keys})
    more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
    return ", ".join(ids[:_MAX_NAMED]) + more
