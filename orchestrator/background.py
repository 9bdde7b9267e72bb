"""Threads and timers that outlive neither their process nor a fork.

A child process has none of its parent's threads, but a copy of every object that says they run, and perhaps of a lock
that one of those threads held. This is the one place that deals with it: an object that owns threads or locks
registers itself with `on_fork`, and every child gives it new ones before anything else runs there.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from orchestrator.host import monotonic

log = logging.getLogger("orchestrator")

Item = TypeVar("Item")

_LONGEST_WAIT = 3_600.0  # seconds that a thread waits in one go: a clock that is set forward is noticed by then
_DISCARDED = 64  # items that a queue keeps although they were discarded, in addition to as many as it has
_JOIN = 5.0  # seconds that `close` waits for a call that is being made


class ForkSafe(Hashable, Protocol):
    """An object with threads or locks of its process."""

    def reset_after_fork(self) -> None:
        """Replace threads, locks and whatever belonged to the parent's work. Called in the child, before its code."""
        ...


# Weak, so that registering keeps nothing alive: an orchestrator that is closed and dropped takes its threads along.
_fork_safe: weakref.WeakSet[ForkSafe] = weakref.WeakSet()


def on_fork(owner: ForkSafe) -> None:
    """Call `owner.reset_after_fork` in every process that is forked from this one while `owner` lives."""
    _fork_safe.add(owner)


def _reset_after_fork() -> None:
    for owner in list(_fork_safe):
        owner.reset_after_fork()


# A hook of the interpreter, not a look at the process id at each use: no method can be the one that forgot to look.
os.register_at_fork(after_in_child=_reset_after_fork)


class ForkSafeLock:
    """A lock that is free in every process forked from this one, whoever holds it here. Its holder may take it again.

    For work that leaves nothing half done behind which the child could see.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Be free."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class ForkAwareThread:
    """A daemon thread that starts when it is first needed, in each process anew.

    `run` may return when there is nothing left to do. It then calls `release` first, while it holds the lock under
    which it has decided so. The next caller that needs the thread starts another.
    """

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._run = run
        self._name = name
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's thread."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_started(self) -> bool:
        """True while this process has one at work."""
        return self._thread is not None

    def ensure_started(self) -> None:
        """Start it, unless this process has one."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def release(self) -> None:
        """Let the next `ensure_started` start another one; called by the thread that is about to end."""
        self._thread = None

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for `timeout` seconds at most; not at all in that thread itself."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


class TimerQueue(Generic[Item]):
    """Items in the order of their moments. Of those with the same moment the first that was added comes first.

    A moment is a number of whatever clock the owner reads. Not thread-safe: its owner has a lock.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._count = 0  # breaks ties, so that items are never compared
        self._keys: set[int] = set()  # of the items that are in it; the heap has some that were discarded, too

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, moment: float, item: Item) -> int:
        """Have the item popped once `moment` has come. Returns the key by which it is discarded."""
        self._count += 1
        self._keys.add(self._count)
        heapq.heappush(self._heap, (moment, self._count, item))
        return self._count

    def discard(self, key: int) -> None:
        """Remove an item; one that is gone already is none."""
        self._keys.discard(key)
        # To find it in the heap costs the length of that. So all of them go at once, when they are the larger part.
        if len(self._heap) > 2 * len(self._keys) + _DISCARDED:
            self._heap = [entry for entry in self._heap if entry[1] in self._keys]
            heapq.heapify(self._heap)

    @property
    def next_moment(self) -> float | None:
        """The earliest moment, None where there is none."""
        while self._heap and self._heap[0][1] not in self._keys:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Item]:
        """Remove and return all items whose moment has come, in order."""
        due: list[Item] = []
        while self._heap and self._heap[0][0] <= now:
            _, key, item = heapq.heappop(self._heap)
            if key in self._keys:
                self._keys.remove(key)
                due.append(item)
        return due

    def clear(self) -> None:
        """Remove all items."""
        self._heap.clear()
        self._keys.clear()


def monotonic_ms() -> float:
    """Milliseconds of this process's own clock, which is never set back."""
    return monotonic() * 1000


class TimerThread(Generic[Item]):
    """Calls back with an item when its moment has come, from one thread of each process.

    `now` is a clock in milliseconds. A virtual one, which a test moves on, cannot be slept by: `look_every` says
    how many seconds pass between two looks at it. After a fork the child has no timers: they are the parent's to keep.
    """

    def __init__(
        self,
        call: Callable[[Item], None],
        name: str,
        now: Callable[[], float] = monotonic_ms,
        look_every: float | None = None,
    ) -> None:
        self._call = call
        self._now = now
        self._look_every = look_every
        self._closed = threading.Event()
        self._thread = ForkAwareThread(self._run, name)
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's timers."""
        self._changed = threading.Condition()
        self._timers: TimerQueue[Item] = TimerQueue()

    def add(self, delay: float, item: Item) -> int:
        """Call back with the item in `delay` milliseconds; never again once this is closed.

        Returns the key by which it is discarded.
        """
        with self._changed:
            if self._closed.is_set():
                return 0  # no item has it
            key = self._timers.add(self._now() + delay, item)
            self._thread.ensure_started()
            self._changed.notify()
            return key

    def discard(self, key: int) -> None:
        """Forget an item, unless it is called back with already."""
        with self._changed:
            self._timers.discard(key)

    def close(self) -> None:
        """Call back no more, and wait a moment for a call that is being made. Closing twice is harmless."""
        with self._changed:
            self._closed.set()
            self._timers.clear()
            self._changed.notify()
        self._thread.join(_JOIN)

    def _run(self) -> None:
        while not self._closed.is_set():
            for item in self._wait():
                if self._closed.is_set():
                    return
                try:
                    self._call(item)
                except Exception:  # the thread must outlive whatever one timer finds
                    log.exception("a timer of this process failed")

    def _wait(self) -> list[Item]:
        with self._changed:
            while not self._closed.is_set():
                if due := self._timers.pop_due(self._now()):
                    return due
                self._changed.wait(self._pause())
            return []

    def _pause(self) -> float | None:
        moment = self._timers.next_moment
        if moment is None:
            return None
        if self._look_every is not None:
            return self._look_every
        return min(max(0.0, moment - self._now()) / 1000, _LONGEST_WAIT)
