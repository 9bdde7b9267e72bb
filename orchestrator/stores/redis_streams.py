"""The waits of this process for streams to grow: all of them share one connection and one blocking read.

A reader that followed its run by a blocking read of its own would hold a connection for as long as it waits, and a
server has room for some thousands of all processes. On a cluster, where no command reads the streams of two shards,
those of one shard share it. It must not know what is in the streams.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from orchestrator.background import ForkAwareThread, on_fork
from orchestrator.errors import StoreUnavailable
from orchestrator.host import SystemClock, monotonic, new_token
from orchestrator.stores.redis_connections import RedisConnections
from orchestrator.stores.redis_keys import Layout
from orchestrator.stores.redis_servers import BLOCK, tag_of

# Seconds for which a stream is read after its last reader has gone: one that looks at its run between two waits is back
# by then, and needs no other read to be begun for it.
_LINGER = 5.0
_RETRY_DELAY = 0.5  # seconds until a server that did not answer is asked again
# Seconds of rest after a read, for each stream in it: many busy streams are read together, not one by one.
_REST, _LONGEST_REST = 0.0001, 0.05
_BELL_LIFE = 60_000  # ms; a process that is gone leaves its bell behind

Cursor = tuple[int, int]


@dataclass(slots=True)
class _Stream:
    changed: threading.Condition  # shares the lock of the watch
    seen: Cursor  # the newest entry that is known: behind it the next read begins
    readers: int = 0
    used: float = field(default_factory=monotonic)  # when a reader last came or went


class StreamWatch:
    """Waits until one of many streams grows."""

    def __init__(self, connections: RedisConnections, keys: Layout) -> None:
        self._connections = connections
        self._keys = keys
        # By hash tag on a cluster; else there is one. Never locked: see `RedisConnections`.
        self._watches: dict[str, _Watch] = {}

    def wait(self, stream: str, after: str, seconds: float) -> bool:
        """Return True as soon as the stream has an entry behind `after`, and False after so many seconds.

        Raises `StoreUnavailable`.
        """
        name = tag_of(stream) if self._connections.is_cluster else ""
        watch = self._watches.get(name)
        if watch is None:
            beside = stream if name else self._keys.format
            watch = self._watches.setdefault(name, _Watch(self._connections, self._keys, beside))
        return watch.wait(stream, after, seconds)

    def close(self) -> None:
        """Let the threads end soon. The next reader starts another."""
        ending = [watch for watch in list(self._watches.values()) if watch.close()]
        for watch in ending:
            watch.join()


class _Watch:
    """A thread of each process reads all these streams in one command, while somebody waits for one of them."""

    def __init__(self, connections: RedisConnections, keys: Layout, beside: str) -> None:
        self._connections = connections
        self._keys = keys
        self._beside = beside  # a key of the shard in which the bell is
        self._thread = ForkAwareThread(self._run, "orchestrator-streams")
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's readers."""
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._reading: dict[str, Cursor] | None = None  # what the read that is under way waits for
        self._failures = 0
        self._failure: StoreUnavailable | None = None
        # A stream that is read with the others: one more entry in it ends the read, for another to begin.
        self._bell = self._keys.bell(self._beside, new_token())
        self._heard = "0-0"

    def wait(self, stream: str, after: str, seconds: float) -> bool:
        """Return True as soon as the stream has an entry behind `after`, and False after so many seconds.

        Raises `StoreUnavailable`.
        """
        cursor, end = _parse(after), monotonic() + seconds
        with self._lock:
            known = self._streams.setdefault(stream, _Stream(threading.Condition(self._lock), cursor))
            known.readers += 1
            known.seen = max(known.seen, cursor)
            failures = self._failures
            must_ring = self._reading is not None and stream not in self._reading
            if must_ring and self._reading is not None:
                self._reading[stream] = cursor  # whoever comes next need not ring for it again
            self._thread.ensure_started()
        try:
            if must_ring:
                self._ring()
            with self._lock:
                while known.seen <= cursor and self._failures == failures and (left := end - monotonic()) > 0:
                    known.changed.wait(left)
                if known.seen <= cursor and self._failures != failures and self._failure is not None:
                    raise self._failure
                return known.seen > cursor
        finally:
            with self._lock:
                known.readers -= 1
                known.used = monotonic()

    def close(self) -> bool:
        """Let the thread end, and return True if it is about to."""
        with self._lock:
            self._streams.clear()
            is_reading = self._reading is not None
        try:
            if is_reading:
                self._ring()
        except StoreUnavailable:
            return False  # then the read has ended as well
        return is_reading

    def join(self) -> None:
        """Wait a moment for the thread."""
        self._thread.join(1.0)

    def _ring(self) -> None:
        self._connections.calls([("XADD", self._bell, "MAXLEN", 1, "*", "b", ""), ("PEXPIRE", self._bell, _BELL_LIFE)])

    def _run(self) -> None:
        while streams := self._next_read():
            try:
                cursors = [f"{ms}-{number}" for ms, number in streams.values()]
                words = ("COUNT", 1, "BLOCK", round(BLOCK * 1000), "STREAMS", self._bell, *streams)
                found = self._connections.call("XREAD", *words, self._heard, *cursors, key=self._bell, blocking=True)
            except StoreUnavailable as error:
                self._fail(error)
                SystemClock().sleep(_RETRY_DELAY)
                continue
            self._tell({key.decode(): entries[-1][0].decode() for key, entries in found or ()})
            SystemClock().sleep(min(_LONGEST_REST, _REST * len(streams)))

    def _next_read(self) -> dict[str, Cursor]:
        """Return the streams to be read, each with the entry behind which it is; none ends the thread."""
        with self._lock:
            long_ago = monotonic() - _LINGER
            for name in [name for name, one in self._streams.items() if not one.readers and one.used < long_ago]:
                del self._streams[name]
            reading = {name: one.seen for name, one in self._streams.items()}
            self._reading = dict(reading) or None
            if not reading:
                self._thread.release()
            return reading

    def _tell(self, found: dict[str, str]) -> None:
        with self._lock:
            self._heard = found.pop(self._bell, self._heard)
            for name, newest in found.items():
                one = self._streams.get(name)
                if one is not None:
                    one.seen = max(one.seen, _parse(newest))
                    one.changed.notify_all()

    def _fail(self, error: StoreUnavailable) -> None:
        with self._lock:
            self._failure = error
            self._failures += 1
            for one in self._streams.values():
                one.changed.notify_all()


def _parse(cursor: str) -> Cursor:
    milliseconds, _, number = cursor.partition("-")
    return int(milliseconds or 0), int(number or 0)
