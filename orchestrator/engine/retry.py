"""Retries of calls to a store that does not answer: how often, for how long, and why that is safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import PayloadTooLarge, StoreRefused, StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import Clock

_T = TypeVar("_T")

_FIRST_PAUSE = 0.05  # seconds; a store that fails over is often back by then
_MAX_PAUSE = 2.0  # seconds; a step that waits goes on soon after the store is back
MAX_INTERRUPTIONS = 2


def retry_while_unavailable(
    call: Callable[[], _T], clock: Clock, seconds: float, *, interruptions: int = MAX_INTERRUPTIONS
) -> _T:
    """Retry an idempotent store call with back-off until `seconds` have passed, once at least unless they are 0.

    Also retry it after up to `interruptions` exceptions of other kinds. Raises `StoreUnavailable` where the store stays
    away, else the last exception of the call.
    """
    # Claims and commits carry a token, and a store gives a repeat the answer that it gave the first time. So a call
    # without an answer can be made again, whether or not it arrived.
    end, pause, struck, is_first = monotonic() + seconds, _FIRST_PAUSE, 0, seconds > 0
    while True:
        try:
            return call()
        except StoreUnavailable:
            # A process that stood still for all that time has not asked in it.
            if monotonic() >= end and not is_first:
                raise
            is_first = False
            clock.sleep(pause)
            pause = min(_MAX_PAUSE, pause * 2)
        except (StoreRefused, PayloadTooLarge):
            raise  # the store has answered, and would not answer otherwise
        except Exception:
            # Celery raises a soft time limit wherever the thread happens to be. Here the outcome exists already, and is
            # to be committed all the same. An error that comes a third time is the call's own.
            struck += 1
            if struck > interruptions:
                raise
