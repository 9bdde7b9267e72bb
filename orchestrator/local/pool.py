"""A bounded pool of threads, which start when they are needed and end when nothing has come for a while."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from orchestrator.background import on_fork
from orchestrator.host import monotonic

log = logging.getLogger("orchestrator")

Call = Callable[[], None]

_IDLE = 5.0  # seconds without work after which a thread ends


class ThreadPool:
    """Makes calls in the order in which they come, at most `size` of them at a time.

    The threads are daemons: a process that ends waits for none of them. `on_idle` is called in a thread that has
    nothing more to do for now, and before it ends.
    """

    # Not the standard library's: its threads never end, keep the interpreter from ending, and do not survive a fork.

    def __init__(self, size: int, name: str, on_idle: Call = lambda: None) -> None:
        self._size = size
        self._name = name
        self._on_idle = on_idle
        self._closed = False
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's calls and threads."""
        self._changed = threading.Condition()
        self._calls: deque[Call] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._started = 0  # so far, for their names

    @property
    def has_backlog(self) -> bool:
        """True while calls wait for a thread."""
        return bool(self._calls)

    def submit(self, call: Call) -> None:
        """Make the call as soon as a thread is free; not at all once the pool is closed."""
        with self._changed:
            if self._closed:
                return
            self._calls.append(call)
            if self._idle >= len(self._calls) or len(self._threads) >= self._size:
                self._changed.notify()
                return
            name = f"{self._name}_{self._started}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The machine has no more. The call waits for one of those that there are.
                if not self._threads:
                    self._calls.pop()
                    raise
                return
            self._started += 1
            self._threads.add(thread)

    def close(self, timeout: float) -> None:
        """Begin no more calls, and wait for those that are being made, for `timeout` seconds at most."""
        with self._changed:
            self._closed = True
            self._calls.clear()
            self._changed.notify_all()
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        end = monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, end - monotonic()))

    def _run(self) -> None:
        while (call := self._next_call()) is not None:
            self._make(call)

    def _make(self, call: Call) -> None:
        try:
            call()
        except BaseException:  # no call may cost the pool a thread
            log.exception("a call in a thread of this process failed")

    def _next_call(self) -> Call | None:
        """Wait for a call; None where the thread is to end."""
        with self._changed:
            if self._calls:
                return self._calls.popleft()
        self._make(self._on_idle)
        with self._changed:
            self._idle += 1
            try:
                end = monotonic() + _IDLE
                while not self._calls and not self._closed and (left := end - monotonic()) > 0:
                    self._changed.wait(left)
            finally:
                self._idle -= 1
            if self._calls:
                return self._calls.popleft()
            # Under the lock: a call that comes now must not count on this thread.
            self._threads.discard(threading.current_thread())
            return None
