"""Streams of a run's events: they replay the stored events, follow new ones, and end by themselves."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Self, TypeVar

from orchestrator.app.handle import RunHandle
from orchestrator.engine.read.events import Event, EventReader
from orchestrator.engine.read.results import RunResult
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.rules.bounds import to_seconds, to_timeout
from orchestrator.rules.events import EventType
from orchestrator.rules.model import FINAL, RunHeader

log = logging.getLogger("orchestrator")
_T = TypeVar("_T")

_LOOK = 1.0  # seconds without an event after which a reader looks if the run still exists
_RETRY_DELAY = 1.0  # seconds until a watcher asks a store that did not answer again


@dataclass(frozen=True, slots=True)
class Until:
    """The stop condition of a stream: the run has settled more than so many times (and, with `final`, ended)."""

    settle_count: int
    final: bool = False
    # What is stored behind the event of that settling comes too: that a hook was given up, say.
    is_replay: bool = False

    def is_met(self, header: RunHeader | None) -> bool:
        """Return True if all events of the stream are stored, or the run has been deleted."""
        return header is None or (
            header.settle_count > self.settle_count and (header.status in FINAL or not self.final)
        )

    def ends_with(self, doc: Mapping[str, Any]) -> bool:
        """Return True if this stored event is the stream's last."""
        is_finish = doc["type"] == EventType.WORKFLOW_FINISH and not self.is_replay
        return is_finish and doc["settle_count"] > self.settle_count and (doc["status"] in FINAL or not self.final)


def pages(
    run: RunHandle,
    after: str,
    until: Until,
    stopped: Callable[[], bool] = lambda: False,
    *,
    lends: bool = True,
    heartbeat: float = inf,
) -> Iterator[list[Event]]:
    """Yield the events after the cursor, several at a time where there are several.

    With `lends` the reader lends the run its thread while there are none, where the runtime wants that. An empty list
    comes after `heartbeat` seconds without an event.
    """
    store, runtime = run.client.store, run.client.runtime
    reader = EventReader(store, run.root_id)
    over = until.is_met(store.header(run.root_id))
    beat = monotonic() + heartbeat
    while not stopped():
        found = store.events(run.root_id, after)
        if not found and not over:
            left = min(_LOOK, max(0.0, beat - monotonic()))
            if lends:
                runtime.lend_thread(run.root_id, left)
            found = store.wait_for_events(run.root_id, after, left)
        if found or monotonic() >= beat:
            beat = monotonic() + heartbeat
            if not found and not over:
                yield []
        last = next((place for place, stored in enumerate(found, 1) if until.ends_with(stored.doc)), 0)
        if found:
            yield reader.to_events(found[: last or None])
            after = found[-1].id
        if last or (over and not found):
            return
        over = over or (not found and until.is_met(store.header(run.root_id)))
        if not found and not over and (error := runtime.failure_of(run.root_id)) is not None:
            raise error


class Following:
    """A reader of a run's events until it settles, with None after each `heartbeat` seconds without an event."""

    def __init__(self, run: RunHandle, after: str, until: Until, heartbeat: float | None) -> None:
        if heartbeat is not None and not 0 < to_seconds(heartbeat, "heartbeat") < inf:
            raise ValueError(f"heartbeat is a positive number of seconds, not {heartbeat!r}")
        self._stopped = threading.Event()
        self._pages = pages(run, after, until, self._stopped.is_set, heartbeat=heartbeat or inf)

    def page(self) -> Sequence[Event | None]:
        """Return the next events, or one None; nothing at the end."""
        page = next(self._pages, None)
        return [] if page is None else page or [None]

    def each(self) -> Iterator[Event | None]:
        """Give them one by one."""
        while page := self.page():
            yield from page

    def stop(self) -> None:
        """End it soon."""
        self._stopped.set()


class RunStream:
    """An iterator over the events of a run until it settles; `result()` is its result.

    It ends by itself: when the run ends or is deleted, and, unless it was asked to stay open, when the run is suspended
    or paused. A reader whose store went away (`StoreUnavailable`) goes on with `run.events(after=event.id)`.
    """

    def __init__(self, run: RunHandle, after: str, settle_count: int, *, close_on_suspend: bool = True) -> None:
        self.run = run
        self._until = Until(settle_count, final=not close_on_suspend)
        self._stopped = threading.Event()
        self._pages = pages(run, after, self._until, self._stopped.is_set)
        self._ready: deque[Event] = deque()

    def __iter__(self) -> RunStream:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            self._ready.extend(next(self._pages))
        return self._ready.popleft()

    def page(self) -> list[Event]:
        """Return the next events, at least one; an empty list at the end."""
        ready = [*self._ready] or next(self._pages, [])
        self._ready.clear()
        return ready

    def stop(self) -> None:
        """End it where it stands, soon; the run goes on."""
        self._stopped.set()

    def result(self, timeout: float | None = None) -> RunResult:
        """Wait until the run has settled, and return its result. Events that were not read stay readable.

        Of a stream that stays open over suspensions it is the run's result at its end. Raises `RunNotFound` where
        the run has been deleted, and TimeoutError.
        """
        timeout = to_timeout(timeout)
        return self.run.wait_until_settled(self._until.settle_count, timeout, final=self._until.final)


