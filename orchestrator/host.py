"""The host's clock, ids and randomness: the only file that asks the machine for them."""

from __future__ import annotations

import random
import secrets
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from hashlib import blake2b

_dice = random.SystemRandom()  # of its own: nobody who seeds the global one for a test decides over our pauses


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


MARK = 6  # characters that the tokens of one delivery have in common


def new_token(mark: str = "") -> str:
    """Return a token that never comes back: 96 random bits as text, or 72 after the `mark` of its delivery."""
    return mark + secrets.token_urlsafe(9) if mark else secrets.token_urlsafe(12)


def delivery_mark(delivery: str) -> str:
    """Return the mark of a delivery: what the tokens of its claims begin with; empty where nobody has named it.

    By it the process around a worker knows the claims of one that is gone, also those that its commits have made.
    """
    if not delivery:
        return ""
    return urlsafe_b64encode(blake2b(delivery.encode(errors="replace"), digest_size=9).digest()).decode()[:MARK]


def new_run_id() -> str:
    """A run id: a random UUID (version 4), as Celery's task ids are."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def new_first_commit() -> int:
    """A number for the commits of a run to count from, where another run may have had its id: hardly one comes back."""
    return secrets.randbelow(2**40)  # leaves room below 2**53, up to which Lua and JavaScript count exactly


def is_main_thread() -> bool:
    """Tell whether this is the thread that signals interrupt."""
    return threading.current_thread() is threading.main_thread()


def is_time_limit(error: BaseException) -> bool:
    """Tell whether this is what Celery raises in a function, anywhere in it, once its soft limit is over."""
    # By its name: the library does without Celery where no worker is, and so where no such limit is.
    return any(kind.__name__ == "SoftTimeLimitExceeded" for kind in type(error).__mro__)


def chance() -> float:
    """A random number in [0, 1)."""
    return _dice.random()


def monotonic() -> float:
    """Seconds of a clock that never goes back, for time limits within this process."""
    return time.monotonic()
