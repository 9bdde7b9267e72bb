"""The default runtime: carries dispatches to threads of this process.

A single dispatch is executed in the thread that drives the run; several that can run side by side go to a pool.

For an app in eager mode everything runs in the caller's thread: a caller that starts or resumes a run drives it, one
activation after the other, inside of its own database transaction. Only timers are left to a thread, which gives the
run up to a caller that comes meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from typing import Any

from orchestrator.background import TimerThread, on_fork
from orchestrator.engine.calling import WorkerLost
from orchestrator.engine.logs import log_abandoned_attempt
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.host import SystemClock, monotonic
from orchestrator.local.run_queue import RunQueue
from orchestrator.local.wait_timeouts import WaitTimeouts
from orchestrator.ports import Clock, Store
from orchestrator.rules.change import Committed, Dispatch
from orchestrator.rules.graph import Wait
from orchestrator.rules.model import RunHeader, StoredStatus, is_report

_MAX_THREADS = 64
_LOOK = 0.5  # seconds between looks at the run while only timers are left: it may be canceled from elsewhere
_MIN_DELAY = 1  # ms: minimum timer delay; a timer that is due so soon is not worth handing to a thread
_JOIN = 5.0  # seconds that `close` waits for each thread


class LocalRuntime:
    """Executes activations in this process. `clock` is the store's, where that is a clock of this process.

    With `in_caller_thread` they run in the thread that drives the run, one after the other, as Celery's eager mode
    would have it. `on_register` is called with each workflow that is registered.

    The composition root binds it to an engine before anything is published.
    """

    # More public methods than most classes: the port `Runtime` has eleven already.

    name = "local"
    is_shared = False
    keeps_results = False

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock,
        *,
        in_caller_thread: bool = False,
        on_register: Callable[[Any], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._in_caller_thread = in_caller_thread
        self._on_register = on_register
        self._execute: Callable[[str, str, int], object] = _execute_unbound
        self._closed = False
        self._failures: dict[str, BaseException] = {}  # by run, until this process takes the run up again
        self._with_timeouts: set[str] = set()  # ids of workflows
        self._wait_timeouts = WaitTimeouts(store, clock, settings.redelivery_delay, self._on_timeout)
        self._reports: TimerThread[tuple[RunHeader, Dispatch, float]] = TimerThread(
            self._on_report, "orchestrator-reports"
        )
        self.reset_after_fork()
        on_fork(self)

    def reset_after_fork(self) -> None:
        """Start with no work: the parent goes on with its own, and its threads do not exist here."""
        self._queues: dict[str, RunQueue] = {}
        self._lock = threading.Lock()  # of queues, pool and threads; taken before a queue's own, never after
        self._pool: ThreadPoolExecutor | None = None
        self._threads: list[threading.Thread] = []

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
        if self._on_register is not None:
            self._on_register(workflow)

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        """Put the dispatches in the runs' queues."""
        for header, dispatches in told:
            self.publish(header, dispatches)
        return [None] * len(told)

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch]) -> None:
        """Put the dispatches in the run's queue."""
        with self._lock:  # so that the queue is not taken away meanwhile
            queue = self._queues.setdefault(header.run_id, RunQueue())
            with queue.changed:
                queue.has_timeouts = header.workflow_id in self._with_timeouts
                for dispatch in dispatches:
                    if dispatch.delay and is_report(dispatch.path):
                        self._keep_report(header, dispatch, self._clock.now() + dispatch.delay)
                    else:
                        queue.add(dispatch, self._clock.now())
                queue.changed.notify_all()

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
        if queue is not None:
            with queue.changed:
                queue.changed.notify_all()

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Execute until nothing is left to do for this run. Raises an exception that has abandoned an attempt.

        With a `timeout` (seconds) the run is driven in the background. In eager mode it is driven here, and timers that
        are due later are left to a thread.
        """
        if timeout is not None and not self._in_caller_thread:
            self.drive_in_background(run_id)
        else:
            self._drive(run_id, inf if timeout is None else monotonic() + timeout)

    def drive_in_background(self, run_id: str) -> None:
        """Execute in a thread of its own. In eager mode, execute here and now whatever need not wait for a timer.

        In eager mode it raises like `drive`, except for a `WorkerLost`.
        """
        if not self._in_caller_thread:
            self._start_thread(run_id, lambda: self._drive(run_id, inf))
            return
        try:
            self._drive(run_id, 0.0)
        except WorkerLost as error:
            # As on workers: the caller that starts a run does not see its worker die. One that waits for it does.
            log_abandoned_attempt(run_id, error)

    def failure_of(self, run_id: str) -> BaseException | None:
        """Return the exception with which this process has left the run; None while it works on the run."""
        return self._failures.get(run_id)

    def arm_timeouts(self, run_id: str) -> None:
        """End each wait of the run when its time is over. Idempotent."""
        self._wait_timeouts.arm(run_id)

    def close(self) -> None:
        """Wait a moment for running attempts, then give the threads up."""
        with self._lock:
            self._closed = True
            waiting = list(self._queues)
        for run_id in waiting:
            self.wake(run_id)
        self._wait_timeouts.close()
        self._reports.close()
        for thread in self._threads:
            thread.join(timeout=_JOIN)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # --- driving -----------------------------------------------------------------------------------------------------

    def _drive(self, run_id: str, until: float) -> None:
        """Execute dispatches that are ready, and until this moment wait for timers too."""
        queue = self._queue_of(run_id)
        self._failures.pop(run_id, None)
        has_more = True
        while has_more and self._begin_driving(queue):
            try:
                while (dispatch := self._next_dispatch(run_id, queue, until)) is not None:
                    self._start_execution(run_id, queue, dispatch)
            finally:
                has_more = self._stop_driving(run_id, queue, until)
            if queue.failure is not None:
                self._failures[run_id] = queue.failure
                raise queue.failure
        if until < inf:
            self._leave_timers_to_thread(run_id, queue)

    def _queue_of(self, run_id: str) -> RunQueue:
        with self._lock:
            return self._queues.setdefault(run_id, RunQueue())

    def _begin_driving(self, queue: RunQueue) -> bool:
        """Take the run, unless another thread drives it."""
        with queue.changed:
            if queue.is_driven:
                return False
            queue.is_driven = True
            return True

    def _stop_driving(self, run_id: str, queue: RunQueue, until: float) -> bool:
        """Stop driving the run. Returns True if there are dispatches again."""
        # Under both locks: between "nothing is left" and the removal no thread may publish into a queue that goes away.
        with self._lock, queue.changed:
            queue.is_driven = False
            if queue.failure is not None:
                queue.ready.clear()  # as the messages that a dead worker has taken
            if not queue.ready and not queue.timers and self._queues.get(run_id) is queue:
                del self._queues[run_id]
            queue.changed.notify_all()
            return bool(queue.ready or (queue.timers and monotonic() < until))

    def _next_dispatch(self, run_id: str, queue: RunQueue, until: float) -> Dispatch | None:
        """Wait for the next dispatch; None when nothing is left (until this moment) and nothing is being executed."""
        with queue.changed:
            while True:
                queue.promote_due(self._clock.now())
                if queue.ready and queue.failure is None:
                    return queue.ready.popleft()
                if not queue.busy and (not queue.timers or queue.failure is not None or self._is_over(run_id)):
                    queue.timers.clear()
                    return None
                if not queue.busy and monotonic() >= until and queue.ms_until_timer(self._clock.now()) > _MIN_DELAY:
                    return None
                self._pause(queue, until)

    def _pause(self, queue: RunQueue, until: float) -> None:
        if not queue.timers:
            queue.changed.wait(_LOOK)
            return
        seconds = queue.ms_until_timer(self._clock.now()) / 1000
        if queue.busy or isinstance(self._clock, SystemClock):
            queue.changed.wait(min(seconds, _LOOK, max(until - monotonic(), _MIN_DELAY / 1000)))
        else:
            self._clock.sleep(seconds)  # nothing else is going on: this is what moves a virtual clock

    def _is_over(self, run_id: str) -> bool:
        try:
            header = self._store.header(run_id)
        except StoreUnavailable:
            return False  # unknown: the store is asked again
        return header is None or header.status != StoredStatus.RUNNING

    def _start_execution(self, run_id: str, queue: RunQueue, dispatch: Dispatch) -> None:
        with queue.changed:
            in_this_thread = self._in_caller_thread or not (queue.ready or queue.busy)
            queue.busy += 1
        if in_this_thread:
            self._execute_one(run_id, queue, dispatch)
        else:
            self._pool_of_threads().submit(self._execute_one, run_id, queue, dispatch)

    def _execute_one(self, run_id: str, queue: RunQueue, dispatch: Dispatch) -> None:
        try:
            self._execute(run_id, dispatch.path, dispatch.seq)
            if queue.has_timeouts:
                self.arm_timeouts(run_id)
        except BaseException as error:  # noqa: BLE001  (handed to the driver, which raises it)
            queue.failure = error
        finally:
            with queue.changed:
                queue.busy -= 1
                queue.changed.notify_all()

    def _pool_of_threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="orchestrator")
            return self._pool

    # --- waiting for timers ------------------------------------------------------------------------------------------

    def _leave_timers_to_thread(self, run_id: str, queue: RunQueue) -> None:
        """Start a thread that waits for the timers of a run which no thread drives any more."""
        with queue.changed:
            if not queue.timers or queue.is_driven or queue.has_timer_thread:
                return
            queue.has_timer_thread = True

        def drive_when_due() -> None:
            while self._wait_for_timers(run_id, queue):
                self._drive(run_id, 0.0)

        self._start_thread(run_id, drive_when_due)

    def _wait_for_timers(self, run_id: str, queue: RunQueue) -> bool:
        """Wait until a timer is due in a run that no thread drives. Returns False where there is none any more."""
        with queue.changed:
            while (moment := queue.timers.next_moment) is not None and not self._closed:
                if queue.is_driven:
                    queue.changed.wait(_LOOK)
                elif moment <= self._clock.now() or self._is_over(run_id):
                    return True
                else:
                    self._pause(queue, inf)
            queue.has_timer_thread = False
            return False

    def _keep_report(self, header: RunHeader, dispatch: Dispatch, moment: float) -> None:
        """Execute a report that is to be tried again at its moment. No driver waits for it: its run may have ended."""
        self._reports.add(moment - self._clock.now(), (header, dispatch, moment))

    def _on_report(self, timer: tuple[RunHeader, Dispatch, float]) -> None:
        header, dispatch, moment = timer
        if moment > self._clock.now():  # the store's clock is a virtual one, and has not come so far
            self._keep_report(header, dispatch, moment)
            return
        self.publish(header, [replace(dispatch, delay=0)])
        self._start_thread(header.run_id, lambda: self._drive(header.run_id, 0.0 if self._in_caller_thread else inf))

    def _on_timeout(self, answer: Committed) -> None:
        run_id = answer.header.run_id
        self.publish(answer.header, answer.dispatches)
        self._start_thread(run_id, lambda: self._drive(run_id, 0.0 if self._in_caller_thread else inf))

    def _start_thread(self, run_id: str, work: Callable[[], None]) -> None:
        def work_and_log() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  (the end of a thread: no caller would get the exception)
                log_abandoned_attempt(run_id, error)

        thread = threading.Thread(target=work_and_log, name=f"run-{run_id}", daemon=True)
        with self._lock:
            self._threads = [known for known in self._threads if known.is_alive()]
            self._threads.append(thread)
            thread.start()


def _execute_unbound(run_id: str, *_: object) -> object:
    raise RuntimeError(f"run {run_id!r}: this runtime has not been bound to an engine")
