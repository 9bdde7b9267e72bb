"""The table of statuses: which may follow which, and what a record is stamped with as it takes one.

`stamps` and `apply` interpret the table, and so do the Redis scripts, in whose text it stands. The sets of statuses,
the timers (`timers`) and the state diagram of the documentation derive from it. A status is added here, and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The status of a record."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SLEEPING = "sleeping"
    OPEN = "open"  # a block or a nested workflow whose children are not finished
    SUSPENDED = "suspended"
    WAITING = "waiting"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"  # ended the run by its own word


class RunState(StrEnum):
    """The stored status of a run."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    TRIPWIRE = "tripwire"


class Kind(StrEnum):
    """The party that moves a record of this status on."""

    LIVE = "live"  # a worker or the sweep, without being asked; a run of which nothing is live settles
    OPEN = "open"  # its last child
    AWAITING = "awaiting"  # somebody outside; the header counts each such status by name
    ENDED = "ended"  # nobody
    ABSENT = "absent"  # nobody: there is no record


class Claim(StrEnum):
    """The condition on which a message that names the record's number may claim it."""

    NEVER = "never"
    AT_ONCE = "at_once"
    AT_DEADLINE = "at_deadline"
    LEASE_OVER = "lease_over"  # the present claim holds it until then


class Number(StrEnum):
    """The fate of the number that a message has to name."""

    KEPT = "kept"  # no message speaks of this status, so none has to be told from a stale one
    NEW = "new"  # older messages are stale from now on: one sent before a retry must not skip its delay
    CLAIMED = "claimed"  # kept if a message named it, else new: a takeover makes the message of the lost worker stale


class Deadline(StrEnum):
    """The moment at which somebody looks at the record again.

    Whatever is live has exactly one. The commit that makes it live writes it, so that a crash between that commit and
    the message to a worker loses nothing.
    """

    NONE = "none"
    LEASE = "lease"  # is its worker still there?
    REDELIVERY = "redelivery"  # was its message lost?
    DELAY = "delay"  # is it time?
    TIMEOUT = "timeout"  # has the event not come? A wait without a delay has no end


class Told(StrEnum):
    """The moment at which a worker is told of the record."""

    NEVER = "never"
    AT_ONCE = "at_once"
    AFTER_DELAY = "after_delay"


@dataclass(frozen=True, slots=True)
class Row:
    """All there is to know of one status of a record. Fields of records stand here by their names."""

    kind: Kind
    may_follow: tuple[Status, ...] = ()  # what may follow; anything else is a bug of whoever wrote the change
    root_may_follow: tuple[Status, ...] = ()  # what else may follow in the run's own record
    claim: Claim = Claim.NEVER
    seq: Number = Number.KEPT
    due: Deadline = Deadline.NONE  # a lease brings the claim's token along; every other status takes the token away
    stamps: tuple[str, ...] = ()  # moments, taken each time
    first_stamps: tuple[str, ...] = ()  # moments, taken the first time alone
    answer_stamps: tuple[str, ...] = ()  # moments, taken if the record was awaiting somebody
    ordered: bool = False  # its first such commit numbers it in the order of first runs
    resets: tuple[str, ...] = ()  # fields that get their defaults back
    told: Told = Told.NEVER

    @property
    def is_asked_for(self) -> bool:
        """True where a message has spoken of the record by its number."""
        return self.claim in (Claim.AT_ONCE, Claim.AT_DEADLINE)


# A record that is written afresh comes from here, whether there was one at its place or not: another iteration, or a
# time travel, writes over what has ended.
ABSENT = ""

_ENDED = Row(
    Kind.ENDED,
    # What never ran (an arm that failed with its block, say) has begun as it ends, so that every end has a beginning.
    first_stamps=("started_at",),
    stamps=("ended_at",),
    # A result clears the count of lost workers: only losses in a row, with no commit between them, count as a poison.
    resets=("lost",),
)

