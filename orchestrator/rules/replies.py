"""The answer to a change as a store remembers it, for when the change is sent again.

It is text that the run header, an activation or a row beside the header keeps; the Redis script writes the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.rules.change import Dispatch

UNDONE = "undone"  # in the place of an answer: the request was taken, and undone
REMEMBERED = 50  # dispatches that a remembered answer has; a repeat says how many it leaves out
# How long a store keeps the answer to a caller's change beside the header, once another caller has come, in ms. A
# repeat comes from the store's own client, which gives up sooner.
REQUEST_MEMORY = 300_000


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a repeat."""

    dispatches: tuple[Dispatch, ...] = ()
    claimed: str | None = None  # path of the activation that the change claimed
    token: str = ""  # of that claim
    # The count of settlings after the change, for a caller, who waits for the next. None for a worker: it does not
    # wait, and the answers to workers stand in every activation.
    settle_count: int | None = None
    left_out: int = 0  # dispatches beyond those

    def text(self) -> str:
        """Write it; empty where it says nothing."""
        dispatched = [[d.path, d.seq, d.route, d.delay] for d in self.dispatches]
        more = [self.settle_count, self.left_out] if self.settle_count is not None or self.left_out else []
        says_something = dispatched or self.token or more
        return (
            json.dumps([dispatched, self.claimed, self.token, *more], separators=(",", ":")) if says_something else ""
        )


def make_reply(dispatches: Sequence[Dispatch], claimed: str | None, token: str, settle_count: int | None) -> Reply:
    """Make the reply to a change. It is bounded, because it is written with each commit: some dispatch thousands."""
    kept = tuple(dispatches[:REMEMBERED])
    return Reply(kept, claimed, token, settle_count, len(dispatches) - len(kept))


def parse_reply(text: str | bytes) -> Reply:
    """Read what `Reply.text` or the script has written."""
    return read_reply(json.loads(text) if text else None)


def read_reply(words: Sequence[Any] | None) -> Reply:
    """Read a reply whose JSON was read already; None where there is none."""
    if words is None:
        return Reply()
    dispatched, claimed, token, *more = words
    settle_count, left_out = more or (None, 0)
    dispatches = tuple(Dispatch(path, seq, route, int(delay)) for path, seq, route, delay in dispatched)
    return Reply(dispatches, claimed, token, settle_count, left_out)
