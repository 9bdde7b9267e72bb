"""The reading of one row of the table: what an activation is stamped with as it takes a status, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, assert_never

from orchestrator.rules.change import Dispatch, Doc
from orchestrator.rules.events import make_step_start
from orchestrator.rules.model import Activation, Phase
from orchestrator.rules.transitions import TABLE, Deadline, Kind, Number, Row, Told, row_of

# The phases whose first claim tells of a step's start. The others are those of blocks and waits, which tell of
# themselves where they open, or begin to wait.
STARTING = frozenset({Phase.RUN, Phase.FAN_OUT, Phase.VALIDATE_INPUT})
_DEFAULTS = {field.name: field.default for field in fields(Activation)}


@dataclass(frozen=True, slots=True)
class Stamps:
    """The moment of a change, by the store's clock, and how long after it somebody looks at an activation again."""

    now: int
    lease: int  # at one that is running
    redelivery_delay: int  # at one that is queued

    def stamp(self, activation: Activation, before: str, token: str, delay: int, number: int) -> Activation:
        """Stamp an activation that has just taken its status. Raise `IllegalTransition` where it may not have it.

        `before` is the status that it had, `number` that of the commit. The token is that of a claim and else empty:
        who holds one that was taken away can write nothing any more.
        """
        row, came_from = row_of(before, activation.status, activation.path), TABLE[before]
        more: dict[str, Any] = {"lease_token": token, "deadline": self._deadline(row, delay)}
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
        # A claim keeps the number of its message, so that a copy of the message meets the claim and may take it over
        # once the lease is over. What no message spoke of gets a number of its own.
        if row.seq is Number.NEW or (row.seq is Number.CLAIMED and not came_from.is_asked_for):
            more["seq"] = number
        return replace(activation, **more)

    def _deadline(self, row: Row, delay: int) -> int:
        match row.deadline:
            case Deadline.NONE:
                return 0
            case Deadline.LEASE:
                return self.now + self.lease
            case Deadline.REDELIVERY:
                return self.now + self.redelivery_delay
            case Deadline.DELAY:
                return self.now + delay
            case Deadline.TIMEOUT:
                return self.now + delay if delay else 0
            case _:
                assert_never(row.deadline)


def dispatch_of(activation: Activation, delay: int) -> Dispatch | None:
    """The word to a worker that the activation's status asks for. The route is in the activation: the sweep has no graph."""
    match TABLE[activation.status].told:
        case Told.NEVER:
            return None
        case Told.AT_ONCE:
            return Dispatch(activation.path, activation.seq, activation.route)
        case Told.AFTER_DELAY:
            # In a dispatch 0 means at once, and a timer whose moment has come is still a timer.
            return Dispatch(activation.path, activation.seq, activation.route, max(delay, 1))
        case unknown:
            assert_never(unknown)


def start_event(activation: Activation) -> Doc | None:
    """The event that tells of an activation's first run, or of its resumption.

    A retry, a takeover and a claim by a worker that can run at last what another could not tell nothing: to whoever
    reads, the step has started long ago.
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
