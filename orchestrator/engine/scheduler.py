"""The scheduler: one thread in every worker that sweeps the timers which are due.

Outbox, leases, sleeps, retries and timeouts are all timers. The scheduler runs no user code and needs no graph. In each
namespace one scheduler at a time has the right to sweep; the others wait until that right ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.engine.logs import log_context
from orchestrator.engine.observe import observer
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.host import chance, monotonic
from orchestrator.ports import DueTimer, Runtime, Store
from orchestrator.rules.change import Refused
from orchestrator.rules.model import ActivationStatus
from orchestrator.rules.timers import SweepGrant, may_take_claim, on_deadline

log = logging.getLogger("orchestrator")

_BATCH = 200  # timers in one tick; the others are still due in the next


@dataclass(frozen=True, slots=True)
class SweepReport:
    """The work of one tick."""

    # timers that were due
    due: int = 0
    # messages that were published (again)
    republished: int = 0
    # leases that had ended: their attempts count as abandoned
    expired: int = 0


class Scheduler:
    """Sweeps one namespace of one store. `is_short` returns True for the name of a queue that is short at present."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        settings: Settings,
        worker: str,
        is_short: Callable[[str | None], bool] = lambda queue: True,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._settings = settings
        self._worker = worker
        self._is_short = is_short
        self._ended = threading.Event()
        self._asked_at = 0.0  # when it last asked for the right to sweep, by this process's clock
        self._grant: SweepGrant | None = None  # the answer

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
            try:
                self.announce()
                self.tick()
            except (StoreUnavailable, BrokerUnavailable) as error:
                log.warning("tick: %s", error)
            except Exception:  # the thread must outlive any single error: without it no timer fires
                log.exception("tick failed")
            # Spread by chance, so that the schedulers of many workers do not ask for the right to sweep in step.
            self._ended.wait(self._settings.tick_seconds * (0.75 + 0.5 * chance()))

    def stop(self) -> None:
        """End `run` soon."""
        self._ended.set()

    def announce(self) -> None:
        """Note in the store that this worker lives."""
        # Five announcements may be missed before blocking calls raise `NoConsumer`.
        ttl = max(5.0, 5 * self._settings.tick_seconds)
        self._store.heartbeat(self._settings.namespace, self._worker, round(ttl * 1000))

    def tick(self) -> SweepReport:
        """Sweep once, if no other scheduler has the right to."""
        if not self._ask():
            return SweepReport()
        due = self._store.due_timers(self._settings.namespace, _BATCH)
        observer.on_swept(self._store, [entry.activation.deadline for entry in due])
        due += self._find_stranded()
        swept = [self._sweep_one(entry) for entry in due]
        return SweepReport(len(due), sum(done.republished for done in swept), sum(done.expired for done in swept))

    def _ask(self) -> bool:
        """Take or keep the right to sweep; return whether it is ours."""
        tick, self._asked_at = self._settings.tick_seconds * 1000, monotonic()
        # A scheduler that has gone silent is replaced after three ticks. Two ticks without a word are none that counts;
        # a quarter of a lease is one in which workers may have missed a renewal.
        pause = max(round(2 * tick), self._settings.lease // 4)
        self._grant = self._store.acquire_sweep(self._settings.namespace, self._worker, round(3 * tick), pause)
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
        return self._store.find_stranded(self._settings.namespace, grant.ahead + 2 * lease, _BATCH)

    def _sweep_one(self, entry: DueTimer) -> SweepReport:
        activation, header, steady = entry.activation, entry.header, self._steady()
        is_running = activation.status == ActivationStatus.RUNNING
        if is_running and not may_take_claim(activation, steady, self._settings.lease):
            return SweepReport()
        # In a long queue an old message is probably still waiting: another one would only make the queue longer.
        short = activation.status != ActivationStatus.QUEUED or self._is_short(activation.where.queue)
        action = on_deadline(header, activation, self._settings.redelivery_delay, short=short)
        if action is None:
            return SweepReport()
        # Committed first, then published: after a crash in between, the timer is due again. The other way round, a
        # worker could get a message of which the store knows nothing.
        answer = self._store.commit(header.run_id, action.change)
        if isinstance(answer, Refused):
            return SweepReport()
        dispatches = (*answer.dispatches, *action.again)
        if is_running:
            text = "step %s of run %s: its lease has ended; another worker takes it"
            log.warning(text, activation.step, header.run_id, extra=log_context(header, activation))
        if dispatches:
            self._runtime.publish(header, dispatches)
        return SweepReport(1, len(dispatches), int(is_running))
