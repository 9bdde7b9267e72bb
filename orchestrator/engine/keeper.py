"""Keeps this process's claims alive, and hears when one has been taken away or its run has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from orchestrator.background import ForkAwareThread, on_fork
from orchestrator.core.changes import Claimed
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.logs import about
from orchestrator.engine.settings import Settings
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Holding, Store

log = logging.getLogger("orchestrator")


@dataclass(slots=True)
class _Held:
    """One claim of this process. `until`: when, by this process's clock, its step has outrun its time limit by far."""

    claimed: Claimed
    signal: AbortSignal
    until: float = inf


class Keeper:
    """One thread in each process that runs steps, begun with its first claim (so after a fork, never across one).

    It renews all claims in one call, each third of a lease. A step that holds the interpreter's lock for longer than
    the lease may run twice.
    """

    def __init__(self, store: Store, settings: Settings, overdue: Callable[[Claimed], None]) -> None:
        """`overdue` is called, in the keeper's thread, for a step that has outrun its time limit and a lease beyond
        it.
        """
        self._store = store
        self._settings = settings
        self._overdue = overdue
        self._thread = ForkAwareThread(self._run, "orchestrator-keeper")
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the parent's claims to the parent."""
        self._lock = threading.Lock()
        self._held: dict[Holding, _Held] = {}
        self._ended = threading.Event()

    @contextmanager
    def holding(self, claimed: Claimed) -> Iterator[AbortSignal]:
        """Renew this claim until the block is left. The signal is set when it is lost or its run has ended."""
        key = Holding(claimed.header.run_id, claimed.record.path, claimed.record.token)
        held = _Held(claimed, AbortSignal())
        limit = claimed.record.where.time_limit
        if limit is not None:
            held.until = monotonic() + limit + self._settings.lease_seconds
        with self._lock:
            self._held[key] = held
            self._thread.ensure_started()
        try:
            yield held.signal
        finally:
            with self._lock:
                del self._held[key]

    def abort(self, run_id: str) -> None:
        """Set the signals of all steps of a run that this process runs."""
        with self._lock:
            signals = [held.signal for key, held in self._held.items() if key.run_id == run_id]
        for signal in signals:
            signal.set()

    def close(self) -> None:
        """Stop renewing."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._settings.lease_seconds / 3):
            with self._lock:
                all_held = dict(self._held)
            try:
                if all_held:
                    self._renew(list(all_held))
                self._expire([held for held in all_held.values() if held.until <= monotonic()])
            except Exception:  # the thread must outlive whatever goes wrong once: without it every lease ends
                log.exception("leases were not renewed, or time limits not seen to")

    def _expire(self, over: Sequence[_Held]) -> None:
        """Where no pool ends a step that outruns its limit, its claim ends at least, and its outcome comes too late."""
        for held in over:
            held.until = inf
            held.signal.set()
            record, header = held.claimed.record, held.claimed.header
            try:
                self._overdue(held.claimed)
            except StoreUnavailable as error:
                text = "step %s of run %s is over its time limit, but: %s"
                log.warning(text, record.step, header.run_id, error, extra=about(header, record))

    def _renew(self, keys: Sequence[Holding]) -> None:
        try:
            lost = self._store.renew(keys, self._settings.lease)
        except StoreUnavailable as error:
            log.warning("could not renew %d lease(s): %s", len(keys), error)
            return
        for key, reason in lost.items():
            with self._lock:
                held = self._held.get(key)
            if held is None:  # it has ended meanwhile, by itself
                continue
            record, header = held.claimed.record, held.claimed.header
            text = "step %s of run %s goes on without this worker: %s"
            log.info(text, record.step, header.run_id, reason, extra=about(header, record))
            held.signal.set()
