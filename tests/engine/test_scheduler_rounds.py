"""When a scheduler looks, how long it waits, what it says of itself, and what it takes for granted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.engine import scheduler as module
from orchestrator.engine.scheduler import Scheduler
from orchestrator.engine.settings import Settings
from orchestrator.engine.sweep import BATCH, LOT
from orchestrator.errors import StoreUnavailable
from orchestrator.rules.timers import SweepGrant
from tests.engine.test_sweeping import AWAY, World

TICK = 1.0


class Timed:
    """A world in which the scheduler's own clock goes on only while it waits, and so for ever."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.now = 100.0
        self.luck = 0.5
        self.pauses: list[float] = []
        self.asked: list[tuple[Any, ...]] = []
        self.heartbeats: list[tuple[str, str, int]] = []
        self.on_wait: Callable[[], None] = lambda: None
        self.faults: list[Exception] = []
        patch.setattr(module, "monotonic", lambda: self.now)
        patch.setattr(module, "chance", lambda: self.luck)
        patch.setattr(module, "threading", SimpleNamespace(Event=lambda: self))
        self.ended = False

    # --- the event that ends it ---

    def is_set(self) -> bool:
        return self.ended

    def set(self) -> None:
        self.ended = True

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.pass_time(seconds)
        self.on_wait()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.world.clock.advance(seconds)

    # --- the store ---

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.store, name)

    def acquire_sweep(self, *args: Any) -> Any:
        self.asked.append(args)
        return self.world.store.acquire_sweep(*args)

    def heartbeat(self, namespace: str, worker: str, ttl: int) -> None:
        self.heartbeats.append((namespace, worker, ttl))
        if self.faults:
            raise self.faults.pop()

    def run(self, rounds: int) -> list[float]:
        """Let a scheduler go so many rounds; return its pauses."""
        scheduler = self.world.scheduler(store=self)

        def count() -> None:
            if len(self.pauses) == rounds:
                scheduler.stop()

        self.on_wait = count
        scheduler.run()
        return self.pauses


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    return Timed(monkeypatch)


@pytest.mark.parametrize("luck, mine, others", [(0.0, 0.75, 1.0), (0.5, 1.0, 1.5), (1.0, 1.25, 2.0)])
def test_rounds_are_spread_around_a_tick(timed: Timed, luck: float, mine: float, others: float) -> None:
    """Who has not the right to sweep looks more rarely: there are many of them."""
    timed.luck = luck
    assert timed.run(1) == [mine]
    assert timed.world.store.acquire_sweep("n", "other", 60_000, 7_500) is None
    timed.pass_time(10)
    assert timed.world.store.acquire_sweep("n", "other", 60_000, 7_500) is not None
    timed.ended, timed.pauses = False, []
    assert timed.run(1) == [others]


def test_there_is_no_pause_while_more_is_due(timed: Timed) -> None:
    for _ in range(BATCH + 50):
        timed.world.sleeping(0.1)
    timed.pass_time(1)
    assert timed.run(2) == [0.0, 1.0]
    assert len(timed.world.broker.told) == BATCH + 50


def test_who_can_send_nothing_stands_back(timed: Timed) -> None:
    """For longer than another waits for the right, which it has given up."""
    run = timed.world.sleeping(0.1)
    timed.pass_time(1)
    timed.world.broker.fault = lambda run_id, path: AWAY
    assert timed.run(1) == [2.0]
    assert timed.asked == [("n", "me", 3_000, 7_500), ("n", "me", 1, 7_500)]
    timed.world.scheduler("other").tick()
    assert timed.world.store.acquire_sweep("n", "me", 3_000, 7_500) is None
    assert timed.world.told(run) == 0


@pytest.mark.parametrize("lease, pause", [(30.0, 7_500), (30.001, 7_500), (4.0, 2_000)])
def test_the_right_lasts_three_ticks_and_a_pause_two_or_a_quarter_of_a_lease(
    timed: Timed, lease: float, pause: int
) -> None:
    """Whichever is longer: in a quarter of a lease workers may have missed a renewal."""
    settings = Settings(namespace="n", tick_seconds=TICK, lease_seconds=lease)
    Scheduler(timed, None, settings, "me").tick()  # type: ignore[arg-type]
    assert timed.asked == [("n", "me", 3_000, pause)]


def test_a_worker_is_announced_at_once_and_then_every_other_tick(timed: Timed) -> None:
    """For six ticks, or six seconds: two announcements may be missed."""
    timed.run(5)
    assert timed.heartbeats == [("n", "me", 6_000)] * 3
    timed.luck, timed.ended, timed.pauses, timed.heartbeats = 0.0, False, [], []
    timed.run(3)  # at 0, 0.75 and 1.5 ticks
    assert len(timed.heartbeats) == 2


