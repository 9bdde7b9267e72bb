"""The table of statuses: which may follow which, and what an activation is stamped with as it takes one.

`stamps` and `apply` interpret the table, and so do the Redis scripts, in whose text it stands. The sets of statuses,
the timers (`timers`) and the state diagram of the documentation derive from it. A status is added here, and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


class ActivationStatus(StrEnum):
    """The status of an activation."""

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


class StoredStatus(StrEnum):
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
    """The party that moves an activation of this status on."""

    LIVE = "live"  # a worker or the sweep, without being asked; a run of which nothing is live settles
    OPEN = "open"  # its last child
    AWAITING = "awaiting"  # somebody outside; the header counts each such status by name
    ENDED = "ended"  # nobody
    ABSENT = "absent"  # nobody: there is no activation


class Claim(StrEnum):
    """The condition on which a message that names the activation's number may claim it."""

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
    """The moment at which somebody looks at the activation again.

    Whatever is live has exactly one. The commit that makes it live writes it, so that a crash between that commit and
    the message to a worker loses nothing.
    """

    NONE = "none"
    LEASE = "lease"  # is its worker still there?
    REDELIVERY = "redelivery"  # was its message lost?
    DELAY = "delay"  # is it time?
    TIMEOUT = "timeout"  # has the event not come? A wait without a delay has no end


class Told(StrEnum):
    """The moment at which a worker is told of the activation."""

    NEVER = "never"
    AT_ONCE = "at_once"
    AFTER_DELAY = "after_delay"


@dataclass(frozen=True, slots=True)
class Row:
    """All there is to know of one status of an activation. Fields of activations stand here by their names."""

    kind: Kind
    may_follow: tuple[ActivationStatus, ...] = ()  # what may follow; anything else is a bug of whoever wrote the change
    root_may_follow: tuple[ActivationStatus, ...] = ()  # what else may follow in the run's own activation
    claim: Claim = Claim.NEVER
    seq: Number = Number.KEPT
    deadline: Deadline = (
        Deadline.NONE
    )  # a lease brings the claim's token along; every other status takes the token away
    stamps: tuple[str, ...] = ()  # moments, taken each time
    first_stamps: tuple[str, ...] = ()  # moments, taken the first time alone
    answer_stamps: tuple[str, ...] = ()  # moments, taken if the activation was awaiting somebody
    ordered: bool = False  # its first such commit numbers it in the order of first runs
    resets: tuple[str, ...] = ()  # fields that get their defaults back
    told: Told = Told.NEVER

    @property
    def is_asked_for(self) -> bool:
        """True where a message has spoken of the activation by its number."""
        return self.claim in (Claim.AT_ONCE, Claim.AT_DEADLINE)


# An activation that is written afresh comes from here, whether there was one at its place or not: another iteration, or a
# time travel, writes over what has ended.
ABSENT = ""

_ENDED = Row(
    Kind.ENDED,
    # What never ran (an arm that failed with its block, say) has begun as it ends, so that every end has a beginning.
    first_stamps=("started_at",),
    stamps=("ended_at",),
    # A result clears the count of lost workers: only losses in a row, with no commit between them, count as a poison.
    resets=("abandoned_attempts",),
)

