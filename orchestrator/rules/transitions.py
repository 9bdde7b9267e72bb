"""The table of statuses: which status may follow which, and what happens to an activation that takes one.

`stamps` and `apply` interpret the table, and so do the Redis scripts, in whose text it stands. The sets of statuses,
the timers (`timers`) and the state diagram of the documentation derive from it. A status is added here and nowhere
else. The table must not know why a status is taken: `flow` and the commands decide that.
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
    SENT = "sent"  # a task of another message has it; its execution, or word of its end, moves it on
    RETRYING = "retrying"
    SLEEPING = "sleeping"
    OPEN = "open"  # a block or a nested workflow whose children are not finished
    SUSPENDED = "suspended"
    WAITING = "waiting"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"  # its step called `abort`


class StoredStatus(StrEnum):
    """The status of a run, as it is stored."""

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

    LIVE = "live"  # a worker or the scheduler, unasked; a run in which nothing is live settles
    OPEN = "open"  # its last child
    AWAITING = "awaiting"  # a caller, an event or a timeout; the run header counts each such status by name
    ENDED = "ended"  # none; only a fresh activation can take its place
    ABSENT = "absent"  # none: there is no activation


class Claim(StrEnum):
    """The condition under which a message that names the current `seq` may claim the activation."""

    NEVER = "never"
    AT_ONCE = "at_once"
    AT_DEADLINE = "at_deadline"
    HELD = "held"  # by the present claim. Whether its lease counts as over is the sweep's to say (see `timers`)


class Number(StrEnum):
    """The effect of taking a status on `seq`, the number that a message has to name."""

    KEPT = "kept"  # no message names an activation of this status, so no message can be stale
    NEW = "new"  # older messages become stale: one from before a retry must not skip its delay
    CLAIMED = "claimed"  # kept if a message named it, else new: a takeover makes the dead worker's message stale


class Deadline(StrEnum):
    """The moment at which a worker looks at the activation again.

    Whatever is live has exactly one. The commit that makes it live writes it, so a crash between that commit and the
    message to a worker loses nothing.
    """

    NONE = "none"
    LEASE = "lease"  # is its worker still there?
    REDELIVERY = "redelivery"  # was its message lost?
    DELAY = "delay"  # is it time?
    LOOK = "look"  # has the task that was sent ended without a word?
    TIMEOUT = "timeout"  # has the event not come? A wait without a timeout has no deadline


class DispatchTime(StrEnum):
    """The moment at which the activation is dispatched to a worker."""

    NEVER = "never"
    AT_ONCE = "at_once"
    AFTER_DELAY = "after_delay"


@dataclass(frozen=True, slots=True)
class Row:
    """Everything that is to be known of one status of an activation. Fields of activations are given by name."""

    kind: Kind
    may_follow: tuple[ActivationStatus, ...] = ()  # the next statuses; any other is a bug in the change
    root_may_follow: tuple[ActivationStatus, ...] = ()  # further next statuses of the run's own activation
    claim: Claim = Claim.NEVER
    seq: Number = Number.KEPT
    # A lease comes with the lease token of its claim; every status without one takes the token away.
    deadline: Deadline = Deadline.NONE
    stamps: tuple[str, ...] = ()  # fields that get the current time, each time
    first_stamps: tuple[str, ...] = ()  # fields that get the current time, the first time only
    answer_stamps: tuple[str, ...] = ()  # fields that get the current time if the activation was awaiting
    ordered: bool = False  # the first such commit gives the activation its place in the order of first runs
    resets: tuple[str, ...] = ()  # fields that get their defaults back
    dispatch: DispatchTime = DispatchTime.NEVER

    @property
    def is_asked_for(self) -> bool:
        """True where a message has named the current `seq` of the activation."""
        return self.claim in (Claim.AT_ONCE, Claim.AT_DEADLINE)


# An activation that is created comes from here, even where its place holds one that has ended: another iteration of a
# loop and a time travel write over it, and the table need not allow any way out of an end.
ABSENT = ""

_ENDED = Row(
    Kind.ENDED,
    # What never ran (an arm that failed with its block, say) starts as it ends, so every end has a beginning.
    first_stamps=("started_at",),
    stamps=("ended_at",),
    # A result clears the count of abandoned attempts: only attempts in a row, with no commit in between, show that
    # the step kills its workers.
    resets=("abandoned_attempts",),
)

TABLE: Mapping[str, Row] = {
    ABSENT: Row(
        Kind.ABSENT,
        may_follow=(
            ActivationStatus.QUEUED,
            ActivationStatus.RUNNING,  # claimed by the commit that starts it: a control activation, an inline step
            ActivationStatus.RETRYING,  # the first step of a delayed start
            ActivationStatus.SLEEPING,
            ActivationStatus.OPEN,
            ActivationStatus.PAUSED,  # a run that goes by single steps
            ActivationStatus.SUCCESS,  # a time travel writes what a caller gives for a step
            ActivationStatus.SKIPPED,  # a time travel writes the arms that were not chosen
        ),
    ),
    ActivationStatus.QUEUED: Row(
        Kind.LIVE,
        may_follow=(
            ActivationStatus.RUNNING,
            ActivationStatus.QUEUED,  # a restart, which makes all earlier messages stale
            ActivationStatus.SUSPENDED,  # a resume is undone, because no message could be sent
            ActivationStatus.PAUSED,  # the same, for an activation that was paused
        ),
        # A resume, an event or a timeout opens the run's own activation again. If its settling is still in the queue,
        # that takes the settling away: it would decide a status that is no longer true.
        root_may_follow=(ActivationStatus.OPEN,),
        claim=Claim.AT_ONCE,
        seq=Number.NEW,
        deadline=Deadline.REDELIVERY,
        stamps=("queued_at",),
        answer_stamps=("resumed_at",),
        # Nothing is known yet of the new message.
        resets=("sends", "looks"),
        # Abandoned attempts stay counted, because a sweep puts the activation back into the queue after each of them.
        dispatch=DispatchTime.AT_ONCE,
    ),
    ActivationStatus.RUNNING: Row(
        Kind.LIVE,
        may_follow=(
            ActivationStatus.RUNNING,  # another worker takes over after the lease
            ActivationStatus.QUEUED,  # a sweep after the lease, a release by a worker that stops, a restart
            ActivationStatus.SENT,  # a task was sent, or its execution goes on by another message
            ActivationStatus.RETRYING,  # the attempt failed, or this process cannot run the step
            ActivationStatus.SLEEPING,
            ActivationStatus.OPEN,
            ActivationStatus.SUSPENDED,
            ActivationStatus.WAITING,
            ActivationStatus.SUCCESS,
            ActivationStatus.FAILED,
            ActivationStatus.CANCELED,
        ),
        claim=Claim.HELD,
        seq=Number.CLAIMED,
        deadline=Deadline.LEASE,
        first_stamps=("started_at",),
        ordered=True,
        # Flushes are numbered within one claim. What was parked has evidently found a worker that can run it.
        resets=("flush_seq", "parked"),
    ),
    ActivationStatus.SENT: Row(
        Kind.LIVE,
        may_follow=(
            ActivationStatus.RUNNING,  # claimed by what was sent (`ClaimRequest.sending`), or by word of its end
            ActivationStatus.QUEUED,  # it is time to look after it, or a restart gives it up
        ),
        # By its `seq` no message claims it.
        deadline=Deadline.LOOK,
        first_stamps=("sent_at",),
        resets=("flush_seq",),
    ),
    ActivationStatus.RETRYING: Row(
        Kind.LIVE,
        # A restart leaves a delayed start its moment: `retrying` follows itself.
        may_follow=(ActivationStatus.RUNNING, ActivationStatus.QUEUED, ActivationStatus.RETRYING),
        root_may_follow=(ActivationStatus.OPEN,),
        claim=Claim.AT_DEADLINE,
        seq=Number.NEW,
        deadline=Deadline.DELAY,
        first_stamps=("started_at",),
        ordered=True,
        resets=("abandoned_attempts",),
        dispatch=DispatchTime.AFTER_DELAY,
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
        dispatch=DispatchTime.AFTER_DELAY,
    ),
    ActivationStatus.OPEN: Row(
        Kind.OPEN,
        may_follow=(
            ActivationStatus.RUNNING,  # the join, or the condition of a loop, claimed by the last child
            ActivationStatus.QUEUED,  # the same, where the last child's commit can claim nothing more
            ActivationStatus.PAUSED,  # the condition of a loop, in a run that goes by single steps
            ActivationStatus.SUCCESS,
            ActivationStatus.FAILED,
        ),
        # Two resumes may let a settled run go on, one after the other: the second finds it open.
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
    # What is paused has not run yet, so it has nothing to clear.
    ActivationStatus.PAUSED: Row(Kind.AWAITING, may_follow=(ActivationStatus.QUEUED,), seq=Number.NEW),
    ActivationStatus.SUCCESS: _ENDED,
    ActivationStatus.FAILED: _ENDED,
    ActivationStatus.SKIPPED: _ENDED,
    ActivationStatus.CANCELED: _ENDED,
}


@dataclass(frozen=True, slots=True)
class RunRow:
    """Everything that is to be known of one status of a run."""

    may_follow: tuple[StoredStatus, ...]  # the next statuses; writing the present one again is no move
    final: bool = False  # the run has ended


# Only a time travel lets a run go on that has ended, and then in a new generation.
_FINAL = RunRow(may_follow=(StoredStatus.RUNNING,), final=True)

RUN_TABLE: Mapping[str, RunRow] = {
    StoredStatus.PENDING: RunRow(may_follow=(StoredStatus.RUNNING, StoredStatus.CANCELED)),
    StoredStatus.RUNNING: RunRow(
        may_follow=(
            StoredStatus.PENDING,  # a start is undone, because no message could be sent
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

FINAL = frozenset(status for status in StoredStatus if RUN_TABLE[status].final)


def _of(kind: Kind) -> frozenset[ActivationStatus]:
    return frozenset(status for status in ActivationStatus if TABLE[status].kind is kind)


LIVE = _of(Kind.LIVE)
AWAITING = _of(Kind.AWAITING)
ENDED = _of(Kind.ENDED)


class IllegalTransition(ValueError):
    """A change moves an activation or a run where the table has no way.

    Nothing is written. The command that made the change has a bug.
    """


def row_of(before: str, after: str, path: str) -> Row:
    """Return the row of the status `after`. Raise `IllegalTransition` where it may not follow `before`."""
    # Every store asks this before it writes, so a wrong change is refused whole instead of leaving a run half moved.
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
    """Return both tables as plain data, for an interpreter in another language.

    Cells that have their default are left out, and several statuses stand in one text between blanks. A script builds
    the tables anew in each call, so they are kept small.
    """
    return {
        "status": {
            status: {**_plain(row), **({"is_asked_for": True} if row.is_asked_for else {})}
            for status, row in TABLE.items()
        },
        "run": {status: _plain(row) for status, row in RUN_TABLE.items()},
    }


def _plain(row: Row | RunRow) -> dict[str, Any]:
    cells = {field.name: getattr(row, field.name) for field in fields(row)}
    texts = {name: f" {' '.join(cells[name])} " for name in ("may_follow", "root_may_follow") if cells.get(name)}
    return {field.name: cells[field.name] for field in fields(row) if cells[field.name] != field.default} | texts
