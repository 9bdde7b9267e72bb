"""Waits for a run to change where the database tells nobody: looks again, ever more rarely, or when a wake-up comes."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.host import SystemClock, monotonic
from orchestrator.ports import WakeupChannel

_MIN_PAUSE, _MAX_PAUSE = 0.005, 0.1  # seconds between two looks: more and more
_LISTENING_PAUSE = 1.0  # the same where wake-ups come


class PollingWait:
    """The pauses of one call that waits. `ask` has the store note that changes of this run are to be notified.

    A change that comes soon is seen without a channel, so that short runs pay for none.
    """

    def __init__(self, channel: WakeupChannel | None, run_id: str, timeout: float, ask: Callable[[], None]) -> None:
        self._channel = channel
        self._run_id = run_id
        self._end = monotonic() + timeout
        self._ask = ask
        self._pause = _MIN_PAUSE
        self._count: int | None = None

    def pause(self) -> bool:
        """Wait a while, and return whether to look again; False, without waiting, once the time is over."""
        left = self._end - monotonic()
        if left <= 0:
            return False
        if self._channel is None or self._pause < _MAX_PAUSE:
            SystemClock().sleep(min(self._pause, left))
            self._pause = min(_MAX_PAUSE, self._pause * 1.5)
        elif self._count is None:
            # Counted before it is asked for, and asked for before the next look: a change in between is either
            # notified, and then counted, or seen by that look.
            self._count = self._channel.count(self._run_id)
            self._ask()
        else:
            self._listen(self._channel, self._count, left)
        return True

    def _listen(self, channel: WakeupChannel, count: int, left: float) -> None:
        began = monotonic()
        if not channel.wait(self._run_id, count, min(_LISTENING_PAUSE, left)):
            SystemClock().sleep(max(0.0, min(_MAX_PAUSE, left) - (monotonic() - began)))
        self._count = channel.count(self._run_id)
