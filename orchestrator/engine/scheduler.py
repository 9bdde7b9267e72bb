"""The scheduler: one thread in every worker that sweeps the timers which are due.

Outbox, leases, sleeps, retries and timeouts are all timers. The scheduler runs no user code and needs no graph. In each
namespace one scheduler at a time has the right to sweep; the others wait until that right ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from orchestrator.engine.announcements import announce_queues
from orchestrator.engine.settings import Settings
from orchestrator.engine.sweep import BATCH, Sweep, SweepReport
from orchestrator.errors import StoreUnavailable
from orchestrator.host import chance, monotonic
from orchestrator.ports import DueTimer, QueueWatch, Runtime, Store
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader
from orchestrator.rules.timers import SHORT, QueueState, SweepGrant

__all__ = ["Scheduler", "SweepReport"]

log = logging.getLogger("orchestrator")

# Ticks between two looks of a scheduler whether another still sweeps: there may be many of them.
_MIN_LOOK, _MAX_LOOK = 1.0, 2.0
# Ticks that a scheduler waits which could send nothing of what it should: by then another has looked.
_STAND_BACK = _MAX_LOOK
_ANNOUNCE = 2.0  # ticks between two announcements
_REMEMBERED = 6.0  # ticks for which one counts: two may be missed before blocking calls raise `NoConsumer`


class NoQueues:
    """Of queues whose length nobody can ask for: each message in them is taken at once."""

    def state_of(self, header: RunHeader, dispatch: Dispatch) -> QueueState | None:
        """Return that the queue is short."""
        return SHORT

    def watch(self) -> None:
        """Do nothing: there is nothing to be seen."""


class Scheduler:
    """Sweeps one namespace of one store. `queues` says what is known of the queues of messages.

    `listens_on` returns those on which this process's worker listens.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        settings: Settings,
        worker: str,
        queues: QueueWatch | None = None,
        listens_on: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._settings = settings
        self._worker = worker
        self._queues = queues or NoQueues()
        self._listens_on = listens_on
        self._ended = threading.Event()
        self._asked_at = 0.0  # when it last asked for the right to sweep, by this process's clock
        self._grant: SweepGrant | None = None  # the answer
        self._is_probing = False
        self._announced = float("-inf")

    def begin(self) -> None:
        """Announce the worker at once."""
        # A worker starts although the store is away: `run` goes on trying.
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
            except Exception:  # the thread must outlive any single error: without it no timer fires
                log.exception("tick failed")
            self._ended.wait(self._pause_after(report))

    def stop(self) -> None:
        """End `run` soon."""
        self._ended.set()

    def announce(self) -> None:
        """Note in the store that this worker lives, and on which queues it listens."""
        ttl = round(_REMEMBERED * max(1.0, self._settings.tick_seconds) * 1000)
        self._store.heartbeat(self._settings.namespace, self._worker, ttl)
        announce_queues(self._store, self._settings.namespace, self._worker, self._listens_on(), ttl)

    def _announce_now_and_then(self) -> None:
        # Half a tick less, for the next round may come a little later than a tick after this one.
        if monotonic() - self._announced >= (_ANNOUNCE - 0.5) * self._settings.tick_seconds:
            self.announce()
            self._announced = monotonic()

    def tick(self) -> SweepReport:
        """Sweep one round, if no other scheduler has the right to."""
        if not self._ask():
            return SweepReport()
        sweep = Sweep(
            self._store,
            self._runtime,
            self._settings,
            self._queues,
            steady=self._steady,
            find_stranded=self._find_stranded,
            is_probing=self._is_probing,
        )
        report = sweep.run()
        self._is_probing = report.failure is not None
        if report.failure is None:
            self._queues.watch()
        if report.is_in_vain:
            # Perhaps this process alone cannot reach the broker: another may have the right from the next moment on.
            self._ask(lease=1)
        return report

    def _pause_after(self, report: SweepReport) -> float:
        """Return the seconds until the next tick: none while there is more to do."""
        tick = self._settings.tick_seconds
        if report.is_in_vain:
            return tick * _STAND_BACK
        # Spread by chance, so that the schedulers of many workers do not ask for the right to sweep in step.
        if self._grant is None:
            return tick * (_MIN_LOOK + (_MAX_LOOK - _MIN_LOOK) * chance())
        return 0.0 if report.is_full else tick * (0.75 + 0.5 * chance())

    def _ask(self, lease: int = 0) -> bool:
        """Take or keep the right to sweep, for `lease` ms if that is given; return whether it is ours."""
        tick, self._asked_at = self._settings.tick_seconds * 1000, monotonic()
        # A scheduler that has gone silent is replaced after three ticks. Two ticks without a word are none that counts;
        # a quarter of a lease is one in which workers may have missed a renewal.
        pause = max(round(2 * tick), self._settings.lease // 4)
        self._grant = self._store.acquire_sweep(self._settings.namespace, self._worker, lease or round(3 * tick), pause)
        return self._grant is not None

    def _steady(self) -> int:
        """For how many ms the store has been there without a pause, as far as this tick may know; 0 without the right.

        A tick that takes long asks again. It may be busy, which is no pause; or the store was away just now, between
        two of its own questions.
        """
        if monotonic() - self._asked_at > self._settings.tick_seconds:
            self._ask()
        return self._grant.steady if self._grant is not None else 0

    def _find_stranded(self) -> list[DueTimer]:
        """Find claims of lost workers whose leases end in a future that was the present before the clock went back."""
        lease, grant = self._settings.lease, self._grant
        # Who lives has renewed within a lease of that, and is none of them.
        if grant is None or not grant.ahead or grant.steady < lease:
            return []
        return self._store.find_stranded(self._settings.namespace, grant.ahead + 2 * lease, BATCH)
