"""Bounds of what comes from data: lengths of time, numbers and names that every store can hold.

A number is bounded where it is made. Further down nobody could tell it from a store that does not work: one database
refuses it, another one keeps it for ever, and a script makes another number of it.
"""

from __future__ import annotations

import json
import math

MAX_SECONDS = 100 * 365 * 24 * 3600.0  # of a sleep, a retry, a timeout, a countdown; more is a mistake
# bytes of an id, a key or a label as JSON writes it; two of them and some numbers fit into an index of every database
MAX_NAME = 1_000
MAX_ID = 250  # characters of an id of a workflow or step, which are ASCII
# Workflows inside each other. Whoever reads a graph goes down it level by level: this is far from Python's own limit of
# calls, wherever in a program that happens.
MAX_NESTING = 100
MAX_PRIORITY = 255  # of a message, as brokers write it


def to_delay(seconds: float, what: str) -> int:
    """Return a length of time in milliseconds; 0 for a negative one.

    Raises ValueError for one that never ends (`MAX_SECONDS` at most) or is no number, naming `what`.
    """
    if math.isnan(seconds) or seconds > MAX_SECONDS:
        years = round(MAX_SECONDS / (365 * 24 * 3600))
        raise ValueError(f"{what} takes {seconds!r} seconds, where {MAX_SECONDS:.0f} ({years} years) are the most")
    return round(max(seconds, 0.0) * 1000)


def name_size(name: str) -> int:
    """Return the bytes of a name as it is stored. A control character counts as its escape."""
    return len(json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2


def check_timeout(timeout: float | None) -> None:
    """Raise ValueError for a timeout that is no number. One that is very long, or infinite, is none."""
    if timeout is not None and math.isnan(timeout):
        raise ValueError("timeout takes seconds, not nan")
