"""A clock that stands still until a test moves it on."""

from __future__ import annotations

import threading

EPOCH = 1_750_000_000_000  # any moment that looks like one: stores take 0 for "never"


class VirtualClock:
    """A clock that stands still until `advance`, or a sleep by it, moves it on."""

    def __init__(self, now: int = EPOCH) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> int:
        """Return the milliseconds since 1970 by this clock."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`; a clock never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} seconds")
        with self._lock:
            self._now += round(seconds * 1000)

    def sleep(self, seconds: float) -> None:
        """Return at once, `seconds` later."""
        self.advance(max(seconds, 0.0))
