"""The default runtime: carries dispatches to threads of this process.

One run is driven by one loop, so that a chain of any length needs no more stack than a single step. What stands
alone runs in the loop's own thread; what can run side by side goes to a pool. A wait that may run out of time has
nobody who drives it: an alarm of this process sees to it, as long as the process lives.

For an app in eager mode the runtime is alone: whoever starts a run or lets it go on drives it, one thing after the
other, in their own thread, where their own transaction is seen. Only what has to wait for its time is left to a thread,
which gives the run up to whoever comes meanwhile.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

from orchestrator.core.changes import Committed, Dispatch
from orchestrator.core.graph import Wait
from orchestrator.core.records import Header, RunState, Status
from orchestrator.core.timers import on_deadline
from orchestrator.engine.calling import WorkerLost
from orchestrator.engine.delivery import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.host import SystemClock, monotonic
from orchestrator.ports import Clock

log = logging.getLogger("orchestrator")

_COUNT = count()  # of those that are due in the same millisecond, the first comes first
_MOST_THREADS = 64
_LOOK = 0.5  # seconds between looks at the run while only timers are left: it may be canceled from elsewhere
_GLANCE = 0.02  # seconds between looks at a clock that somebody else moves on
_AT_ONCE = 1  # ms: the least that a sleep or another attempt waits; nobody leaves for that
_AGAIN = 1_000  # ms until an alarm that the store did not answer goes off again
_LONGEST = 3_600.0  # seconds that a thread waits at once


@dataclass(slots=True)
class _Line:
    """What is to be done for one run."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    ready: deque[Dispatch] = field(default_factory=deque)
    timers: list[tuple[int, int, Dispatch]] = field(default_factory=list)
    busy: int = 0
    driven: bool = False
    minded: bool = False  # a thread waits for its timers
    timed: bool = False  # its workflow has a wait that may run out of time
    failed: BaseException | None = None


