"""Keeps this process's claims alive, and hears when one has been taken away or its run has ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.core.changes import Claimed
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.settings import Settings
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Holding, Store

log = logging.getLogger("orchestrator")


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
        self._own()

    def _own(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: dict[Holding, AbortSignal] = {}
        self._limited: dict[Holding, tuple[float, Claimed]] = {}
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @contextmanager
    def holding(self, claimed: Claimed) -> Iterator[AbortSignal]:
        """Renew this claim until the block is left. The signal is set when it is lost or its run has ended."""
        if self._pid != os.getpid():
            self._own()
        key = Holding(claimed.header.run_id, claimed.record.path, claimed.record.token)
        signal = AbortSignal()
        limit = claimed.record.where.time_limit
        with self._lock:
            self._held[key] = signal
            if limit is not None:
                self._limited[key] = (monotonic() + limit + self._settings.lease_seconds, claimed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchestrator-keeper", daemon=True)
                self._thread.start()
        try:
            yield signal
        finally:
            with self._lock:
                del self._held[key]
                self._limited.pop(key, None)

    def abort(self, run_id: str) -> None:
        """Set the signals of all steps of a run that this process runs."""
        with self._lock:
            signals = [signal for key, signal in self._held.items() if key.run_id == run_id]
        for signal in signals:
            signal.set()

    def close(self) -> None:
        """Stop renewing."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._settings.lease_seconds / 3):
            with self._lock:
                held = dict(self._held)
            if held:
                self._renew(held)
            self._expire(held)

    def _expire(self, held: dict[Holding, AbortSignal]) -> None:
        """Where no pool ends a step that outruns its limit, its claim ends at least, and its outcome comes too late."""
        with self._lock:
            over = [(key, claimed) for key, (until, claimed) in self._limited.items() if until <= monotonic()]
            for key, _ in over:
                del self._limited[key]
        for key, claimed in over:
            if key in held:
                held[key].set()
            try:
                self._overdue(claimed)
            except StoreUnavailable as error:
                log.warning("step at %s of run %s is over its time limit, but: %s", key.path, key.run_id, error)

    def _renew(self, held: dict[Holding, AbortSignal]) -> None:
        try:
            lost = self._store.renew(list(held), self._settings.lease)
        except StoreUnavailable as error:
            log.warning("could not renew %d lease(s): %s", len(held), error)
            return
        for key, reason in lost.items():
            with self._lock:
                signal = self._held.get(key)
            if signal is None:  # it has ended meanwhile, by itself
                continue
            log.info("step at %s of run %s goes on without this worker: %s", key.path, key.run_id, reason)
            signal.set()
