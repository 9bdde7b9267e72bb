"""The reading of one row of the table: what a record is stamped with as it takes a status, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, assert_never

from orchestrator.core.changes import Dispatch, Doc
from orchestrator.core.records import Phase, Record
from orchestrator.core.transitions import TABLE, Deadline, Kind, Number, Row, Told, row_of

# The phases whose first claim tells of a step's start. The others are those of blocks and waits, which tell of
# themselves where they open, or begin to wait.
STARTING = frozenset({Phase.RUN, Phase.SPLIT, Phase.ENTER})
_DEFAULTS = {field.name: field.default for field in fields(Record)}


@dataclass(frozen=True, slots=True)
class Stamps:
    """The moment of a change, by the store's clock, and how long after it somebody looks at a record again."""

    now: int
    lease: int  # at one that is running
    grace: int  # at one that is queued

    def stamp(self, record: Record, before: str, token: str, delay: int, number: int) -> Record:
        """Stamp a record that has just taken its status. Raise `IllegalTransition` where it may not have it.

        `before` is the status that it had, `number` that of the commit. The token is that of a claim and else empty:
        who holds one that was taken away can write nothing any more.
        """
        row, came_from = row_of(before, record.status, record.path), TABLE[before]
        more: dict[str, Any] = {"token": token, "due": self._deadline(row, delay)}
        for name in row.resets:
            more[name] = _DEFAULTS[name]
        for name in row.stamps:
            more[name] = self.now
        for name in row.first_stamps:
            more[name] = getattr(record, name) or self.now
        if came_from.kind is Kind.AWAITING:
            more |= dict.fromkeys(row.answer_stamps, self.now)
        if row.ordered and not record.order:
            more["order"] = number
        # A claim keeps the number of its message, so that a copy of the message meets the claim and may take it over
        # once the lease is over. What no message spoke of gets a number of its own.
        if row.seq is Number.NEW or (row.seq is Number.CLAIMED and not came_from.is_asked_for):
            more["seq"] = number
        return replace(record, **more)

    def _deadline(self, row: Row, delay: int) -> int:
        match row.due:
            case Deadline.NONE:
                return 0
            case Deadline.LEASE:
                return self.now + self.lease
            case Deadline.REDELIVERY:
                return self.now + self.grace
            case Deadline.DELAY:
                return self.now + delay
            case Deadline.TIMEOUT:
                return self.now + delay if delay else 0
            case _:
                assert_never(row.due)


def dispatch_of(record: Record, delay: int) -> Dispatch | None:
    """The word to a worker that the record's status asks for. The route is in the record: the sweep has no graph."""
    match TABLE[record.status].told:
        case Told.NEVER:
            return None
        case Told.AT_ONCE:
            return Dispatch(record.path, record.seq, record.route)
        case Told.AFTER_DELAY:
            # In a dispatch 0 means at once, and a timer whose moment has come is still a timer.
            return Dispatch(record.path, record.seq, record.route, max(delay, 1))
        case unknown:
            assert_never(unknown)


def start_event(record: Record) -> Doc | None:
    """The event that tells of a record's first run, or of its resumption.

    A retry, a takeover and a claim by a worker that can run at last what another could not tell nothing: to whoever
    reads, the step has started long ago.
    """
    if record.quiet or record.phase not in STARTING or record.attempt or record.lost or record.parked:
        return None
    event: Doc = {"type": "workflow-step-start", "path": record.path, "visit": record.visit, "step": record.step}
    event["input"] = record.input
    return event | {"resume": record.resume} if record.resumed else event
