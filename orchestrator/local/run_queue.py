"""The queue of one run in this process, and the state of the threads that work on it.

One run is driven by one loop, so that a chain of any length needs no more stack than a single step.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from orchestrator.background import TimerQueue
from orchestrator.rules.change import Dispatch


@dataclass(slots=True)
class RunQueue:
    """The dispatches of one run. Everything but `changed` itself is read and written with `changed` held."""

    # Notified whenever one of the fields below has changed, or the run has been changed from outside.
    changed: threading.Condition = field(default_factory=threading.Condition)
    # Dispatches that can be executed now, oldest first.
    ready: deque[Dispatch] = field(default_factory=deque)
    # Dispatches whose moments are still to come, by the runtime's clock in ms.
    timers: TimerQueue[Dispatch] = field(default_factory=TimerQueue)
    # The number of dispatches that are being executed.
    busy: int = 0
    # A thread drives the run. It is one at a time: of two, each would see an empty queue and end the other's work.
    is_driven: bool = False
    # A thread waits for the timers while no other thread drives the run.
    has_timer_thread: bool = False
    # The run's workflow has a wait with a timeout, so each execution may have begun one.
    has_timeouts: bool = False
    # The exception that has ended an attempt without an outcome: nothing more is executed, and the driver raises it.
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

    def ms_until_timer(self, now: int) -> int:
        """Return the milliseconds until the next timer; 0 where there is none, or its moment has come."""
        moment = self.timers.next_moment
        return 0 if moment is None else max(0, round(moment - now))