class LocalRuntime:
    """Runs activations in this process. `clock` is the store's, where that is a clock of this process.

    With `alone` they run in the thread of whoever drives, one after the other, as Celery's eager mode would have it.
    """

    name = "local"

    def __init__(self, engine: Engine, clock: Clock, *, alone: bool = False) -> None:
        self._engine = engine
        self._clock = clock
        self._alone = alone
        self._closed = False
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._drivers: list[threading.Thread] = []
        self._lost: dict[str, BaseException] = {}  # why this process has left a run, until it takes it up again
        self._timed: set[str] = set()
        self._alarms = Alarms(clock, self._expire)

    def adopt(self, workflow: Any) -> None:
        """Remember whether it has a wait that may run out of time."""
        if any(isinstance(node, Wait) and node.timeout is not None for node in workflow.compiled.walk()):
            self._timed.add(workflow.id)

    def forget(self, run_id: str) -> None:
        """There is no result outside the store."""

    def publish(self, header: Header, dispatches: Sequence[Dispatch]) -> None:
        """Put dispatches in the run's line."""
        with self._lock:  # so that the line is not taken away meanwhile
            line = self._lines.setdefault(header.run_id, _Line())
            with line.changed:
                line.timed = header.workflow_id in self._timed
                for dispatch in dispatches:
                    if dispatch.delay:
                        due = self._clock.now() + dispatch.delay
                        heapq.heappush(line.timers, (due, next(_COUNT), dispatch))
                    else:
                        line.ready.append(dispatch)
                line.changed.notify_all()

    def seen(self, header: Header) -> None:
        """Nobody watches from outside: readers of the store see it all."""

    def ended(self, header: Header, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Nobody outside this process is waiting."""

    def wake(self, run_id: str) -> None:
        """The run has been changed from outside (canceled): look at it."""
        line = self._lines.get(run_id)
        if line is not None:
            with line.changed:
                line.changed.notify_all()

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Work until nothing is left to do for this run. Raises what a lost worker would have died of.

        With a `timeout` (seconds) it goes on in the background: alone, only what is left after that time.
        """
        if timeout is not None and not self._alone:
            self.drive_in_background(run_id)
        else:
            self._drive(run_id, inf if timeout is None else monotonic() + timeout)

    def _drive(self, run_id: str, until: float) -> None:
        """Do what is to be done, and until this moment also wait for what has its time to come."""
        line = self._line(run_id)
        self._lost.pop(run_id, None)
        more = True
        while more and self._take(line):
            try:
                while (dispatch := self._next(run_id, line, until)) is not None:
                    self._deliver(run_id, line, dispatch)
            finally:
                more = self._leave(run_id, line, until)
            if line.failed is not None:
                self._lost[run_id] = line.failed
                raise line.failed
        if until < inf:
            self._mind(run_id, line)

    def lost(self, run_id: str) -> BaseException | None:
        """What this process died of, as far as the run is concerned; None while it works on it or has nothing to do."""
        return self._lost.get(run_id)

    def drive_in_background(self, run_id: str) -> None:
        """The same, in a thread of its own. Alone: here and now, as far as nothing has to wait for its time.

        Then it raises what `drive` does, but for a `WorkerLost`: the caller of a lost worker hears of it later.
        """
        if not self._alone:
            self._begin(run_id, lambda: self._drive(run_id, inf))
            return
        try:
            self._drive(run_id, 0.0)
        except WorkerLost as error:
            self._engine.log_lost(run_id, error)

    def _begin(self, run_id: str, work: Callable[[], None]) -> None:
        """Do it in a thread of its own."""

        def quietly() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  (the end of a thread: nobody is there to raise to)
                self._engine.log_lost(run_id, error)

        driver = threading.Thread(target=quietly, name=f"run-{run_id}", daemon=True)
        with self._lock:
            self._drivers = [thread for thread in self._drivers if thread.is_alive()]
            self._drivers.append(driver)
            driver.start()

    def _mind(self, run_id: str, line: _Line) -> None:
        """See to it that somebody waits for the timers of a line that nobody drives."""
        with line.changed:
            if not line.timers or line.driven or line.minded:
                return
            line.minded = True

        def mind() -> None:
            while self._ripens(run_id, line):
                self._drive(run_id, 0.0)

        self._begin(run_id, mind)

    def _ripens(self, run_id: str, line: _Line) -> bool:
        """Wait until there is something to do in a line that nobody drives; False where there will be nothing."""
        with line.changed:
            while line.timers and not self._closed:
                if line.driven:
                    line.changed.wait(_LOOK)
                elif line.timers[0][0] <= self._clock.now() or self._is_over(run_id):
                    return True
                else:
                    self._pause(line, inf)
            line.minded = False
            return False

    def watch(self, run_id: str) -> None:
        """See to it that each wait of the run ends when its time is over. Repeated: nothing more."""
        store = self._engine.store
        header = store.header(run_id)
        if header is None or not header.waiting:
            return
        for record in store.load(run_id, held=True):
            if record.status == Status.WAITING and record.due:
                self._alarms.add(Alarm(run_id, record.path, record.due), record.due - store.now())

    def _expire(self, alarm: Alarm) -> None:
        """The time of a wait is over: what the ticker does for the runs of workers."""
        store, run_id = self._engine.store, alarm.run_id
        header, found = store.header(run_id), store.load(run_id, [alarm.path])
        if header is None or not found or found[0].status != Status.WAITING or found[0].due != alarm.due:
            return
        if (left := alarm.due - store.now()) > 0:
            self._alarms.add(alarm, left)
            return
        todo = on_deadline(header, found[0], self._engine.settings.grace)
        answer = store.commit(run_id, todo.change) if todo is not None else None
        if isinstance(answer, Committed):
            self.publish(answer.header, answer.dispatches)
            self._begin(run_id, lambda: self._drive(run_id, 0.0 if self._alone else inf))

    def close(self) -> None:
        """Wait a moment for what is running, then let go."""
        with self._lock:
            self._closed = True
            sleeping = list(self._lines)
        for run_id in sleeping:
            self.wake(run_id)
        self._alarms.close()
        for driver in self._drivers:
            driver.join(timeout=5)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _line(self, run_id: str) -> _Line:
        with self._lock:
            return self._lines.setdefault(run_id, _Line())

    def _take(self, line: _Line) -> bool:
        """Whether the caller is the one who drives it."""
        with line.changed:
            if line.driven:
                return False
            line.driven = True
            return True

    def _leave(self, run_id: str, line: _Line, until: float) -> bool:
        """Drive it no longer. Returns whether more has come since there was nothing left."""
        with self._lock, line.changed:
            line.driven = False
            if line.failed is not None:
                line.ready.clear()  # lost with the worker
            if not line.ready and not line.timers and self._lines.get(run_id) is line:
                del self._lines[run_id]
            line.changed.notify_all()
            return bool(line.ready or (line.timers and monotonic() < until))

    def _next(self, run_id: str, line: _Line, until: float) -> Dispatch | None:
        """The next thing to do, or None when nothing is left (until this moment) and nobody is at work."""
        with line.changed:
            while True:
                self._ripen(line)
                if line.ready and line.failed is None:
                    return line.ready.popleft()
                if not line.busy and (not line.timers or line.failed is not None or self._is_over(run_id)):
                    line.timers.clear()
                    return None
                if not line.busy and monotonic() >= until and self._left(line) > _AT_ONCE:
                    return None
                self._pause(line, until)

    def _ripen(self, line: _Line) -> None:
        now = self._clock.now()
        while line.timers and line.timers[0][0] <= now:
            line.ready.append(heapq.heappop(line.timers)[2])

    def _pause(self, line: _Line, until: float) -> None:
        if not line.timers:
            line.changed.wait(_LOOK)
            return
        seconds = self._left(line) / 1000
        if line.busy or isinstance(self._clock, SystemClock):
            line.changed.wait(min(seconds, _LOOK, max(until - monotonic(), _AT_ONCE / 1000)))
        else:
            self._clock.sleep(seconds)

    def _left(self, line: _Line) -> int:
        """Milliseconds until the line's next timer."""
        return max(0, line.timers[0][0] - self._clock.now())

    def _is_over(self, run_id: str) -> bool:
        try:
            header = self._engine.store.header(run_id)
        except StoreUnavailable:
            return False  # who knows: it is asked again
        return header is None or header.status != RunState.RUNNING

    def _deliver(self, run_id: str, line: _Line, dispatch: Dispatch) -> None:
        with line.changed:
            alone = self._alone or not (line.ready or line.busy)
            line.busy += 1
        if alone:
            self._work(run_id, line, dispatch)
        else:
            self._threads().submit(self._work, run_id, line, dispatch)

    def _work(self, run_id: str, line: _Line, dispatch: Dispatch) -> None:
        try:
            self._engine.deliver(run_id, dispatch.path, dispatch.seq)
            if line.timed:
                self.watch(run_id)
        except BaseException as error:  # noqa: BLE001  (handed to the driver, which raises it)
            line.failed = error
        finally:
            with line.changed:
                line.busy -= 1
                line.changed.notify_all()

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="orchestrator")
            return self._pool