TABLE: Mapping[str, Row] = {
    ABSENT: Row(
        Kind.ABSENT,
        may_follow=(
            Status.QUEUED,
            Status.RUNNING,  # claimed by the commit that starts it: control activations, and steps that go on inline
            Status.RETRYING,  # a countdown
            Status.SLEEPING,
            Status.OPEN,
            Status.PAUSED,  # held back in a run that goes step by step
            Status.SUCCESS,  # a time travel writes a past: what a caller says of a step, and arms that were not chosen
            Status.SKIPPED,
        ),
    ),
    Status.QUEUED: Row(
        Kind.LIVE,
        may_follow=(
            Status.RUNNING,
            Status.QUEUED,  # a restart, which makes the messages of before stale
            Status.SUSPENDED,  # a resume that nobody could be told of is taken back
            Status.PAUSED,
        ),
        # Whoever lets a settled run go on opens it again, and so takes away a settling that had been put in the queue.
        root_may_follow=(Status.OPEN,),
        claim=Claim.AT_ONCE,
        seq=Number.NEW,
        due=Deadline.REDELIVERY,
        stamps=("queued_at",),
        answer_stamps=("resumed_at",),
        # Lost workers stay counted: a record goes back in the queue by way of a sweep after each of them.
        told=Told.AT_ONCE,
    ),
    Status.RUNNING: Row(
        Kind.LIVE,
        may_follow=(
            Status.RUNNING,  # taken over once the lease is over
            Status.QUEUED,  # swept once the lease is over, given back by a worker that stops, or restarted
            Status.RETRYING,  # the attempt failed, or this release cannot run it
            Status.SLEEPING,
            Status.OPEN,
            Status.SUSPENDED,
            Status.WAITING,
            Status.SUCCESS,
            Status.FAILED,
            Status.CANCELED,
        ),
        claim=Claim.LEASE_OVER,
        seq=Number.CLAIMED,
        due=Deadline.LEASE,
        first_stamps=("started_at",),
        ordered=True,
        # Parts are numbered within a claim, and a worker that claims it evidently can run it.
        resets=("part", "parked"),
    ),
    Status.RETRYING: Row(
        Kind.LIVE,
        # A restart leaves a countdown its moment: `retrying` follows itself.
        may_follow=(Status.RUNNING, Status.QUEUED, Status.RETRYING),
        root_may_follow=(Status.OPEN,),
        claim=Claim.AT_DEADLINE,
        seq=Number.NEW,
        due=Deadline.DELAY,
        first_stamps=("started_at",),
        ordered=True,
        resets=("lost",),
        told=Told.AFTER_DELAY,
    ),
    Status.SLEEPING: Row(
        Kind.LIVE,
        may_follow=(Status.RUNNING, Status.QUEUED, Status.SLEEPING),
        claim=Claim.AT_DEADLINE,
        seq=Number.NEW,
        due=Deadline.DELAY,
        first_stamps=("started_at",),
        ordered=True,
        resets=("lost",),
        told=Told.AFTER_DELAY,
    ),
    Status.OPEN: Row(
        Kind.OPEN,
        may_follow=(
            Status.RUNNING,  # the join, or the loop's condition, claimed by the last child
            Status.QUEUED,  # the same where the last child's commit has no claim to give
            Status.PAUSED,  # a loop's condition, held back in a run that goes step by step
            Status.SUCCESS,
            Status.FAILED,
        ),
        # Two may let a settled run go on, one after the other: the second finds it open.
        root_may_follow=(Status.OPEN,),
        first_stamps=("started_at",),
        ordered=True,
        resets=("lost",),
    ),
    Status.SUSPENDED: Row(
        Kind.AWAITING,
        may_follow=(Status.QUEUED,),
        seq=Number.NEW,
        stamps=("suspended_at",),
        resets=("lost",),
    ),
    Status.WAITING: Row(
        Kind.AWAITING,
        may_follow=(Status.QUEUED,),
        seq=Number.NEW,
        due=Deadline.TIMEOUT,
        stamps=("suspended_at",),
        first_stamps=("started_at",),
        ordered=True,
        resets=("lost",),
    ),
    # What is held back has not run, so it has nothing to clear.
    Status.PAUSED: Row(Kind.AWAITING, may_follow=(Status.QUEUED,), seq=Number.NEW),
    Status.SUCCESS: _ENDED,
    Status.FAILED: _ENDED,
    Status.SKIPPED: _ENDED,
    Status.CANCELED: _ENDED,
}


@dataclass(frozen=True, slots=True)
class RunRow:
    """All there is to know of one status of a run."""

    may_follow: tuple[RunState, ...]  # what may follow; saying a status again is no move
    final: bool = False  # the run has ended


# Only a time travel lets a run go on that has ended.
_FINAL = RunRow(may_follow=(RunState.RUNNING,), final=True)

RUN_TABLE: Mapping[str, RunRow] = {
    RunState.PENDING: RunRow(may_follow=(RunState.RUNNING, RunState.CANCELED)),
    RunState.RUNNING: RunRow(
        may_follow=(
            RunState.PENDING,  # a start that nobody could be told of is taken back
            RunState.SUSPENDED,
            RunState.PAUSED,
            RunState.SUCCESS,
            RunState.FAILED,
            RunState.CANCELED,
            RunState.TRIPWIRE,
        )
    ),
    RunState.SUSPENDED: RunRow(may_follow=(RunState.RUNNING, RunState.CANCELED)),
    RunState.PAUSED: RunRow(may_follow=(RunState.RUNNING, RunState.CANCELED)),
    RunState.SUCCESS: _FINAL,
    RunState.FAILED: _FINAL,
    RunState.CANCELED: _FINAL,
    RunState.TRIPWIRE: _FINAL,
}

FINAL = frozenset(state for state in RunState if RUN_TABLE[state].final)


def _of(kind: Kind) -> frozenset[Status]:
    return frozenset(status for status in Status if TABLE[status].kind is kind)


LIVE = _of(Kind.LIVE)
HELD = _of(Kind.AWAITING)
ENDED = _of(Kind.ENDED)


class IllegalTransition(ValueError):
    """A change moves a record or a run where the table has no way. It is not written: whoever made it has a bug."""


def row_of(before: str, after: str, path: str) -> Row:
    """Return the row of the status `after`. Raise `IllegalTransition` where it may not follow `before`."""
    came_from = TABLE[before]
    if after in came_from.may_follow or (not path and after in came_from.root_may_follow):
        return TABLE[after]
    known = before or "nothing"
    raise IllegalTransition(f"the record at '{path}' cannot be '{after}' after '{known}'")


def check_run(before: str, after: str) -> None:
    """Raise `IllegalTransition` where a run may not go from one status to the other."""
    if after != before and after not in RUN_TABLE[before].may_follow:
        raise IllegalTransition(f"a run cannot be '{after}' after '{before}'")


def tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Both tables as plain data, for those who interpret them in another language.

    Cells that have their default are left out, and several statuses stand in one text between blanks: a script makes
    the tables anew in each call.
    """
    return {
        "status": {
            status: {**_plain(row), **({"is_asked_for": True} if row.is_asked_for else {})}
            for status, row in TABLE.items()
        },
        "run": {state: _plain(row) for state, row in RUN_TABLE.items()},
    }


def _plain(row: Row | RunRow) -> dict[str, Any]:
    cells = {field.name: getattr(row, field.name) for field in fields(row)}
    texts = {name: f" {' '.join(cells[name])} " for name in ("may_follow", "root_may_follow") if cells.get(name)}
    return {field.name: cells[field.name] for field in fields(row) if cells[field.name] != field.default} | texts
