"""What the store's verbs may ask of a database, and when a transaction is repeated.

A transaction is a function of a `Tx`. It sends statements, looks at answers where it must, and returns how to put the
result together once the transaction has ended: so a database over the network can take all of it in few round trips. It
may run several times, and it may run again although it was committed, when the word of that was lost.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from orchestrator.errors import StoreUnavailable
from orchestrator.host import SystemClock, chance, monotonic

T = TypeVar("T")
Row = tuple[Any, ...]

PATIENCE = 30.0  # seconds for which a transaction gives way to others
LOSSES = 6  # connections lost in a row
SHORTEST, LONGEST = 0.01, 0.5  # seconds between two attempts


class Answer(Protocol):
    """Rows that a statement has given, or will have given."""

    def fetchall(self) -> list[Any]:
        """All rows."""
        ...


class Tx(Protocol):
    """A transaction that has begun."""

    def send(self, query: str, **parameters: Any) -> Answer:
        """One statement. Asking its answer for rows waits, unless the transaction has ended by then."""
        ...

    def put(self, query: str, rows: Sequence[Row]) -> None:
        """One statement for all these rows."""
        ...


class Conflict(Exception):
    """Another transaction was in the way: the same may be tried again."""


class Lost(Exception):
    """The connection is gone, or there was none. What was committed last may have been taken or not."""


Work = Callable[[Tx], Callable[[], T]]


class Link(ABC):
    """One process's connections to one database."""

    def __init__(self, shown: str) -> None:
        self.shown = shown  # the URL, fit to be seen
        self._pid = os.getpid()
        self._ready = False
        self._clock = SystemClock()
        _links.add(self)

    def change(self, work: Work[T]) -> T:
        """Run `work` in one transaction."""
        return self._persist(work, True)

    def read(self, work: Work[T]) -> T:
        """Run `work`, which writes nothing; each statement is consistent in itself."""
        return self._persist(work, False)

    def forked(self) -> None:
        """This is a new process: leave the connections of the old one alone."""
        self._pid = os.getpid()
        self._abandon()

    @abstractmethod
    def close(self) -> None:
        """Close the connections that nobody uses; the next transaction opens one again."""

    def before_fork(self) -> None:  # noqa: B027
        """This process is about to fork."""

    def after_fork(self) -> None:  # noqa: B027
        """This process has forked, and is the parent."""

    @abstractmethod
    def _abandon(self) -> None:
        """Forget connections and locks without touching them."""

    @abstractmethod
    def _prepare(self) -> None:
        """Bring the schema up to date."""

    @abstractmethod
    def _attempt(self, work: Work[T], write: bool) -> T:
        """Run `work` once. Raises `Conflict`, `Lost`, or what cannot be helped."""

    def _persist(self, work: Work[T], write: bool) -> T:
        if self._pid != os.getpid():
            self.forked()
        end = monotonic() + PATIENCE
        attempts = losses = 0
        while True:
            try:
                if not self._ready:
                    self._prepare()
                    self._ready = True
                return self._attempt(work, write)
            except Conflict as error:
                if monotonic() > end:
                    raise self.unavailable("is too busy", error) from error
            except Lost as error:
                losses += 1
                if losses >= LOSSES or monotonic() > end:
                    raise self.unavailable("cannot be reached", error) from error
            attempts += 1
            self._clock.sleep((0.5 + chance()) * min(LONGEST, SHORTEST * 2 ** min(attempts, 10)))

    def unavailable(self, what: str, error: BaseException) -> StoreUnavailable:
        """The error for the caller, which names the store and the reason in one line."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return StoreUnavailable(f"The store {self.shown} {what}: {reason}", store=self.shown)


# -- forks ------------------------------------------------------------------------------------------------------------

_links: weakref.WeakSet[Link] = weakref.WeakSet()


class _Forks:
    """Tells the links of a fork."""

    def __init__(self) -> None:
        self._told: list[Link] = []

    def before(self) -> None:
        self._told = list(_links)
        for link in self._told:
            link.before_fork()

    def parent(self) -> None:
        for link in self._told:
            link.after_fork()
        self._told = []

    def child(self) -> None:
        for link in list(_links):
            link.forked()
        self._told = []


def _listen() -> None:
    forks = _Forks()
    os.register_at_fork(before=forks.before, after_in_parent=forks.parent, after_in_child=forks.child)


_listen()
