"""The host's clock, ids and randomness: the only file that asks the machine for them."""

from __future__ import annotations

import random
import secrets
import time

_dice = random.SystemRandom()  # of its own: nobody who seeds the global one for a test decides over our pauses


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def new_token() -> str:
    """A token that never comes back: 96 random bits as text."""
    return secrets.token_urlsafe(12)


def new_run_id() -> str:
    """A run id: 128 random bits as hexadecimal digits in the form of a UUID, as Celery's task ids are."""
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def chance() -> float:
    """A random number in [0, 1)."""
    return _dice.random()


def monotonic() -> float:
    """Seconds of a clock that never goes back, for time limits within this process."""
    return time.monotonic()
