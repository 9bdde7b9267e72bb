"""One moment of a run, as the explorer sees it: what is stored, on its way, and in the middle of being done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from orchestrator.rules.change import Change, Claimed, Dispatch, RequestGuard
from orchestrator.rules.model import FINAL, Activation, RunHeader, StoredStatus

Message = tuple[str, int]
Place = tuple[str, str]  # path and visit of an activation, in the present generation
Budget = tuple[tuple[str, int], ...]
OF_WORKERS = frozenset({"kill", "lose", "unsent"})
SETTLED = FINAL | {StoredStatus.SUSPENDED, StoredStatus.PAUSED}


class Violation(Exception):
    """Something happened that must never happen."""


# --- workers and schedulers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holds:
    """A worker has a claim and has not committed its outcome yet; `at` of its commits are done."""

    claimed: Claimed
    at: int = 0
    mail: tuple[str, ...] | None = None  # the first of the mailbox as it has read it
    flushed: int = 0  # how often it has appended to its stream
    unheard: Change | None = None  # the last flush, if its answer got lost: it will be sent again


@dataclass(frozen=True)
class Tells:
    """A commit is done: these are to be published, then the claim that it made is gone on with."""

    dispatches: tuple[Dispatch, ...]
    claimed: Claimed | None = None


@dataclass(frozen=True)
class Repeats:
    """A commit is done, but its answer got lost: the same commit will be sent again."""

    change: Change


@dataclass(frozen=True)
class Finds:
    """The scheduler has found a timer that is due, and has not read its activation yet."""

    path: str


@dataclass(frozen=True)
class Read:
    """The scheduler has read a due activation and has not committed anything yet."""

    header: RunHeader
    activation: Activation


Local = Holds | Tells | Repeats | Finds | Read | None


# --- users ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sends:
    """A user has read the mailbox, and the activation that waits there, and is about to send this value."""

    entries: tuple[str, ...]
    waiting: Activation | None
    value: str


@dataclass(frozen=True)
class Means:
    """A user has read the run, and is about to make this change of it."""

    wish: str  # in words, such as "resume 0.1"
    header: RunHeader
    activations: tuple[Activation, ...]  # as they were read: those that the wish means
    change: Change
    is_elsewhere: bool = False  # it comes from a process of the other runtime

    @property
    def act(self) -> str:
        """The first word of the wish: resume, cancel, restart, travel, start or send."""
        return self.wish.partition(" ")[0]


@dataclass(frozen=True)
class Undoes:
    """A user's change stands, but the broker was away: it is about to be undone by this one."""

    means: Means
    change: Change
    settle_count: int = 0  # as the user's change has left it
    context: tuple[tuple[str, str], ...] = ()  # the request context before it

    @property
    def number(self) -> int | None:
        """The number of the commit that is about to be undone."""
        assert isinstance(self.change.guard, RequestGuard)
        return self.change.guard.commits

    def is_of(self, act: str, paths: Collection[str]) -> bool:
        """Tell whether it is the same that another wants: a start, or a resume of one of these."""
        mine = {activation.path for activation in self.means.activations}
        return self.means.act == act and (act == "start" or bool(mine & set(paths)))


@dataclass(frozen=True)
class Looks:
    """A user was refused because another was first, and is about to look whether that stands."""

    means: Means


@dataclass(frozen=True)
class Confirms:
    """A user who is refused is about to make final what another has done, before it takes that for an answer."""

    means: Means
    change: Change


@dataclass(frozen=True)
class Insists:
    """A user's change is done, but its answer got lost: the same change will be sent again, whoever comes in between.

    `settle_count` is that of the lost answer.
    """

    means: Means
    settle_count: int

    @property
    def id(self) -> str:
        """The id under which the change is remembered."""
        assert isinstance(self.means.change.guard, RequestGuard)
        return self.means.change.guard.id


@dataclass(frozen=True)
class Parent:
    """The process around a worker that was killed knows of it, and ends the claim that the worker had."""

    way: str  # "releases" or "fails"
    activation: Activation
    change: Change | None = None  # that it is about to commit, once it has read the activation


@dataclass(frozen=True)
class PutsBack:
    """Whoever could not publish these, as far as it knows, is about to have them looked at again soon."""

    dispatches: tuple[Dispatch, ...]


User = Sends | Means | Undoes | Looks | Confirms | Insists | Parent | PutsBack


# --- all of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Everything there is at one moment."""

    header: RunHeader
    activations: tuple[Activation, ...]
    messages: frozenset[Message]
    workers: tuple[Local, ...]
    scheduler: Local
    budget: Budget
    ended: frozenset[Place]  # the activations of this generation that have ended
    mail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # in the run's state: the paths of the steps that have noted theirs
    users: tuple[User, ...] = ()
    awaited: int = 0  # the settle count that a user who was told that the run goes on wants to see exceeded
    # Replies that the store remembers beside the header: those to users who will ask again.
    requests: tuple[tuple[str, str], ...] = ()
    aside: Local = None  # a second scheduler, whose clock is another
    kept: tuple[tuple[str, str], ...] = ()  # the run's state
    context: tuple[tuple[str, str], ...] = ()  # its request context
    starts: int = 0  # how often its log says that it has been started
    told: frozenset[int] = frozenset()  # numbers of commits of which others were told that they stand

    def at(self, path: str) -> Activation | None:
        """The activation at this path."""
        return next((activation for activation in self.activations if activation.path == path), None)

    def reply_to(self, user: Insists) -> str | None:
        """What is remembered of the change that this user will send again; None where it is forgotten."""
        if self.header.last_request_id == user.id:
            return self.header.last_reply
        return dict(self.requests).get(user.id)

    def may_have(self, fault: str) -> bool:
        """Tell whether the budget lets this happen once more. In its caller's process a run has no such faults."""
        if fault in OF_WORKERS and self.header.runtime == "local":
            return False
        return dict(self.budget).get(fault, 0) > 0

    def with_activation(self, activation: Activation) -> State:
        """The same with this activation in the place of what was there."""
        return replace(
            self, activations=tuple(activation if old.path == activation.path else old for old in self.activations)
        )

    def spend(self, fault: str, count: int = 1) -> Budget:
        """The budget after it has happened once more."""
        return tuple((name, left - count * (name == fault)) for name, left in self.budget)

    def owner(self, activation: Activation) -> int | None:
        """Return the worker that has the lease of this activation."""
        for number, local in enumerate(self.workers):
            match local:
                case Holds(claimed=Claimed(activation=mine)) | Tells(claimed=Claimed(activation=mine)) if (
                    mine.lease_token == activation.lease_token
                ):
                    return number
                case Repeats(change=change) if _claims(change, activation):
                    return number
                case _:
                    pass
        return None


def _claims(change: Change, activation: Activation) -> bool:
    """Tell whether this commit claimed the activation: a worker that sends the commit again goes on with it."""
    return bool(activation.lease_token) and activation.lease_token in repr((change.ops, change.settle_token))