@dataclass(frozen=True, slots=True, order=True)
class Alarm:
    """A wait, and when its time is over by the store's clock, in ms."""

    run_id: str
    path: str
    due: int


class Alarms:
    """One thread that calls back when a moment has come; begun with the first alarm.

    `clock` may be one that somebody else moves on: then it is looked at, and never slept by.
    """

    def __init__(self, clock: Clock, call: Callable[[Alarm], None]) -> None:
        self._clock = clock
        self._call = call
        self._changed = threading.Condition()
        self._heap: list[tuple[int, Alarm]] = []
        self._set: set[Alarm] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, alarm: Alarm, left: int) -> None:
        """Call back with the alarm in `left` milliseconds. One that is set already stays as it is."""
        with self._changed:
            if self._closed or alarm in self._set:
                return
            self._set.add(alarm)
            heapq.heappush(self._heap, (self._clock.now() + left, alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchestrator-alarms", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Call nobody any more, and wait a moment for a call that is being made."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while (alarm := self._next()) is not None:
            try:
                self._call(alarm)
            except StoreUnavailable as error:
                about = {"run_id": alarm.run_id}
                log.warning("run %s: the time of a wait is over, and %s", alarm.run_id, error, extra=about)
                self.add(alarm, _AGAIN)
            except Exception:  # the thread must outlive whatever one alarm finds
                text = "run %s: the time of a wait is over, and it could not be ended"
                log.exception(text, alarm.run_id, extra={"run_id": alarm.run_id})

    def _next(self) -> Alarm | None:
        with self._changed:
            while not self._closed:
                left = self._heap[0][0] - self._clock.now() if self._heap else None
                if left is not None and left <= 0:
                    alarm = heapq.heappop(self._heap)[1]
                    self._set.discard(alarm)
                    return alarm
                self._changed.wait(self._pause(left))
            return None

    def _pause(self, left: int | None) -> float | None:
        if left is None:
            return None
        return min(left / 1000, _LONGEST) if isinstance(self._clock, SystemClock) else _GLANCE