class AsyncRunStream:
    """A `RunStream` for `async for`; `await stream.result()` is its result.

    The run is started when the first event or the result is asked for. An input that does not fit is refused then. All
    reading happens in other threads, so the event loop never waits for the store. A reading that is cancelled (by a
    timeout, say) goes on in its thread: no event is lost. `aclose()`, leaving it as an async context manager, or
    letting it go ends the reading; the run goes on.
    """

    def __init__(self, begin: Callable[[], RunStream]) -> None:
        self._begin = begin
        self._closed = False
        self._begun: Future[RunStream] | None = None
        self._reading: Future[list[Event]] | None = None
        self._ready: deque[Event] = deque()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        stream = await self._stream()
        if not self._ready:
            if self._reading is None:
                self._reading = _in_thread(stream.page)
            reading = self._reading
            page = await _await_future(reading)
            if self._reading is reading:
                self._reading = None
                self._ready.extend(page)
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def result(self, timeout: float | None = None) -> RunResult:
        """Wait for the run's result. Raises TimeoutError after `timeout` seconds."""
        timeout = to_timeout(timeout)
        stream = await self._stream()
        end = None if timeout is None else monotonic() + timeout
        while True:
            left = _LOOK if end is None else min(_LOOK, max(0.0, end - monotonic()))
            try:
                return await _await_future(_in_thread(partial(stream.result, left)))
            except TimeoutError:
                if end is not None and monotonic() >= end:
                    raise

    async def aclose(self) -> None:
        """Read no more: the stream is at its end."""
        self._closed = True
        if self._begun is not None:
            self._begun.add_done_callback(_stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _stream(self) -> RunStream:
        if self._begun is None:
            if self._closed:
                raise RuntimeError("the stream was closed before it began: the run has not been started")
            self._begun = _in_thread(self._begin)
            weakref.finalize(self, self._begun.add_done_callback, _stop)
        return await _await_future(self._begun)


def _stop(begun: Future[RunStream]) -> None:
    if begun.exception() is None:
        begun.result().stop()


async def in_thread(call: Callable[[], _T]) -> _T:
    """Await a call that is made in a thread of its own."""
    return await _await_future(_in_thread(call))


def _in_thread(call: Callable[[], _T]) -> Future[_T]:
    """Call in a thread for which neither a loop that is closed nor a process that ends has to wait."""
    future: Future[_T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  (a thread's boundary: raised where the future is awaited)
            future.set_exception(error)

    threading.Thread(target=work, name="orchestrator-astream", daemon=True).start()
    return future


async def _await_future(future: Future[_T]) -> _T:
    """Await work in a thread. The work goes on when the awaiting task is cancelled."""
    return await asyncio.shield(asyncio.wrap_future(future))


class EventWatcher:
    """A thread that calls a function for each event of a run, from now on, until the run ends, or until `stop`.

    The run does not wait for the function: the thread reads the stored events at its own pace. An exception of the
    function is logged. While the store does not answer it tries again, and goes on where it was.
    """

    def __init__(self, run: RunHandle, callback: Callable[[Event], Any]) -> None:
        self._run = run
        self._callback = callback
        self._stopped = threading.Event()
        header = run.header()
        self._until = Until(
            header.settle_count - (header.status in FINAL), final=True
        )  # over already, where the run is
        self._after = run.last_event_id()
        self._about = {"run_id": run.root_id, "workflow_id": run.workflow_id}
        self._thread = threading.Thread(target=self._watch, name=f"watch-{run.run_id}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """True once the function is not called any more."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Call the function no more; a call that has begun is not interrupted. Stopping twice is harmless."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until the thread has ended, unless this is that thread."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * _LOOK)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                self._read()
            except StoreUnavailable as error:
                log.warning("watcher of run %s: %s", self._run.run_id, error, extra=self._about)
                self._stopped.wait(_RETRY_DELAY)
            except Exception:  # the end of a thread: no caller would get the exception
                log.exception("watcher of run %s ends", self._run.run_id, extra=self._about)
                self._stopped.set()
            else:
                self._stopped.set()

    def _read(self) -> None:
        for page in pages(self._run, self._after, self._until, self._stopped.is_set, lends=False):
            for event in page:
                if self._stopped.is_set():
                    return
                self._after = event.id
                self._call(event)

    def _call(self, event: Event) -> None:
        try:
            self._callback(event)
        except Exception:  # a user's function
            log.exception("watcher of run %s raised on %s", self._run.run_id, event.type, extra=self._about)
