"""Waiting for a run to change, where the database tells nobody: look again, ever more rarely, or when a bell rings."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.host import SystemClock, monotonic
from orchestrator.ports import Bell

_QUICK, _SLOW = 0.005, 0.1  # seconds between two looks: more and more
_RARE = 1.0  # the same where a bell is heard


class Vigil:
    """The pauses of one call that waits. `ask` has it noted in the store that the bell is to be rung for this run.

    What changes soon is seen without a bell, so that short runs pay for none.
    """

    def __init__(self, bell: Bell | None, run_id: str, timeout: float, ask: Callable[[], None]) -> None:
        self._bell = bell
        self._run_id = run_id
        self._end = monotonic() + timeout
        self._ask = ask
        self._pause = _QUICK
        self._heard: int | None = None

    def goes_on(self) -> bool:
        """Wait a while, and return whether to look again; not once the time is over."""
        left = self._end - monotonic()
        if left <= 0:
            return False
        if self._bell is None or self._pause < _SLOW:
            SystemClock().sleep(min(self._pause, left))
            self._pause = min(_SLOW, self._pause * 1.5)
        elif self._heard is None:  # from now on every change rings: the next look sees what came before
            self._heard = self._bell.heard(self._run_id)
            self._ask()
        else:
            self._listen(self._bell, self._heard, left)
        return True

    def _listen(self, bell: Bell, heard: int, left: float) -> None:
        began = monotonic()
        if not bell.wait(self._run_id, heard, min(_RARE, left)):
            SystemClock().sleep(max(0.0, min(_SLOW, left) - (monotonic() - began)))
        self._heard = bell.heard(self._run_id)
