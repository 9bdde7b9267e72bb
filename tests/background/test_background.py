"""Threads start when they are needed, in every process anew; timers come in order, and not after their end."""

from __future__ import annotations

import gc
import os
import queue
import threading
import warnings
import weakref
from collections.abc import Callable

import pytest

from orchestrator import background
from orchestrator.background import ForkAwareThread, TimerQueue, TimerThread, on_fork
from orchestrator.testing.clock import VirtualClock
from tests.vendor import wait_until


def in_child(work: Callable[[], bool]) -> bool:
    """Fork, do the work in the child, and return what it has found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads: that is tested
        child = os.fork()
    if not child:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Counting:
    """A thread that waits, and counts how often it was started."""

    def __init__(self) -> None:
        self.starts = 0
        self.go_on = threading.Event()
        self.thread = ForkAwareThread(self.run, "counting")

    def run(self) -> None:
        self.starts += 1
        self.go_on.wait(20)


def test_a_thread_starts_at_the_first_need_and_once() -> None:
    """However many ask for it."""
    counting = Counting()
    assert not counting.thread.is_started
    for _ in range(3):
        counting.thread.ensure_started()
    assert wait_until(lambda: counting.starts == 1, 20)
    counting.go_on.set()
    counting.thread.join(20)
    assert counting.starts == 1


def test_a_child_starts_its_own_thread() -> None:
    """The parent's is not there, although it was at work when the process forked."""
    counting = Counting()
    counting.thread.ensure_started()
    assert wait_until(lambda: counting.starts == 1, 20)

    def work() -> bool:
        before = counting.thread.is_started
        counting.thread.ensure_started()
        return not before and wait_until(lambda: counting.starts == 2, 20)

    assert in_child(work)
    assert counting.thread.is_started
    counting.go_on.set()


def test_a_thread_that_released_itself_is_started_again() -> None:
    """One that ends for want of work says so first."""
    starts: queue.Queue[int] = queue.Queue()

    def run() -> None:
        thread.release()
        starts.put(1)

    thread = ForkAwareThread(run, "releasing")
    for _ in range(2):
        thread.ensure_started()
        assert starts.get(timeout=20) == 1


def test_a_child_gets_new_locks_while_a_thread_of_the_parent_holds_the_old() -> None:
    """Else it would wait for ever for a thread that it does not have."""

    class Locked:
        def __init__(self) -> None:
            self.reset_after_fork()
            on_fork(self)

        def reset_after_fork(self) -> None:
            self.lock = threading.Lock()

    owner = Locked()
    with owner.lock:
        assert in_child(lambda: owner.lock.acquire(timeout=5))


def test_registering_for_forks_keeps_nothing_alive() -> None:
    """With an owner goes its threads' bookkeeping."""
    counting = Counting()
    gone = weakref.ref(counting.thread)
    del counting
    gc.collect()
    assert gone() is None
    assert all(owner is not None for owner in background._fork_safe)


def test_timers_are_popped_by_moment_and_then_by_age() -> None:
    """Items are never compared: those of the same moment come as they were added."""
    timers: TimerQueue[dict[str, int]] = TimerQueue()
    for moment, name in ((30, 1), (10, 2), (10, 3), (20, 4)):
        timers.add(moment, {"name": name})
    assert timers.next_moment == 10
    assert [item["name"] for item in timers.pop_due(20)] == [2, 3, 4]
    assert len(timers) == 1
    timers.clear()
    assert timers.next_moment is None
    assert timers.pop_due(100) == []


def test_timers_that_are_discarded_are_not_popped() -> None:
    """Whether they are the next or not, are known to it or not, and have been popped already or not."""
    timers: TimerQueue[str] = TimerQueue()
    keys = {name: timers.add(moment, name) for name, moment in (("a", 10), ("b", 20), ("c", 30), ("d", 40))}
    for key in (keys["a"], keys["c"], keys["c"], 0, 99):
        timers.discard(key)
    assert (len(timers), timers.next_moment) == (2, 20)
    assert timers.pop_due(30) == ["b"]
    timers.discard(keys["b"])
    assert (len(timers), timers.pop_due(100)) == (1, ["d"])


def test_timers_that_are_discarded_take_no_room() -> None:
    """Their moments may be weeks away, and their items large."""
    timers: TimerQueue[int] = TimerQueue()
    kept = [timers.add(1_000 - number, number) for number in range(10)]
    for number in range(10_000):
        timers.discard(timers.add(2_000, number))
    assert len(timers._heap) < 100
    assert len(timers) == len(kept)
    assert timers.pop_due(3_000) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_a_timer_thread_forgets_what_is_discarded() -> None:
    called: queue.Queue[str] = queue.Queue()
    timers: TimerThread[str] = TimerThread(called.put, "test-timers")
    timers.discard(timers.add(10, "not"))
    timers.add(20, "called")
    assert called.get(timeout=20) == "called"
    timers.close()
    timers.discard(timers.add(0, "closed"))
    assert called.empty()


def test_a_timer_thread_calls_back_in_order() -> None:
    """One that is added later and comes earlier wakes the thread."""
    called: queue.Queue[str] = queue.Queue()
    timers: TimerThread[str] = TimerThread(called.put, "test-timers")
    timers.add(80, "late")
    timers.add(10, "soon")
    assert [called.get(timeout=20), called.get(timeout=20)] == ["soon", "late"]
    timers.close()


def test_a_clock_that_another_thread_moves_on_is_looked_at() -> None:
    """Nothing comes before it is moved, whatever the process's own clock says."""
    clock, called = VirtualClock(), queue.Queue[str]()
    timers: TimerThread[str] = TimerThread(called.put, "test-timers", clock.now, look_every=0.01)
    timers.add(3_600_000, "in an hour")
    with pytest.raises(queue.Empty):
        called.get(timeout=0.1)
    clock.advance(3_600)
    assert called.get(timeout=20) == "in an hour"
    timers.close()


def test_a_closed_timer_thread_calls_nothing() -> None:
    """Neither for what was added before nor for what comes later; closing waits for a call that is being made."""
    began, go_on, called = threading.Event(), threading.Event(), queue.Queue[str]()

    def call(item: str) -> None:
        began.set()
        go_on.wait(20)
        called.put(item)

    timers: TimerThread[str] = TimerThread(call, "test-timers")
    timers.add(0, "first")
    timers.add(0, "second")
    assert began.wait(20)
    closing = threading.Thread(target=timers.close)
    closing.start()
    assert wait_until(timers._closed.is_set, 20)
    go_on.set()
    closing.join(20)
    timers.add(0, "third")
    timers.close()
    assert called.get(timeout=20) == "first"
    assert called.empty()


def test_a_timer_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""
    called: queue.Queue[int] = queue.Queue()

    def call(item: int) -> None:
        called.put(1 // item)

    timers: TimerThread[int] = TimerThread(call, "test-timers")
    timers.add(0, 0)
    timers.add(1, 1)
    assert called.get(timeout=20) == 1
    assert "a timer of this process failed" in caplog.text
    timers.close()


def test_a_child_has_timers_of_its_own_only() -> None:
    """The parent keeps its own; what both kept would be published twice."""
    called: list[str] = []
    timers: TimerThread[str] = TimerThread(called.append, "test-timers")
    timers.add(200, "the parent's")

    def work() -> bool:
        timers.add(300, "the child's")
        return wait_until(lambda: bool(called), 20) and called == ["the child's"]

    assert in_child(work)
    assert wait_until(lambda: called == ["the parent's"], 20)
    timers.close()
