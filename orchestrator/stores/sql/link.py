"""The port between the store's verbs and a database, and the rule by which a transaction is repeated.

A transaction is a function of a `Tx`. It sends statements, reads answers where it must, and returns a function that
puts the result together once the transaction has ended. So a database over the network takes all of it in few round
trips. The function may run several times, even after its transaction was committed: the news of that can get lost.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from orchestrator.errors import StoreRefused, StoreUnavailable
from orchestrator.host import SystemClock, chance, monotonic

T = TypeVar("T")
Row = tuple[Any, ...]

PATIENCE = 30.0  # seconds for which a transaction gives way to others
LOSSES = 6  # connections lost in a row
SHORTEST, LONGEST = 0.01, 0.5  # seconds between two attempts


class Answer(Protocol):
    """Rows that a statement has given, or will have given."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...


class Tx(Protocol):
    """A transaction that has begun.

    Statements that only write may be carried out together: none of them sees what another one writes, so each must
    write rows of its own. A statement that is sent sees everything that was written before it.
    """

    def send(self, query: str, **parameters: Any) -> Answer:
        """Send one statement. Reading its rows waits for the server, unless the transaction has ended by then."""
        ...

    def send_with_writes(self, query: str, **parameters: Any) -> Answer:
        """Send one statement together with the writes before it; it may see the tables as they were without them."""
        ...

    def write(self, query: str, **parameters: Any) -> None:
        """Write by one statement whose answer nobody wants."""
        ...

    def put(self, query: str, rows: Sequence[Row]) -> None:
        """Write all these rows by one statement."""
        ...


class Conflict(Exception):
    """Another transaction was in the way: the same may be tried again."""


class ConnectionLost(Exception):
    """The connection is gone, or there was none. The last COMMIT may have been carried out or not."""


Work = Callable[[Tx], Callable[[], T]]


class Connections(ABC):
    """One process's connections to one database."""

    def __init__(self, shown: str) -> None:
        self.shown = shown  # the URL without its password
        self._pid = os.getpid()
        self._ready = False
        self._clock = SystemClock()
        _all_connections.add(self)

    def change(self, work: Work[T]) -> T:
        """Run `work` in one transaction."""
        return self._persist(work, True)

    def read(self, work: Work[T]) -> T:
        """Run `work`, which writes nothing and leaves all reading of rows to the function that it returns.

        Each statement is consistent in itself.
        """
        return self._persist(work, False)

    def reset_after_fork(self) -> None:
        """Leave the connections of the parent process alone: this is a new one."""
        self._pid = os.getpid()
        self._abandon()

    @abstractmethod
    def close(self) -> None:
        """Close the connections that nobody uses; the next transaction opens one again."""

    def before_fork(self) -> None:  # noqa: B027
        """Prepare for a fork of this process."""

    def after_fork(self) -> None:  # noqa: B027
        """Go on in the parent after a fork."""

    @abstractmethod
    def _abandon(self) -> None:
        """Forget connections and locks without touching them."""

    @abstractmethod
    def _prepare(self) -> None:
        """Bring the schema up to date."""

    @abstractmethod
    def _attempt(self, work: Work[T], write: bool) -> T:
        """Run `work` once. Raises `Conflict` or `ConnectionLost`, which are retried; anything else propagates."""

    def _persist(self, work: Work[T], write: bool) -> T:
        # A fork that nobody told us of (os.fork has hooks, a bare clone has none) shows in the process's id.
        if self._pid != os.getpid():
            self.reset_after_fork()
        end = monotonic() + PATIENCE
        attempts = losses = 0
        while True:
            try:
                if not self._ready:
                    self._prepare_tables()
                    self._ready = True
                return self._attempt(work, write)
            except Conflict as error:
                if monotonic() > end:
                    raise self.unavailable("is too busy", error) from error
            except ConnectionLost as error:
                losses += 1
                if losses >= LOSSES or monotonic() > end:
                    raise self.unavailable("cannot be reached", error) from error
            attempts += 1
            # Chance spreads the attempts: those that got into each other's way once would do so again.
            self._clock.sleep((0.5 + chance()) * min(LONGEST, SHORTEST * 2 ** min(attempts, 10)))

    def _prepare_tables(self) -> None:
        try:
            self._prepare()
        except StoreRefused as error:
            # Nobody has asked for anything yet: whatever is wrong here is wrong with the database.
            raise self.unavailable("does not work", error.__cause__ or error) from error

    def unavailable(self, what: str, error: BaseException) -> StoreUnavailable:
        """Return the error for the caller, which names the store and the reason in one line."""
        return StoreUnavailable(f"The store {self.shown} {what}: {_reason(error)}", store=self.shown)

    def refused(self, error: BaseException) -> StoreRefused:
        """Return the error for a caller whose request is at fault, and not the store."""
        return StoreRefused(f"The store {self.shown} does not take the request: {_reason(error)}", store=self.shown)


# What the drivers raise before they have asked the database: a number or a text that it has no place for.
UNWRITABLE = (OverflowError, UnicodeEncodeError)


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# -- forks ------------------------------------------------------------------------------------------------------------

_all_connections: weakref.WeakSet[Connections] = weakref.WeakSet()


class _Forks:
    """Calls the hooks of everybody's connections around a fork."""

    def __init__(self) -> None:
        self._prepared: list[Connections] = []

    def before(self) -> None:
        self._prepared = list(_all_connections)
        for connections in self._prepared:
            connections.before_fork()

    def after_in_parent(self) -> None:
        for connections in self._prepared:
            connections.after_fork()
        self._prepared = []

    def after_in_child(self) -> None:
        for connections in list(_all_connections):
            connections.reset_after_fork()
        self._prepared = []


def _register_fork_hooks() -> None:
    forks = _Forks()
    os.register_at_fork(before=forks.before, after_in_parent=forks.after_in_parent, after_in_child=forks.after_in_child)


_register_fork_hooks()
