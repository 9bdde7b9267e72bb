"""The default runtime: carries dispatches to threads of this process.

A pool of threads executes what is ready, of all runs. One timer thread knows the next moment of every run that sleeps,
so a run that waits holds no thread. A caller that waits for a run lends it the caller's own thread: a run of steps that
follow each other stays in it, and a pool whose threads are all blocked holds up no caller.

For an app in eager mode everything runs in the caller's thread: a caller that starts or resumes a run, or waits for it,
executes one activation after the other, inside of its own database transaction. A timer that falls due while no caller
waits is left to the pool; one by a virtual clock falls due only for a caller that waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

from orchestrator.background import TimerThread, on_fork
from orchestrator.engine.calling import WorkerLost
from orchestrator.engine.django_threads import close_connections
from orchestrator.engine.logs import log_abandoned_attempt
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.host import SystemClock, monotonic
from orchestrator.local.pool import ThreadPool
from orchestrator.local.run_queue import RunQueue
from orchestrator.local.wait_timeouts import WaitTimeouts
from orchestrator.ports import Clock, Store
from orchestrator.rules.change import Committed, Dispatch
from orchestrator.rules.graph import Wait
from orchestrator.rules.model import RunHeader, StoredStatus, is_report

_LOOK = 0.5  # seconds between looks of a caller at a run that sleeps: it may be canceled from elsewhere
_LOOK_AT_CLOCK = 0.02  # seconds between looks at a virtual clock, which a test moves on
_MIN_DELAY = 1  # ms: minimum timer delay; a timer that is due so soon is worth waiting for
_JOIN = 5.0  # seconds that `close` waits for what is being executed


class _Here(threading.local):
    """The queue of the run that this thread executes an activation of."""

    queue: RunQueue | None = None


class LocalRuntime:
    """Executes activations in this process. `clock` is the store's, where that is a clock of this process.

    With `in_caller_thread` they run in the thread of a caller that waits, one after the other, as Celery's eager mode
    would have it.

    The composition root binds it to an engine before anything is published.
    """

    # More public methods than most classes: the port `Runtime` has twelve already.

    name = "local"
    is_shared = False
    tasks = None
    keeps_results = False

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock,
        *,
        in_caller_thread: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        # A virtual clock moves on when a run waits for nothing else: nobody sleeps by it.
        self._is_virtual = not isinstance(clock, SystemClock)
        self._in_caller_thread = in_caller_thread or not settings.local_threads
        self._execute: Callable[[str, str, int], object] = _execute_unbound
        self._failures: dict[str, BaseException] = {}  # by run, until this process takes the run up again
        self._with_timeouts: set[str] = set()  # ids of workflows
        size = settings.local_threads
        self._pool = ThreadPool(size, "orchestrator", close_connections) if size else None
        look_every = _LOOK_AT_CLOCK if self._is_virtual else None
        self._alarms: TimerThread[Callable[[], None]] = TimerThread(_call, "orchestrator-timers", clock.now, look_every)
        self._wait_timeouts = WaitTimeouts(
            store, settings.redelivery_delay, self._call_later, self._alarms.discard, self._on_timeout
        )
        self._here = _Here()
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Start with no work: the parent goes on with its own, and its threads do not exist here."""
        self._queues: dict[str, RunQueue] = {}
        self._lock = threading.Lock()  # of the queues; taken before the lock of pool or timers, never after

    def bind(self, execute: Callable[[str, str, int], object]) -> None:
        """Execute dispatches by `execute(run_id, path, seq)`."""
        # Not an argument of the constructor: the executor needs a runtime, and this runtime the executor.
        self._execute = execute

    # --- the port ----------------------------------------------------------------------------------------------------

    def register_workflow(self, workflow: Any) -> None:
        """Note if the workflow has a wait with a timeout."""
        # Only the runs of such workflows are searched for timeouts.
        if any(isinstance(node, Wait) and node.timeout is not None for node in workflow.compiled.walk()):
            self._with_timeouts.add(workflow.id)

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        """Put the dispatches in the runs' queues."""
        for header, dispatches in told:
            self.publish(header, dispatches)
        return [None] * len(told)

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch], *, goes_on: bool = False) -> None:
        """Put the dispatches in the run's queue."""
        with self._lock:
            queue = self._queue_of(header.run_id)
            queue.has_timeouts = header.workflow_id in self._with_timeouts
            now = self._clock.now()
            for dispatch in dispatches:
                if dispatch.delay and is_report(dispatch.path):
                    # Not in the queue, whose timers go with the end of the run: a report is tried again after that.
                    report = replace(dispatch, delay=0)
                    self._call_later(dispatch.delay, partial(self._publish_from_outside, header, (report,)))
                    continue
                queue.add(dispatch, now)
            self._set_alarm(queue, now)
            queue.notify()
            # The thread that publishes executes the first by itself once it has done, unless it goes on with something
            # else. Work from outside waits for the caller's `drive`, so that a caller begins its own run.
            if self._here.queue is queue:
                self._offer(queue, len(queue.ready) - (0 if goes_on else 1))
            elif queue.busy or queue.callers:
                self._offer(queue, len(queue.ready) - queue.idle_callers)

    def discard_result(self, run_id: str) -> None:
        """Do nothing: there is no result outside the store."""

    def on_progress(self, header: RunHeader) -> None:
        """Do nothing: the run is shown nowhere but in the store."""

    def on_end(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Do nothing: the run is shown nowhere but in the store."""

    def deliver(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Do nothing: there is no result backend."""

    def wake(self, run_id: str) -> None:
        """Look at a run that has been changed from outside (canceled)."""
        queue = self._queues.get(run_id)
        if queue is not None and self._is_over(run_id):
            with self._lock:
                queue.drop()
                self._set_alarm(queue, self._clock.now())
                self._offer(queue, len(queue.ready))
                self._tidy(queue)
        if self._wait_timeouts.is_armed(run_id) and self._is_over(run_id):
            self._wait_timeouts.forget(run_id)

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Execute until nothing is left to do for this run. Raises an exception that has abandoned an attempt.

        With a `timeout` (seconds) the pool executes it. In eager mode it is executed here, and timers that are due
        later are left.
        """
        if timeout is not None and not self._in_caller_thread:
            self.drive_in_background(run_id)
        else:
            self._drive_here(run_id, inf if timeout is None else monotonic() + timeout)

    def drive_in_background(self, run_id: str) -> None:
        """Execute in the pool. In eager mode, execute here and now whatever need not wait for a timer.

        In eager mode it raises like `drive`, except for a `WorkerLost`.
        """
        if not self._in_caller_thread:
            with self._lock:
                self._failures.pop(run_id, None)
                queue = self._queue_of(run_id)
                self._offer(queue, max(1, len(queue.ready)))
            return
        try:
            self._drive_here(run_id, 0.0)
        except WorkerLost as error:
            # As on workers: the caller that starts a run does not see its worker die. One that waits for it does.
            log_abandoned_attempt(run_id, error)

    def lend_thread(self, run_id: str, timeout: float | None = None) -> None:
        """Execute what is ready of a run that the caller waits for. Raises like `drive`."""
        if run_id in self._queues and (self._in_caller_thread or timeout is None):
            self._drive_here(run_id, inf if timeout is None else monotonic() + timeout)

    def failure_of(self, run_id: str) -> BaseException | None:
        """Return the exception with which this process has left the run; None while it works on the run."""
        return self._failures.get(run_id)

    def arm_timeouts(self, run_id: str) -> None:
        """End each wait of the run when its time is over. Idempotent."""
        self._wait_timeouts.arm(run_id)

    def close(self) -> None:
        """Wait a moment for running attempts, then give the threads up."""
        self._alarms.close()
        if self._pool is not None:
            self._pool.close(_JOIN)

    # --- the queues; all with the lock held ---------------------------------------------------------------------------

    def _queue_of(self, run_id: str) -> RunQueue:
        queue = self._queues.get(run_id)
        if queue is None:
            queue = self._queues[run_id] = RunQueue(run_id)
        return queue

    def _offer(self, queue: RunQueue, count: int) -> None:
        """Let so many threads of the pool look for work of this run."""
        if self._pool is None or (self._in_caller_thread and queue.callers):
            return
        # More than there is work for do no harm: a thread that finds nothing goes to the next run.
        for _ in range(min(count, 1) if self._in_caller_thread else count):
            self._pool.submit(partial(self._work, queue))

    def _tidy(self, queue: RunQueue) -> None:
        """Tell the callers, and forget the queue of a run of which nothing is left."""
        queue.notify()
        if not queue.is_quiet or self._queues.get(queue.run_id) is not queue:
            return
        del self._queues[queue.run_id]
        if queue.failure is not None:
            queue.drop()  # as the messages that a dead worker has taken
            self._set_alarm(queue, self._clock.now())
            self._failures[queue.run_id] = queue.failure
            if not queue.callers:  # nobody would get the exception
                log_abandoned_attempt(queue.run_id, queue.failure)

    # --- executing ----------------------------------------------------------------------------------------------------

    def _execute_one(self, queue: RunQueue, dispatch: Dispatch) -> None:
        outer, self._here.queue = self._here.queue, queue
        failure: BaseException | None = None
        try:
            self._execute(queue.run_id, dispatch.path, dispatch.seq)
            if queue.has_timeouts:
                self.arm_timeouts(queue.run_id)
        except BaseException as error:  # noqa: BLE001  (the thread goes on; callers get the exception)
            failure = error
        finally:
            self._here.queue = outer
            with self._lock:
                queue.busy -= 1
                queue.failure = queue.failure or failure
                self._tidy(queue)

    def _work(self, queue: RunQueue) -> None:
        """Execute what is ready of a run, in a thread of the pool."""
        if self._in_caller_thread:
            try:
                self._drive_here(queue.run_id, 0.0)
            except BaseException as error:  # noqa: BLE001  (no caller would get the exception)
                log_abandoned_attempt(queue.run_id, error)
            return
        while (dispatch := self._next_in_pool(queue)) is not None:
            self._execute_one(queue, dispatch)
            with self._lock:
                # Others' turn, where they wait: a long run does not keep its thread.
                if self._pool is not None and self._pool.has_backlog:
                    self._offer(queue, 1)
                    return

    def _next_in_pool(self, queue: RunQueue) -> Dispatch | None:
        while True:
            with self._lock:
                queue.promote_due(self._clock.now())
                if (dispatch := queue.take()) is not None:
                    return dispatch
                passes_time = self._is_virtual and queue.is_asleep and not queue.callers
                self._tidy(queue)
            if not passes_time:
                return None
            self._pass_time(queue)

    def _pass_time(self, queue: RunQueue) -> None:
        """Move a virtual clock on to the next moment of a run, unless the run is over."""
        if self._is_over(queue.run_id):
            with self._lock:
                queue.drop()
                self._tidy(queue)
        else:
            self._clock.sleep(queue.ms_until_timer(self._clock.now()) / 1000)

    def _drive_here(self, run_id: str, until: float) -> None:
        """Execute in this thread what is ready, and until this moment wait for timers and for what others execute."""
        queue = self._enter(run_id)
        while queue is not None:
            try:
                while (dispatch := self._next_for_caller(queue, until)) is not None:
                    self._execute_one(queue, dispatch)
            finally:
                self._leave(queue)
            if queue.failure is not None:
                raise queue.failure
            # In eager mode another caller may have come in the last moment, and left its work to this one.
            queue = self._enter(run_id) if self._in_caller_thread and queue.ready else None

    def _enter(self, run_id: str) -> RunQueue | None:
        """Count a caller that waits for the run; None where another one does all of its work."""
        with self._lock:
            queue = self._queue_of(run_id)
            self._failures.pop(run_id, None)
            # In eager mode one at a time: of two, each would do a part in another transaction.
            if self._in_caller_thread and queue.callers:
                return None
            queue.callers += 1
            if queue.changed is None:
                queue.changed = threading.Condition(self._lock)
            return queue

    def _leave(self, queue: RunQueue) -> None:
        with self._lock:
            queue.callers -= 1
            self._tidy(queue)
            # A caller that was interrupted while it waited leaves what is ready to others.
            if not self._in_caller_thread:
                self._offer(queue, len(queue.ready))

    def _next_for_caller(self, queue: RunQueue, until: float) -> Dispatch | None:
        """Wait for the next dispatch; None when nothing is left to do (until this moment)."""
        while True:
            with self._lock:
                queue.promote_due(self._clock.now())
                if (dispatch := queue.take()) is not None:
                    if not self._in_caller_thread:
                        self._offer(queue, len(queue.ready) - queue.idle_callers)
                    return dispatch
                if queue.is_quiet:
                    return None
                is_late = monotonic() >= until and queue.ms_until_timer(self._clock.now()) > _MIN_DELAY
                if queue.is_asleep and is_late:
                    return None
                if not (self._is_virtual and queue.is_asleep):
                    self._wait(queue, until)
            if queue.is_asleep:
                self._look_at(queue)

    def _wait(self, queue: RunQueue, until: float) -> None:
        assert queue.changed is not None
        seconds = queue.ms_until_timer(self._clock.now()) / 1000 if queue.timers and not self._is_virtual else _LOOK
        queue.idle_callers += 1
        try:
            queue.changed.wait(min(seconds, _LOOK, max(until - monotonic(), _MIN_DELAY / 1000)))
        finally:
            queue.idle_callers -= 1

    def _look_at(self, queue: RunQueue) -> None:
        """Look at a run that sleeps, while a caller waits for it: is it over?"""
        if self._is_virtual:
            self._pass_time(queue)
        elif self._is_over(queue.run_id):
            with self._lock:
                queue.drop()

    def _is_over(self, run_id: str) -> bool:
        try:
            header = self._store.header(run_id)
        except StoreUnavailable:
            return False  # unknown: the store is asked again
        return header is None or header.status != StoredStatus.RUNNING

    # --- timers -------------------------------------------------------------------------------------------------------

    def _set_alarm(self, queue: RunQueue, now: int) -> None:
        """Have one alarm for the earliest timer of the queue, and none where it has none. With the lock held."""
        moment = queue.timers.next_moment
        if self._is_virtual or moment == queue.alarm_at:
            return
        self._alarms.discard(queue.alarm)
        queue.alarm_at = moment
        if moment is not None:
            queue.alarm = self._alarms.add(moment - now, partial(self._on_alarm, queue))

    def _on_alarm(self, queue: RunQueue) -> None:
        """The moment of a dispatch of this run has come."""
        with self._lock:
            if self._queues.get(queue.run_id) is not queue:
                return  # the run has been canceled, or left
            now = self._clock.now()
            queue.promote_due(now)
            queue.alarm_at = None  # it has rung
            self._set_alarm(queue, now)
            queue.notify()
            self._offer(queue, len(queue.ready) - queue.idle_callers)

    def _call_later(self, delay: int, call: Callable[[], None]) -> int:
        """Call from the pool in so many ms: what asks the store must not hold up the timers of others.

        Returns the key of the alarm.
        """
        pool = self._pool
        return self._alarms.add(delay, call if pool is None else partial(pool.submit, call))

    def _on_timeout(self, answer: Committed) -> None:
        self._publish_from_outside(answer.header, answer.dispatches)

    def _publish_from_outside(self, header: RunHeader, dispatches: Sequence[Dispatch]) -> None:
        """Put the dispatches in the run's queue, and let the pool execute them."""
        self.publish(header, dispatches)
        with self._lock:
            queue = self._queue_of(header.run_id)
            self._offer(queue, max(1, len(queue.ready)))


def _call(call: Callable[[], None]) -> None:
    call()


def _execute_unbound(run_id: str, *_: object) -> object:
    raise RuntimeError(f"run {run_id!r}: this runtime has not been bound to an engine")
