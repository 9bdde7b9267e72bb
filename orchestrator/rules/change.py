"""What a commit says. A `Change` is all or nothing; a store compares and writes it and decides nothing.

Whatever hangs on siblings is written here beforehand (`Down` carries what happens when its counter reaches zero, `Next`
carries the activation to put at the counter's next value), so that nothing is decided after a commit that a crash could
lose. Durations are milliseconds; moments are made by the store's clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.rules.model import Activation, RunHeader

Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CreateActivation:
    """Write a fresh activation; refused (the whole change) where a live one stands at its path.

    With `claim` it is born running, held by that token. `delay` is the time until its moment, for what sleeps or waits.
    """

    activation: Activation
    claim: str = ""
    delay: int = 0


@dataclass(frozen=True, slots=True)
class UpdateActivation:
    """Other values in some fields of an activation that exists; `status` among them moves it, `claim` makes it running."""

    path: str
    fields: Mapping[str, Any]
    claim: str = ""
    delay: int = 0


@dataclass(frozen=True, slots=True)
class StartNextItem:
    """Put `template` as the block's next item, if one is left. Its input is the value `<prefix>.<index>`."""

    path: str
    template: Activation
    prefix: str


@dataclass(frozen=True, slots=True)
class CancelPendingItems:
    """Start no further items of the block: those never begun count as finished."""

    path: str


@dataclass(frozen=True, slots=True)
class CountDown:
    """One child of the block has finished; if it was the last, also `then`. `event` gets the counts."""

    path: str
    then: UpdateActivation
    event: Doc | None = None


@dataclass(frozen=True, slots=True)
class EmitProgress:
    """An event about a child of the block that goes on; it gets the block's counts."""

    path: str
    event: Doc


@dataclass(frozen=True, slots=True)
class UpdateRun:
    """Other values in some fields of the header. With `unless`, only if that field is still empty."""

    fields: Mapping[str, Any]
    unless: str = ""


Op = CreateActivation | UpdateActivation | StartNextItem | CancelPendingItems | CountDown | EmitProgress | UpdateRun


@dataclass(frozen=True, slots=True)
class Precondition:
    """A guard: the activation at `path` has this status and seq (and moment, where it matters)."""

    path: str
    status: str
    seq: int
    deadline: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseGuard:
    """The guard of a claim: the activation at `path` is running and held by `token`.

    Where the change lets the claim go on, and must not be applied twice, `part` is its number among those: 1, 2, …
    """

    path: str
    token: str
    flush_seq: int = 0
    # Who ends the claim for its holder, by a token of its own: repeated under it, the change gets its first answer,
    # while the holder, who comes later, is refused like anybody whose claim is lost.
    ender: str = ""


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """The guard of a change from outside: the header's status is one of `states` (and its life and rests are these).

    `id` never comes back: a change repeated under it gets the first answer. Without one it is upkeep (the scheduler's),
    which is safe to repeat by what it expects: it is not remembered, so that it never pushes a caller's answer out.
    In a run that has been closed and waits for its rest, it alone may expect anything of other activations than the
    run's own.
    """

    id: str
    statuses: frozenset[str]
    generation: int | None = None
    settle_count: int | None = None


@dataclass(frozen=True, slots=True)
class MailboxUpdate:
    """What happens to the mailbox of one event name: `expect` is its mark as read, None for any.

    A mailbox holds what has been sent and not yet heard (ids of values), or else who waits (see `flow.waiter`):
    never both, so that a sender and a listener who come at the same moment cannot miss each other.
    """

    name: str
    expect: str | None = None
    push: str = ""  # the entry to add at the end
    pop: str = ""  # the entry to take away


def mailbox_version(entries: Sequence[str]) -> str:
    """What tells whether a mailbox is still as it was read.

    Entries never come back and stand in the order of their arrival, so how many there are and which is the newest
    say it all. The length alone does not: a waiter may have gone and an event come.
    """
    return f"{len(entries)}:{entries[-1]}" if entries else ""


@dataclass(frozen=True, slots=True)
class Change:
    """One atomic step of a run.

    `values` are written under their ids, `state` and `context` set or (None) delete single keys, `events` are appended.
    `rest` is the token with which the change claims the run's rest activation if nothing is live after it ("" puts it
    in the queue); `rest_now` claims it even while others are live. `lease` and `grace` say when a running and a
    queued activation are looked at again. Where `keep` is not 0 and the log has grown longer than that, its oldest events
    may go; at least so many of the newest stay. Where `keep_for` is not 0 and the change tells something, events older
    than that may go, but none that it tells itself. Either is enough.
    """

    guard: LeaseGuard | RequestGuard
    ops: tuple[Op, ...] = ()
    expect: tuple[Precondition, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str | None] = field(default_factory=dict)
    context: Mapping[str, str | None] = field(default_factory=dict)
    events: tuple[Doc, ...] = ()
    mailbox: MailboxUpdate | None = None
    drop: tuple[str, ...] = ()  # paths of records that go away
    settle_token: str = ""
    settle_now: bool = False
    lease: int = 30_000
    redelivery_delay: int = 30_000
    max_events: int = 0
    max_event_age: int = 0

    def reads(self) -> set[str]:
        """The paths of the records that must be at hand to apply it."""
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
    """A wish to run the activation at `path` that the message with `seq` spoke of, under a token that never comes
    back.
    """

    run_id: str
    path: str
    seq: int
    token: str
    lease: int = 30_000


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An activation that somebody must be told of, at once or (`delay` milliseconds) when its moment comes."""

    path: str
    seq: int
    route: str
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Claimed:
    """Everything a claimed activation needs: its activation, the run's header, values, state and context as stored text."""

    header: RunHeader
    activation: Activation
    values: Mapping[str, str]
    state: Mapping[str, str]
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a claim or a change was not taken. `reason` is one of the constants of `apply`."""

    reason: str
    header: RunHeader | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that was taken: the header after it, whom to tell, and what it claimed."""

    header: RunHeader
    dispatches: tuple[Dispatch, ...] = ()
    claimed: Claimed | None = None