TABLE: Mapping[str, Row] = {
    ABSENT: Row(
        Kind.ABSENT,
        may_follow=(
            ActivationStatus.QUEUED,
            ActivationStatus.RUNNING,  # claimed by the commit that starts it: control activations, and steps that go on inline
            ActivationStatus.RETRYING,  # a countdown
            ActivationStatus.SLEEPING,
            ActivationStatus.OPEN,
            ActivationStatus.PAUSED,  # held back in a run that goes step by step
            ActivationStatus.SUCCESS,  # a time travel writes a past: what a caller says of a step, and arms that were not chosen
            ActivationStatus.SKIPPED,
        ),
    ),
    ActivationStatus.QUEUED: Row(
        Kind.LIVE,
        may_follow=(
            ActivationStatus.RUNNING,
            ActivationStatus.QUEUED,  # a restart, which makes the messages of before stale
            ActivationStatus.SUSPENDED,  # a resume that nobody could be told of is taken back
            ActivationStatus.PAUSED,
        ),
        # Whoever lets a settled run go on opens it again, and so takes away a settling that had been put in the queue.
        root_may_follow=(ActivationStatus.OPEN,),
        claim=Claim.AT_ONCE,
        seq=Number.NEW,
        deadline=Deadline.REDELIVERY,
        stamps=("queued_at",),
        answer_stamps=("resumed_at",),
        # Lost workers stay counted: an activation goes back in the queue by way of a sweep after each of them.
        told=Told.AT_ONCE,
    ),
    ActivationStatus.RUNNING: Row(
        Kind.LIVE,
        may_follow=(
            ActivationStatus.RUNNING,  # taken over once the lease is over
            ActivationStatus.QUEUED,  # swept once the lease is over, given back by a worker that stops, or restarted
            ActivationStatus.RETRYING,  # the attempt failed, or this release cannot run it
            ActivationStatus.SLEEPING,
            ActivationStatus.OPEN,
            ActivationStatus.SUSPENDED,
            ActivationStatus.WAITING,
            ActivationStatus.SUCCESS,
            ActivationStatus.FAILED,
            ActivationStatus.CANCELED,
        ),
        claim=Claim.LEASE_OVER,
        seq=Number.CLAIMED,
        deadline=Deadline.LEASE,
        first_stamps=("started_at",),
        ordered=True,
        # Parts are numbered within a claim, and a worker that claims it evidently can run it.
        resets=("flush_seq", "parked"),
    ),
    ActivationStatus.RETRYING: Row(
        Kind.LIVE,
        # A restart leaves a countdown its moment: `retrying` follows itself.
        may_follow=(ActivationStatus.RUNNING, ActivationStatus.QUEUED, ActivationStatus.RETRYING),
        root_may_follow=(ActivationStatus.OPEN,),
        claim=Claim.AT_DEADLINE,
        seq=Number.NEW,
        deadline=Deadline.DELAY,
        first_stamps=("started_at",),
        ordered=True,
        resets=("abandoned_attempts",),
        told=Told.AFTER_DELAY,
    ),
    ActivationStatus.SLEEPING: Row(
        Kind.LIVE,
        may_follow=(ActivationStatus.RUNNING, ActivationStatus.QUEUED, ActivationStatus.SLEEPING),
        claim=Claim.AT_DEADLINE,
        seq=Number.NEW,
        deadline=Deadline.DELAY,
        first_stamps=("started_at",),
        ordered=True,
        resets=("abandoned_attempts",),
        told=Told.AFTER_DELAY,
    ),
    ActivationStatus.OPEN: Row(
        Kind.OPEN,
        may_follow=(
            ActivationStatus.RUNNING,  # the join, or the loop's condition, claimed by the last child
            ActivationStatus.QUEUED,  # the same where the last child's commit has no claim to give
            ActivationStatus.PAUSED,  # a loop's condition, held back in a run that goes step by step
            ActivationStatus.SUCCESS,
            ActivationStatus.FAILED,
        ),
        # Two may let a settled run go on, one after the other: the second finds it open.
        root_may_follow=(ActivationStatus.OPEN,),
        first_stamps=("started_at",),
        ordered=True,
        resets=("abandoned_attempts",),
    ),
    ActivationStatus.SUSPENDED: Row(
        Kind.AWAITING,
        may_follow=(ActivationStatus.QUEUED,),
        seq=Number.NEW,
        stamps=("suspended_at",),
        resets=("abandoned_attempts",),
    ),
    ActivationStatus.WAITING: Row(
        Kind.AWAITING,
        may_follow=(ActivationStatus.QUEUED,),
        seq=Number.NEW,
        deadline=Deadline.TIMEOUT,
        stamps=("suspended_at",),
        first_stamps=("started_at",),
        ordered=True,
        resets=("abandoned_attempts",),
    ),
    # What is held back has not run, so it has nothing to clear.
    ActivationStatus.PAUSED: Row(Kind.AWAITING, may_follow=(ActivationStatus.QUEUED,), seq=Number.NEW),
    ActivationStatus.SUCCESS: _ENDED,
    ActivationStatus.FAILED: _ENDED,
    ActivationStatus.SKIPPED: _ENDED,
    ActivationStatus.CANCELED: _ENDED,
}


@dataclass(frozen=True, slots=True)
class RunRow:
    """All there is to know of one status of a run."""

    may_follow: tuple[StoredStatus, ...]  # what may follow; saying a status again is no move
    final: bool = False  # the run has ended


# Only a time travel lets a run go on that has ended.
_FINAL = RunRow(may_follow=(StoredStatus.RUNNING,), final=True)

RUN_TABLE: Mapping[str, RunRow] = {
    StoredStatus.PENDING: RunRow(may_follow=(StoredStatus.RUNNING, StoredStatus.CANCELED)),
    StoredStatus.RUNNING: RunRow(
        may_follow=(
            StoredStatus.PENDING,  # a start that nobody could be told of is taken back
            StoredStatus.SUSPENDED,
            StoredStatus.PAUSED,
            StoredStatus.SUCCESS,
            StoredStatus.FAILED,
            StoredStatus.CANCELED,
            StoredStatus.TRIPWIRE,
        )
    ),
    StoredStatus.SUSPENDED: RunRow(may_follow=(StoredStatus.RUNNING, StoredStatus.CANCELED)),
    StoredStatus.PAUSED: RunRow(may_follow=(StoredStatus.RUNNING, StoredStatus.CANCELED)),
    StoredStatus.SUCCESS: _FINAL,
    StoredStatus.FAILED: _FINAL,
    StoredStatus.CANCELED: _FINAL,
    StoredStatus.TRIPWIRE: _FINAL,
}

FINAL = frozenset(state for state in StoredStatus if RUN_TABLE[state].final)


def _of(kind: Kind) -> frozenset[ActivationStatus]:
    return frozenset(status for status in ActivationStatus if TABLE[status].kind is kind)


LIVE = _of(Kind.LIVE)
AWAITING = _of(Kind.AWAITING)
ENDED = _of(Kind.ENDED)


class IllegalTransition(ValueError):
    """A change moves an activation or a run where the table has no way. It is not written: whoever made it has a bug."""


def row_of(before: str, after: str, path: str) -> Row:
    """Return the row of the status `after`. Raise `IllegalTransition` where it may not follow `before`."""
    came_from = TABLE[before]
    if after in came_from.may_follow or (not path and after in came_from.root_may_follow):
        return TABLE[after]
    known = before or "nothing"
    raise IllegalTransition(f"the activation at '{path}' cannot be '{after}' after '{known}'")


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