def test_a_slow_worker_is_announced_as_rarely_as_it_looks(timed: Timed) -> None:
    """And one that looks often for six seconds all the same."""
    quick = Settings(namespace="n", tick_seconds=0.1)
    slow = Settings(namespace="n", tick_seconds=2.5)
    for settings in (quick, slow):
        Scheduler(timed, None, settings, "me").announce()  # type: ignore[arg-type]
    assert [ttl for _, _, ttl in timed.heartbeats] == [6_000, 15_000]
    scheduler = Scheduler(timed, None, slow, "me")  # type: ignore[arg-type]
    timed.on_wait = lambda: scheduler.stop() if len(timed.pauses) == 4 else None
    scheduler.run()
    assert (timed.pauses, len(timed.heartbeats)) == ([2.5] * 4, 2 + 2)


def test_a_worker_begins_although_the_store_is_away(timed: Timed, caplog: pytest.LogCaptureFixture) -> None:
    """It is announced as soon as the store is there."""
    scheduler = timed.world.scheduler(store=timed)
    timed.faults = [StoreUnavailable("refused")]
    with caplog.at_level(logging.WARNING, "orchestrator"):
        scheduler.begin()
    assert "refused" in caplog.text
    scheduler.begin()
    assert len(timed.heartbeats) == 2


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("a bug")])
def test_no_error_ends_the_rounds(timed: Timed, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Without them no timer fires. What was missed is told in the next round."""
    run = timed.world.sleeping(0.1)
    timed.pass_time(1)
    timed.faults = [error]
    with caplog.at_level(logging.WARNING, "orchestrator"):
        assert timed.run(2) == [1.5, 1.0]
    assert timed.world.told(run) == 1
    assert len(caplog.records) == 1


def test_an_outage_of_the_broker_is_logged(timed: Timed, caplog: pytest.LogCaptureFixture) -> None:
    """With what is wrong."""
    timed.world.sleeping(0.1)
    timed.pass_time(1)
    timed.world.broker.fault = lambda run_id, path: AWAY
    with caplog.at_level(logging.WARNING, "orchestrator"):
        timed.run(1)
    assert "the broker does not answer" in caplog.text


@pytest.mark.parametrize("seconds, asked", [(0.0, 1), (1.0, 1), (1.1, 2)])
def test_a_round_that_takes_long_asks_again_before_it_takes_a_claim(timed: Timed, seconds: float, asked: int) -> None:
    """It may have been busy, or the store may have been away: then workers could renew no lease."""
    scheduler = with_a_lease_that_is_over(timed, lambda: timed.pass_time(seconds))
    assert (scheduler.tick().expired, len(timed.asked)) == (1, asked)


def test_who_has_lost_the_right_meanwhile_takes_no_claim(timed: Timed) -> None:
    """Another looks after them; how steady the store has been is its to know."""

    def lose() -> None:
        timed.pass_time(4)
        assert timed.world.store.acquire_sweep("n", "other", 60_000, 7_500) is not None

    scheduler = with_a_lease_that_is_over(timed, lose)
    assert (scheduler.tick().expired, len(timed.asked)) == (0, 2)


def with_a_lease_that_is_over(timed: Timed, meanwhile: Callable[[], None]) -> Scheduler:
    """A scheduler in whose next round a lease is over, and this happens while it looks for what is due."""
    timed.world.queued().claim("0", lease=1)
    scheduler = timed.world.scheduler(store=timed)
    scheduler.tick()
    timed.pass_time(1)
    timed.asked.clear()
    look = timed.world.store.due_timers

    def slow(*args: Any, **kwargs: Any) -> Any:
        meanwhile()
        return look(*args, **kwargs)

    timed.due_timers = slow  # type: ignore[attr-defined]
    return scheduler


@pytest.mark.parametrize(
    "grant, looks",
    [
        (SweepGrant(steady=30_000, ahead=1_000), [("n", 61_000, BATCH)]),
        (SweepGrant(steady=29_999, ahead=1_000), []),
        (SweepGrant(steady=90_000, ahead=0), []),
        (None, []),
    ],
)
def test_leases_that_a_clock_gone_back_has_left_are_looked_for(
    timed: Timed, grant: SweepGrant | None, looks: list[Any]
) -> None:
    """Those that end beyond all that a renewal since could have written, once who lives has had time for one."""
    found: list[Any] = []
    timed.acquire_sweep = lambda *_: grant  # type: ignore[method-assign]
    timed.find_stranded = lambda *args: found.append(args) or []  # type: ignore[attr-defined]
    timed.world.scheduler(store=timed).tick()
    assert found == looks


def test_single_messages_are_tried_only_after_a_round_without_the_broker(timed: Timed) -> None:
    """A scheduler that begins takes it to be there."""
    for _ in range(LOT + 10):
        timed.world.sleeping(0.1)
    timed.pass_time(1)
    timed.world.broker.fault = lambda run_id, path: AWAY
    scheduler = timed.world.scheduler(store=timed)
    scheduler.tick()
    assert timed.world.broker.tried == LOT
    timed.pass_time(1)
    scheduler.tick()
    assert timed.world.broker.tried == LOT + 1
