"""One round of the scheduler: a batch of each lane of timers is moved on, and workers are told.

Nothing about one timer hides another: what cannot be read is set aside, what cannot be sent is put back, and the rest
goes on. Only a store or a broker that is away ends the round; what was not looked at stays due.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from orchestrator.engine.logs import log_context
from orchestrator.engine.observe import observer
from orchestrator.engine.settings import Settings
from orchestrator.engine.unsent import note_unsent
from orchestrator.errors import BrokerUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import DueTimer, QueueWatch, Runtime, Store
from orchestrator.rules.change import Committed, Dispatch, Refused
from orchestrator.rules.model import ActivationStatus, RunHeader
from orchestrator.rules.timers import SHORT, DeadlineAction, Lane, QueueState, lane_of, may_take_claim, on_deadline

log = logging.getLogger("orchestrator")

BATCH = 400  # timers of one lane in one round
LOT = 100  # that are committed, and then published, together
_NAMED = 5  # unreadable timers that one line of the log names


@dataclass(slots=True)
class SweepReport:
    """The work of one round."""

    # timers that were due
    due: int = 0
    # messages that were published (again)
    republished: int = 0
    # leases that had ended: their attempts count as abandoned
    expired: int = 0
    # entries of which nobody could be told
    unsent: int = 0
    # entries that cannot be read
    unreadable: int = 0
    # whether more is due than one round looks at
    is_full: bool = False
    # why the broker was given up, if it was
    failure: BrokerUnavailable | None = None

    @property
    def is_in_vain(self) -> bool:
        """True where something should have been sent, and nothing was, as far as there was anything."""
        is_through = self.unsent > 0 and not self.is_full
        return not self.republished and (self.failure is not None or is_through)

    def plus(self, later: SweepReport) -> SweepReport:
        """Both rounds together."""
        counts = {name: getattr(self, name) + getattr(later, name) for name in _COUNTS}
        return SweepReport(**counts, is_full=later.is_full, failure=later.failure)


_COUNTS = ("due", "republished", "expired", "unsent", "unreadable")


@dataclass(frozen=True, slots=True)
class _Told:
    """A timer that was moved on, and whom that tells of."""

    timer: DueTimer
    header: RunHeader
    dispatches: tuple[Dispatch, ...]


class _Sender:
    """Sends messages while something else is done, one lot after the other. A single lot (`is_alone`) goes at once."""

    def __init__(self, runtime: Runtime, *, is_alone: bool) -> None:
        self._runtime = runtime
        self._pool = None if is_alone else ThreadPoolExecutor(1, "orchestrator-sweep")
        self._told: Sequence[_Told] = ()
        self._errors: Callable[[], list[BrokerUnavailable | None]] = list

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def send(self, told: Sequence[_Told]) -> None:
        """Begin to send; the lot before was waited for."""
        messages = [(one.header, one.dispatches) for one in told]
        if self._pool is not None:
            self._errors = self._pool.submit(self._runtime.publish_many, messages).result
        else:
            errors = self._runtime.publish_many(messages)
            self._errors = lambda: errors
        self._told = told

    def wait(self) -> list[tuple[_Told, BrokerUnavailable | None]]:
        """Wait until it is sent, and return for each why it could not be; nothing where that was returned before."""
        told, self._told = self._told, ()
        return list(zip(told, self._errors(), strict=True)) if told else []


class Sweep:
    """One round in one namespace. `steady` says for how long the store has been there, on which it depends whether a
    lease that is over means that its worker is lost; `find_stranded` finds leases that a clock gone back has left.

    While the broker was away in the last round (`is_probing`) single messages are tried, until one has gone out.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        settings: Settings,
        queues: QueueWatch,
        *,
        steady: Callable[[], int],
        find_stranded: Callable[[], list[DueTimer]],
        is_probing: bool = False,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._settings = settings
        self._queues = queues
        self._steady = steady
        self._find_stranded = find_stranded
        self._is_probing = is_probing
        self._report = SweepReport()

    def run(self) -> SweepReport:
        """Sweep lane by lane: a timer does not wait behind messages that may be lost."""
        due = self._find()
        observer.on_swept(self._store, [entry.activation.deadline for entry in due if not entry.problem])
        due += self._find_stranded()
        self._report.due = len(due)
        self._set_aside([entry for entry in due if entry.problem])
        for lane in Lane:
            if self._report.failure is None:
                self._sweep_lane([one for one in due if not one.problem and lane_of(one.activation) is lane])
        return self._report

    def _may_sweep(self, entry: DueTimer) -> bool:
        """Tell whether the timer's time has come indeed: a lease may be over because the store was away."""
        activation = entry.activation
        is_running = activation.status == ActivationStatus.RUNNING
        return not is_running or may_take_claim(activation, self._steady(), self._settings.lease)

    def _sweep_lane(self, due: Sequence[DueTimer]) -> None:
        """Move the timers on, chunk by chunk: while the messages of one are sent, the next is committed.

        Each of the two waits for a server, and neither needs to wait for the other's.
        """
        # A broker or a store that is slow must not keep the right to sweep from being renewed.
        end = monotonic() + self._settings.tick_seconds
        with _Sender(self._runtime, is_alone=len(due) <= LOT) as sender:
            try:
                for chunk in self._chunks(due):
                    if monotonic() > end:
                        self._report.is_full = True
                        return
                    self._sweep_chunk(chunk, sender)
                    if self._report.failure is not None:
                        return
            finally:
                self._note_sent(sender)

    def _find(self) -> list[DueTimer]:
        """The most overdue timers of each lane; where there are many, those before them that have only just come.

        Behind a hundred thousand of one moment a timer would wait for all of them.
        """
        space = self._settings.namespace
        oldest = self._store.due_timers(space, BATCH)
        counts = Counter(lane_of(one.activation) for one in oldest if self._may_sweep(one))
        if not any(counts[lane] >= BATCH for lane in Lane):
            return oldest
        self._report.is_full = True
        newest = self._store.due_timers(space, BATCH // 2, newest=True)
        return list({(one.header.run_id, one.activation.path): one for one in (*newest, *oldest)}.values())

    def _chunks(self, due: Sequence[DueTimer]) -> Iterator[Sequence[DueTimer]]:
        at = 0
        while at < len(due):
            size = 1 if self._is_probing and not self._report.republished else LOT
            yield due[at : at + size]
            at += size

    # --- what cannot be read -----------------------------------------------------------------------------------------

    def _set_aside(self, unreadable: Sequence[DueTimer]) -> None:
        """Look at them again after a while: another release may be able to, or somebody deletes the run."""
        if not unreadable:
            return
        delay = self._settings.redelivery_delay
        for entry in unreadable:
            self._put_aside(entry)
        named = "; ".join(f"{_name(entry)} ({entry.problem[:200]})" for entry in unreadable[:_NAMED])
        text = "%d timer(s) cannot be read and are set aside for %d s: %s"
        log.error(text, len(unreadable), delay // 1000, named)
        self._report.unreadable += len(unreadable)

    def _put_aside(self, entry: DueTimer) -> None:
        run_id, path, space = entry.header.run_id, entry.activation.path, self._settings.namespace
        self._store.set_aside(run_id, path, space, self._settings.redelivery_delay)

    # --- what can ----------------------------------------------------------------------------------------------------

    def _sweep_chunk(self, chunk: Sequence[DueTimer], sender: _Sender) -> None:
        todo = [(entry, action) for entry in chunk if (action := self._try(entry, self._decide)) is not None]
        # Committed first, then published: after a crash in between, the timer is due again. The other way round, a
        # worker could get a message of which the store knows nothing.
        told = [one for one in self._commit(todo) if one.dispatches]
        if (gone := self._note_sent(sender)) is not None:
            for one in told:
                self._put_back(one, gone)
            return
        # Also where the queues could not be asked: what could be decided was, and is told.
        sender.send(told)
        if self._is_probing:
            self._note_sent(sender)

    def _note_sent(self, sender: _Sender) -> BrokerUnavailable | None:
        """Count the messages that were being sent, and put back what could not be. Return the error of a broker that
        is away.
        """
        gone: BrokerUnavailable | None = None
        for one, error in sender.wait():
            if error is None:
                self._report.republished += len(one.dispatches)
                continue
            self._put_back(one, error)
            if not error.is_refused:
                gone = error
        return gone

    def _decide(self, entry: DueTimer) -> DeadlineAction | None:
        activation, header = entry.activation, entry.header
        if not self._may_sweep(entry):
            return None
        queue: QueueState | None = SHORT
        # In a long queue an old message is probably still waiting: another one would only make the queue longer.
        is_queued = activation.status == ActivationStatus.QUEUED and activation.sends
        if is_queued or activation.status == ActivationStatus.SENT:
            queue = self._queues.state_of(header, Dispatch(activation.path, activation.seq, activation.route))
        if queue is None:
            # Left as it is: what was not sent because nobody could be asked is not to wait for it any longer.
            self._report.failure = self._report.failure or BrokerUnavailable("the broker does not answer")
            return None
        return on_deadline(header, activation, self._settings.redelivery_delay, queue=queue)

    def _try(self, entry: DueTimer, act: Callable[[DueTimer], DeadlineAction | None]) -> DeadlineAction | None:
        try:
            return act(entry)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with this one, the others are due too)
            self._fail(entry, error)
            return None

    def _fail(self, entry: DueTimer, error: Exception) -> None:
        """Set aside a timer that nothing can be done with. Raises `StoreUnavailable` where it is the store's fault."""
        self._put_aside(entry)
        text = "%s cannot be swept, and is looked at again in %d s"
        seconds = self._settings.redelivery_delay // 1000
        log.error(text, _name(entry), seconds, exc_info=error, extra=log_context(entry.header))

    def _commit(self, todo: Sequence[tuple[DueTimer, DeadlineAction]]) -> list[_Told]:
        if not todo:
            return []
        try:
            changes = [(entry.header.run_id, action.change) for entry, action in todo]
            answers = self._store.commit_many(changes)
            return [
                told
                for one, answer in zip(todo, answers, strict=True)
                if (told := self._report_move(*one, answer)) is not None
            ]
        except Exception:  # one of them, or the store: each by itself tells
            log.debug("timers are committed one by one", exc_info=True)
        # Asked again, for the store may have been away meanwhile, and workers could renew no lease.
        again = (one for one in todo if self._may_sweep(one[0]))
        return [told for one in again if (told := self._commit_one(*one)) is not None]

    def _commit_one(self, entry: DueTimer, action: DeadlineAction) -> _Told | None:
        try:
            return self._report_move(entry, action, self._store.commit(entry.header.run_id, action.change))
        except Exception as error:  # noqa: BLE001  (whatever is wrong with this one, the others are due too)
            self._fail(entry, error)
            return None

    def _report_move(self, entry: DueTimer, action: DeadlineAction, answer: Committed | Refused) -> _Told | None:
        if isinstance(answer, Refused):
            return None
        activation = entry.activation
        if activation.status == ActivationStatus.RUNNING:
            self._report.expired += 1
            text = "step %s of run %s: its lease has ended; another worker takes it"
            log.warning(text, activation.step, entry.header.run_id, extra=log_context(entry.header, activation))
        return _Told(entry, entry.header, (*answer.dispatches, *action.again))

    def _put_back(self, one: _Told, error: BrokerUnavailable) -> None:
        """Look at it again soon after the broker is back; where the message is at fault, as if it had been sent."""
        delay = self._settings.retry_delay_of(error)
        activation = one.timer.activation
        sends = {activation.path: activation.sends} if activation.status == ActivationStatus.QUEUED else None
        note_unsent(self._store, one.header, one.dispatches, delay, sends=sends)
        self._report.unsent += 1
        if error.is_refused:
            text = "%s: %s; it is tried again in %d s"
            log.warning(text, _name(one.timer), error, delay // 1000, extra=log_context(one.header, activation))
        else:
            self._report.failure = error


def _name(entry: DueTimer) -> str:
    return f"run {entry.header.run_id!r}, step {entry.activation.step or entry.activation.path or 'the settling'}"
