"""The reading of one row of the table: what taking a status does to an activation, and its dispatch.

This module must not know which status follows: it is given an activation that has just taken one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, assert_never

from orchestrator.rules.change import Dispatch, Doc
from orchestrator.rules.events import make_step_start
from orchestrator.rules.model import Activation, Phase, with_fields
from orchestrator.rules.transitions import TABLE, Deadline, DispatchTime, Kind, Number, Row, row_of

# The phases whose first claim is the start of a step. The others belong to blocks and waits, whose events are emitted
# where they open, or begin to wait.
STARTING = frozenset({Phase.RUN, Phase.FAN_OUT, Phase.VALIDATE_INPUT})
_DEFAULTS = {field.name: field.default for field in fields(Activation)}


@dataclass(frozen=True, slots=True)
class Stamps:
    """The moment of a change, by the clock of the store, and the limits that the change carries."""

    now: int
    lease: int  # milliseconds until the deadline of what is running
    redelivery_delay: int  # milliseconds until the deadline of what is queued

    def stamp(self, activation: Activation, before: str, token: str, delay: int, number: int) -> Activation:
        """Stamp an activation that has just taken its status. Raise `IllegalTransition` where it may not have it.

        `before` is the status that it had, `number` that of the commit. `token` is the lease token of a claim, and
        empty for every other move: a worker whose token was taken away can write nothing any more (decision 3).
        """
        row, came_from = row_of(before, activation.status, activation.path), TABLE[before]
        more: dict[str, Any] = {"lease_token": token, "deadline": self._deadline(row, delay)}
        more["lease"] = self.lease if row.deadline is Deadline.LEASE else 0
        for name in row.resets:
            more[name] = _DEFAULTS[name]
        for name in row.stamps:
            more[name] = self.now
        for name in row.first_stamps:
            more[name] = getattr(activation, name) or self.now
        if came_from.kind is Kind.AWAITING:
            more |= dict.fromkeys(row.answer_stamps, self.now)
        if row.ordered and not activation.first_seq:
            more["first_seq"] = number
        # A claim keeps the number of its message: a copy of the message meets the claim, and may take it over after the
        # lease. What no message has named gets a number of its own.
        if row.seq is Number.NEW or (row.seq is Number.CLAIMED and not came_from.is_asked_for):
            more["seq"] = number
        return with_fields(activation, **more)

    def _deadline(self, row: Row, delay: int) -> int:
        match row.deadline:
            case Deadline.NONE:
                return 0
            case Deadline.LEASE:
                return self.now + self.lease
            case Deadline.REDELIVERY:
                return self.now + self.redelivery_delay
            case Deadline.DELAY | Deadline.LOOK:
                return self.now + delay
            case Deadline.TIMEOUT:
                # A wait without a timeout has no deadline, and so no timer.
                return self.now + delay if delay else 0
            case _:
                assert_never(row.deadline)


def dispatch_of(activation: Activation, delay: int) -> Dispatch | None:
    """Return the dispatch that the status of the activation asks for; None where it asks for none."""
    # The route comes from the activation: the scheduler that sweeps it may have no graph.
    match TABLE[activation.status].dispatch:
        case DispatchTime.NEVER:
            return None
        case DispatchTime.AT_ONCE:
            return Dispatch(activation.path, activation.seq, activation.route)
        case DispatchTime.AFTER_DELAY:
            # In a dispatch 0 means at once. A delay that has shrunk to nothing is still a delay.
            return Dispatch(activation.path, activation.seq, activation.route, max(delay, 1))
        case unknown:
            assert_never(unknown)


def start_event(activation: Activation) -> Doc | None:
    """Return the event of an activation's first run, or of its resumption.

    A retry, a takeover and the claim of what was parked emit nothing: for a reader, the step has started long ago.
    """
    if (
        activation.quiet
        or activation.phase not in STARTING
        or activation.attempt
        or activation.abandoned_attempts
        or activation.parked
    ):
        return None
    return make_step_start(activation, activation.resume if activation.resumed else None)
