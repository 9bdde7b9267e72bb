"""The work of one run in this process: what can be executed now, what later, and who is at it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from orchestrator.background import TimerQueue
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import is_report


@dataclass(slots=True, eq=False)
class RunQueue:
    """The dispatches of one run. All of it is read and written under the lock of its runtime."""

    run_id: str
    # Dispatches that can be executed now, oldest first.
    ready: deque[Dispatch] = field(default_factory=deque)
    # Dispatches whose moments are still to come, by the runtime's clock in ms.
    timers: TimerQueue[Dispatch] = field(default_factory=TimerQueue)
    # The key of the alarm for the earliest of them, and its moment; None where none is set.
    alarm: int = 0
    alarm_at: float | None = None
    # The number of dispatches that are being executed.
    busy: int = 0
    # The number of callers that wait for the run, and lend it their threads.
    callers: int = 0
    # How many of them have nothing to execute at the moment.
    idle_callers: int = 0
    # Notified when a caller has reason to look; made by the first caller, as most runs have none.
    changed: threading.Condition | None = None
    # The run's workflow has a wait with a timeout, so each execution may have begun one.
    has_timeouts: bool = False
    # The exception that has ended an attempt without an outcome: nothing more is executed.
    failure: BaseException | None = None

    def add(self, dispatch: Dispatch, now: int) -> None:
        """Put a dispatch in the queue: to be executed at once, or when its delay is over."""
        if dispatch.delay:
            self.timers.add(now + dispatch.delay, dispatch)
        else:
            self.ready.append(dispatch)

    def promote_due(self, now: int) -> None:
        """Make the dispatches ready whose moments have come."""
        self.ready.extend(self.timers.pop_due(now))

    def take(self) -> Dispatch | None:
        """Take the next dispatch, which counts as being executed from now on; None where there is none."""
        if not self.ready or self.failure is not None:
            return None
        self.busy += 1
        return self.ready.popleft()

    @property
    def is_quiet(self) -> bool:
        """True where nothing is being executed, and nothing will be unless something comes from outside."""
        return not self.busy and (self.failure is not None or not (self.ready or self.timers))

    @property
    def is_asleep(self) -> bool:
        """True where the run waits for nothing but a moment."""
        return not self.busy and not self.ready and self.failure is None and len(self.timers) > 0

    def ms_until_timer(self, now: int) -> int:
        """Return the milliseconds until the next timer; 0 where there is none, or its moment has come."""
        moment = self.timers.next_moment
        return 0 if moment is None else max(0, round(moment - now))

    def notify(self) -> None:
        """Let the callers look."""
        if self.changed is not None:
            self.changed.notify_all()

    def drop(self) -> None:
        """Forget what has not begun, but for the reports: who is to be told of the end of the run is told."""
        self.ready = deque(dispatch for dispatch in self.ready if is_report(dispatch.path))
        self.timers.clear()
