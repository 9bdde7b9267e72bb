"""The language of commits: guards, operations, and the answers of a store.

A `Change` is applied whole or not at all. A store compares and writes it, and decides nothing. So whatever depends on
siblings is written beforehand: a `CountDown` carries what follows when its counter reaches zero, and a `StartNextItem`
the activation for the counter's next value. As decision 1 says, nothing is decided after a commit, where a crash could
lose it. Durations are milliseconds; the store's clock makes the moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import Activation, ActivationFields, RunHeader, RunHeaderFields

Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CreateActivation:
    """Write a fresh activation. The whole change is refused where a live one is at its path."""

    activation: Activation
    claim: str = ""  # the lease token under which it is born running; empty: it takes the status that it has
    delay: int = 0  # milliseconds until its deadline, for what sleeps, retries or waits


@dataclass(frozen=True, slots=True)
class UpdateActivation:
    """Write other values into some fields of an activation that exists."""

    path: str
    fields: ActivationFields  # a `status` among them moves the activation, with all that the table says
    claim: str = ""  # the lease token under which it becomes running
    delay: int = 0  # milliseconds until its deadline; without a new status, the deadline alone moves


@dataclass(frozen=True, slots=True)
class StartNextItem:
    """Create the block's next item, if one is left. The store takes the index from the block."""

    path: str
    template: Activation  # the item but for its index
    prefix: str  # its input is the value `<prefix>.<index>`


@dataclass(frozen=True, slots=True)
class CancelPendingItems:
    """Start no further items of the block. Those that have not begun count as finished."""

    path: str


@dataclass(frozen=True, slots=True)
class CountDown:
    """Count one child of the block as finished."""

    path: str
    then: UpdateActivation  # applied in the same commit if this was the last child: the join
    event: Doc | None = None  # appended with the counts of the block


@dataclass(frozen=True, slots=True)
class EmitProgress:
    """Append an event about a child of the block that goes on, together with the counts of the block."""

    path: str
    event: Doc


@dataclass(frozen=True, slots=True)
class UpdateRun:
    """Write other values into some fields of the run header."""

    fields: RunHeaderFields
    unless: str = ""  # a field; where it is not empty any more, nothing is written


Op = CreateActivation | UpdateActivation | StartNextItem | CancelPendingItems | CountDown | EmitProgress | UpdateRun


@dataclass(frozen=True, slots=True)
class Precondition:
    """The guard of an activation that was read: the change is refused where the activation has moved since."""

    path: str
    status: str
    seq: int
    deadline: int | None = None  # None: any; a sweep names it, so a heartbeat in between refuses the sweep


