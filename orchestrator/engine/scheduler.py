"""The scheduler: one thread that sweeps what is due. Outbox, leases, timers, retries and recovery are this one mechanism.

It runs no user code and needs no graph. In each namespace one scheduler at a time does the work; the others wait for
its right to end.
"""

from __future__ import annotations

import logging
import threading

from orchestrator.engine.settings import Settings
from orchestrator.engine.sweep import IsShort, Sweep, SweepReport
from orchestrator.errors import StoreUnavailable
from orchestrator.host import chance, monotonic
from orchestrator.ports import Runtime, Store

__all__ = ["Scheduler", "SweepReport"]

log = logging.getLogger("orchestrator")

# Ticks that a scheduler waits which could send nothing of what it should. Others ask for the right more often.
_STAND_BACK = 1.5


class Scheduler:
    """Sweeps one namespace of one store. `is_short` says whether the queue of a message is short."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        settings: Settings,
        worker: str,
        is_short: IsShort = lambda header, dispatch: True,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._settings = settings
        self._worker = worker
        self._is_short = is_short
        self._ended = threading.Event()
        self._trusted_from = 0
        self._is_probing = False
        self._announced = float("-inf")

    def begin(self) -> None:
        """Announce the worker at once. A store that is away is no reason not to start: `run` goes on trying."""
        try:
            self.announce()
        except StoreUnavailable as error:
            log.warning("this worker cannot be announced: %s", error)

    def run(self) -> None:
        """Tick until `stop` is called."""
        while not self._ended.is_set():
            report = SweepReport()
            try:
                self._announce_now_and_then()
                report = self.tick()
                if report.failure is not None:
                    log.warning("tick: %s", report.failure)
            except StoreUnavailable as error:
                log.warning("tick: %s", error)
            except Exception:  # the thread must outlive whatever one tick finds
                log.exception("tick failed")
            self._ended.wait(self._pause_after(report))

    def stop(self) -> None:
        """End `run` soon."""
        self._ended.set()

    def announce(self) -> None:
        """Note that this worker lives."""
        # Several announcements may be missed before callers are told that no worker lives.
        ttl = max(5.0, 5 * self._settings.tick_seconds)
        self._store.heartbeat(self._settings.namespace, self._worker, round(ttl * 1000))

    def _announce_now_and_then(self) -> None:
        """Announce once in a tick, while one round follows the other."""
        if monotonic() - self._announced >= self._settings.tick_seconds / 2:
            self.announce()
            self._announced = monotonic()

    def tick(self) -> SweepReport:
        """Sweep one round, if no other scheduler has the right to."""
        # A scheduler that has gone silent is replaced after three ticks.
        lease = round(self._settings.tick_seconds * 3000)
        gap = self._store.acquire_sweep(self._settings.namespace, self._worker, lease)
        if not gap:
            return SweepReport()
        if gap > max(self._settings.lease, 3 * lease):
            # The sweeps have paused: perhaps no worker could renew its leases either.
            # So each gets the time of a lease to renew its own, before any claim is taken from it.
            self._trusted_from = self._store.now() + self._settings.lease
        sweep = Sweep(
            self._store,
            self._runtime,
            self._settings,
            self._is_short,
            trusts_leases=not self._trusted_from or self._store.now() >= self._trusted_from,
            is_probing=self._is_probing,
        )
        report = sweep.run()
        self._is_probing = report.failure is not None
        if report.is_in_vain:
            # Perhaps this process alone cannot reach the broker: another may have the right from the next moment on.
            self._store.acquire_sweep(self._settings.namespace, self._worker, 1)
        return report

    def _pause_after(self, report: SweepReport) -> float:
        """Seconds until the next tick: none while there is more to do."""
        tick = self._settings.tick_seconds
        if report.is_in_vain:
            return tick * _STAND_BACK
        # Spread by chance, so that the schedulers of many workers do not ask for the right to sweep in step.
        return 0.0 if report.is_full else tick * (0.75 + 0.5 * chance())
