"""Retrying calls to a store that does not answer: the one place that says how long, how often and why that is safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Clock

_T = TypeVar("_T")

_FIRST_PAUSE = 0.05  # seconds; a store that fails over is often back by then
_LONGEST_PAUSE = 2.0  # seconds: whoever waits goes on soon after the store is back
MAX_INTERRUPTIONS = 2


def retry_while_unavailable(
    call: Callable[[], _T], clock: Clock, seconds: float, *, interruptions: int = MAX_INTERRUPTIONS
) -> _T:
    """Retry an idempotent store call with back-off until `seconds` have passed.

    Also retry it after up to `interruptions` exceptions of other kinds: a soft time limit strikes anywhere. Raises
    `StoreUnavailable` where the store stays away, else what the call raised last.
    """
    # Claims and commits carry a lease token, and a store that is sent one again gives its first answer again. So a call
    # whose answer was lost can be made once more without asking whether it arrived.
    end, pause, struck = monotonic() + seconds, _FIRST_PAUSE, 0
    while True:
        try:
            return call()
        except StoreUnavailable:
            if monotonic() >= end:
                raise
            clock.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)
        except Exception:
            # Celery raises soft time limits in whatever the thread is doing, and the outcome is fixed by then: it is
            # to be recorded all the same. An error that comes a third time is the call's own.
            struck += 1
            if struck > interruptions:
                raise