@dataclass(frozen=True, slots=True)
class LeaseGuard:
    """The guard of a claim: the activation at `path` is running under this lease token (decision 3)."""

    path: str
    token: str
    flush_seq: int = 0  # number of a flush, from 1: the claim goes on, so its token cannot tell a repeat
    # Token of a process that ends the claim for its holder. Repeated under it, the change gets its first answer, while
    # the holder, who comes later, is refused like any worker that has lost its lease.
    ender: str = ""


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """The guard of a change from outside: the run has one of these statuses, and its counts are as read."""

    # Used once: a change that is repeated under it gets the first answer, whoever has committed in between. Empty for
    # upkeep (the scheduler's), which its preconditions make safe to repeat: there is much of it, and it is not
    # remembered. Upkeep alone may have preconditions on activations in a closed run, other than on the run's own.
    id: str
    statuses: frozenset[str]  # the statuses of a run in which the change makes sense
    generation: int | None = None  # None: any
    settle_count: int | None = None  # None: any
    commits: int | None = None  # the number of the run's last commit: nothing has happened since; None: any
    # Id of the request that this change undoes. A repeat of that one is refused from now on: nothing is left of it.
    undoes: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One atomic step of a run, as data."""

    guard: LeaseGuard | RequestGuard
    ops: tuple[Op, ...] = ()  # applied in this order
    expect: tuple[Precondition, ...] = ()  # guards of activations that were read
    values: Mapping[str, str] = field(default_factory=dict)  # new values by id; written once
    state: Mapping[str, str | None] = field(default_factory=dict)  # the run's state, key by key; None deletes one
    context: Mapping[str, str | None] = field(default_factory=dict)  # the request context, key by key
    events: tuple[Doc, ...] = ()  # appended to the log of the run
    expect_state: str | None = None  # the version of the state as read; None: any
    mailbox: MailboxUpdate | None = None
    drop: tuple[str, ...] = ()  # paths of activations to delete
    drop_values: tuple[str, ...] = ()  # ids of values to delete, before those of this change are written
    # Empties the log, before the events of this change are appended: for a start that is undone, before which nothing
    # can have been told. A reader's cursor from before means nothing any more.
    drop_events: bool = False
    settle_token: str = ""  # the lease token that claims the settling if nothing is live; empty: it is queued
    settle_now: bool = False  # settles the run even while others are live
    lease: int = 30_000  # milliseconds until the deadline of what is running
    redelivery_delay: int = 30_000  # milliseconds until the deadline of what is queued
    # Either limit is enough for an event to go. The newest `max_events` stay, as do the events of this change itself.
    max_events: int = 0  # the length from which on the oldest events may go; 0: no limit
    max_event_age: int = 0  # the age from which on events may go, when the change has events; 0: no limit

    def reads(self) -> set[str]:
        """Return the paths of the activations that must be at hand to apply the change."""
        paths = {"", *(e.path for e in self.expect), *self.drop}
        if isinstance(self.guard, LeaseGuard):
            paths.add(self.guard.path)
        return paths | set(_reads(self.ops))


def _reads(ops: tuple[Op, ...]) -> Iterator[str]:
    for op in ops:
        match op:
            case CreateActivation(activation=activation):
                yield activation.path
            case (
                UpdateActivation(path=path)
                | StartNextItem(path=path)
                | CancelPendingItems(path=path)
                | EmitProgress(path=path)
            ):
                yield path
            case CountDown(path=path, then=then):
                yield path
                yield then.path
            case UpdateRun():
                pass


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A request to take the activation that a message has named, for one attempt."""

    run_id: str
    path: str
    seq: int  # as the message names it; an older number than the activation's is refused
    token: str  # the fencing token of the claim, used once: a repeated request meets its own claim by it
    lease: int = 30_000  # milliseconds
    runtime: str = ""  # name of the runtime that will do the work; empty: any that may
    # Of what was sent for a task: the number of the sending, and the claim that has sent it. It is claimed by these and
    # not by `seq`, from whoever has it: from its sender, whose message may be faster than his commit, from who looks
    # after it, or from the execution that has let the next message follow.
    sending: int = 0
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An activation that is to be handed to a worker. On Celery it becomes a message."""

    path: str
    seq: int
    route: str  # the route as text: the sender may not have the graph
    delay: int = 0  # milliseconds; 0: at once


@dataclass(frozen=True, slots=True)
class Claimed:
    """Everything that an attempt needs: activation, run header, and values, state and context as stored text."""

    header: RunHeader
    activation: Activation
    values: Mapping[str, str]  # its input and what it `needs`, by id
    state: Mapping[str, str]
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refused:
    """A claim or a change that was not taken."""

    reason: str  # one of the constants of `apply`
    header: RunHeader | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that was taken."""

    # As the change has left it. In the answer to a repeat it is the present one, but for the settle count, which is
    # that of the first answer: a caller waits for the next settling after its change, which may have come in between.
    header: RunHeader
    dispatches: tuple[Dispatch, ...] = ()  # to be published now
    claimed: Claimed | None = None  # the activation that the change has claimed for its worker
    left_out: int = 0  # dispatches that the answer to a repeat leaves out
