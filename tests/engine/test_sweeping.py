"""The scheduler's rounds: nothing about one timer hides another, and an outage of the broker costs two ticks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from orchestrator.engine.scheduler import Scheduler
from orchestrator.engine.settings import Settings
from orchestrator.engine.sweep import BATCH, LOT, SweepReport
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.ports import DueTimer, Runtime, Store
from orchestrator.rules.change import CreateActivation, Dispatch
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader
from orchestrator.rules.timers import SHORT, QueueState
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import FailingStore, VirtualClock
from orchestrator.testing.contract.kit import StartedRun, an_activation

SETTINGS = Settings(namespace="n", tick_seconds=1, republish_seconds=30, lease_seconds=30)
AWAY = BrokerUnavailable("the broker does not answer")
UNKNOWN_QUEUE = BrokerUnavailable("no such queue", is_refused=True)


@dataclass
class Broker:
    """A runtime that remembers what it was told; `fault` says what is wrong with a message, if anything is."""

    told: list[tuple[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], BrokerUnavailable | None] = lambda run_id, path: None
    tried: int = 0

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        errors: list[BrokerUnavailable | None] = []
        for header, dispatches in told:
            self.tried += 1
            error = self.fault(header.run_id, dispatches[0].path)
            errors.append(error)
            if error is None:
                self.told += [(header.run_id, dispatch.path) for dispatch in dispatches]
        return errors


class World:
    """A store on a virtual clock, a broker, and schedulers."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store: Any = MemoryStore(self.clock)
        self.broker = Broker()
        self.short: bool | None = True
        self.worked_off: int | None = None

    def state_of(self, header: RunHeader, dispatch: Dispatch) -> QueueState | None:
        """All queues are alike."""
        return None if self.short is None else QueueState(self.short, self.worked_off)

    def watch(self) -> None:
        """Nothing moves by itself."""

    def scheduler(self, name: str = "me", broker: Broker | None = None, store: Any = None) -> Scheduler:
        runtime = cast(Runtime, broker or self.broker)
        return Scheduler(cast(Store, store or self.store), runtime, SETTINGS, name, self)

    def sleeping(self, seconds: float) -> StartedRun:
        """A run whose only activation sleeps."""
        run = StartedRun(self.store, namespace="n")
        op = CreateActivation(an_activation("0", status=ActivationStatus.SLEEPING), delay=round(seconds * 1000))
        run.commit_request(op)
        return run

    def queued(self, **fields: Any) -> StartedRun:
        """A run whose only activation is in the queue."""
        return StartedRun(self.store, an_activation("0", **fields), namespace="n", redelivery_delay=30_000)

    def told(self, run: StartedRun) -> int:
        """How often workers were told of the run."""
        return self.broker.told.count((run.id, "0"))


@pytest.fixture
def world() -> World:
    return World()


def test_a_timer_that_falls_due_among_many_does_not_wait_for_them(world: World) -> None:
    """Of 3,000 of one moment, and of one that comes after them, the one is told in the next round."""
    many = [world.sleeping(10) for _ in range(3_000)]
    late = world.sleeping(10.5)
    scheduler = world.scheduler()
    world.clock.advance(10)
    assert scheduler.tick().is_full
    assert world.told(late) == 0
    world.clock.advance(1)
    scheduler.tick()
    assert world.told(late) == 1
    rounds = 2
    while scheduler.tick().is_full:
        rounds += 1
    assert all(world.told(run) == 1 for run in many)
    assert rounds <= len(many) // BATCH + 2


def test_a_backlog_of_messages_does_not_hold_up_timers(world: World) -> None:
    """10 batches of queued steps are looked at, in a queue that is long; a sleep is over among them."""
    for _ in range(10 * BATCH):
        world.queued()
    world.clock.advance(29.5)
    sleep = world.sleeping(1)
    world.short = False
    world.clock.advance(1)
    world.scheduler().tick()
    assert world.told(sleep) == 1


def test_leases_that_are_not_trusted_yet_do_not_hold_up_timers(world: World) -> None:
    """After a gap in the sweeps every lease is over; nothing is taken from anybody, and sleeps are over in time."""
    runs = [world.queued() for _ in range(2 * BATCH)]
    scheduler = world.scheduler()
    scheduler.tick()
    for run in runs:
        run.claim("0", lease=30_000)
    sleep = world.sleeping(1)
    world.clock.advance(100)
    report = scheduler.tick()
    assert (world.told(sleep), report.expired, report.is_full) == (1, 0, False)


@pytest.mark.parametrize("lane", ["moments", "outbox"])
def test_a_message_that_cannot_be_sent_costs_nobody_else_anything(
    world: World, lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    """60 runs of an unknown queue: all others are told in the same round, and these again after a redelivery delay."""
    make: Callable[[], StartedRun] = (lambda: world.sleeping(30)) if lane == "moments" else world.queued
    bad, good = [make() for _ in range(60)], [make() for _ in range(60)]
    ids = {run.id for run in bad}
    world.broker.fault = lambda run_id, path: UNKNOWN_QUEUE if run_id in ids else None
    world.clock.advance(30)
    with caplog.at_level(logging.WARNING, "orchestrator"):
        report = world.scheduler().tick()
    assert (report.republished, report.unsent, report.failure) == (60, 60, None)
    assert all(world.told(run) == 1 for run in good)
    assert all(bad[0].id not in record.message or "no such queue" in record.message for record in caplog.records)
    assert sum("no such queue" in record.message for record in caplog.records) == 60
    world.broker.fault = lambda run_id, path: None
    world.clock.advance(29)
    world.scheduler().tick()
    assert not any(world.told(run) for run in bad)
    world.clock.advance(2)
    world.scheduler().tick()
    assert all(world.told(run) == 1 for run in bad)


@pytest.mark.parametrize("seconds", [1, 10, 45, 600, 7200])
def test_an_outage_of_any_length_costs_two_ticks(world: World, seconds: int) -> None:
    """Sleeps that end in it, messages that were lost before it, and copies are told within two ticks of its end."""
    runs = [world.sleeping(5), world.sleeping(40), world.queued(), world.queued(sends=3), world.queued(looks=9)]
    runs += [world.sleeping(0.1) for _ in range(30)]
    scheduler = world.scheduler()
    scheduler.tick()
    world.broker.fault, world.short = lambda run_id, path: AWAY, None
    for _ in range(seconds):
        world.clock.advance(1)
        scheduler.tick()
    world.broker.fault, world.short = lambda run_id, path: None, True
    due = {run.id for run in runs if run.activation("0").deadline <= world.clock.now() + 1_000}
    for _ in range(2):
        world.clock.advance(1)
        while scheduler.tick().is_full:
            pass
    assert [world.told(run) for run in runs if run.id in due] == [1] * len(due)
    assert len(due) >= (35 if seconds > 45 else 31 if seconds > 1 else 30)


def test_what_could_never_be_sent_does_not_wait_for_a_short_queue(world: World) -> None:
    """The queue is long, but no message of this one is in it."""
    run = world.sleeping(1)
    world.broker.fault, world.short = lambda run_id, path: AWAY, False
    scheduler = world.scheduler()
    world.clock.advance(1)
    scheduler.tick()
    world.broker.fault = lambda run_id, path: None
    world.clock.advance(1)
    scheduler.tick()
    assert world.told(run) == 1
    assert (run.activation("0").sends, run.activation("0").status) == (1, "queued")


def test_in_an_outage_single_messages_are_tried(world: World) -> None:
    """A thousand entries are not moved to and fro in each tick."""
    for _ in range(1_000):
        world.sleeping(1)
    world.broker.fault = lambda run_id, path: AWAY
    scheduler = world.scheduler()
    world.clock.advance(1)
    scheduler.tick()
    before = world.broker.tried
    for _ in range(10):
        world.clock.advance(1)
        scheduler.tick()
    assert world.broker.tried - before == 10


def test_the_next_timers_are_committed_while_messages_are_sent(world: World) -> None:
    """The first lot is being sent and the second one is being committed at the same time."""
    runs, both = [world.sleeping(1) for _ in range(2 * LOT)], threading.Barrier(2, timeout=10)

    class Counting:
        commits = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        def commit_many(self, changes: Any) -> Any:
            self.commits += 1
            if self.commits == 2:
                both.wait()
            return world.store.commit_many(changes)

    class Slow(Broker):
        def publish_many(self, told: Any) -> Any:
            if not self.told:
                both.wait()
            return super().publish_many(told)

    broker = Slow()
    world.clock.advance(1)
    assert world.scheduler(broker=broker, store=Counting()).tick().republished == 2 * LOT
    assert [broker.told.count((run.id, "0")) for run in runs] == [1] * len(runs)


@pytest.mark.parametrize("goes_after", [0, 1, LOT, LOT + 20])
def test_a_broker_that_goes_in_the_middle_of_many_costs_nothing(world: World, goes_after: int) -> None:
    """What was committed and could not be sent any more is put back, and each is sent once when the broker is back."""
    runs = [world.sleeping(1) for _ in range(3 * LOT)]
    world.broker.fault = lambda run_id, path: AWAY if len(world.broker.told) >= goes_after else None
    scheduler = world.scheduler()
    world.clock.advance(1)
    report = scheduler.tick()
    assert (report.republished, report.failure) == (goes_after, AWAY)
    assert len(world.broker.told) == goes_after
    world.broker.fault = lambda run_id, path: None
    for _ in range(2):
        world.clock.advance(1)
        while scheduler.tick().is_full:
            pass
    assert [world.told(run) for run in runs] == [1] * len(runs)


@pytest.mark.parametrize("count", [10, 2 * LOT])
def test_what_was_committed_and_never_sent_falls_due_again(world: World, count: int) -> None:
    """The process dies between the two, here by an error that nobody knows."""
    runs = [world.sleeping(1) for _ in range(count)]

    def fail(run_id: str, path: str) -> BrokerUnavailable | None:
        raise RuntimeError("on purpose")

    world.broker.fault = fail
    world.clock.advance(1)
    with pytest.raises(RuntimeError, match="on purpose"):
        world.scheduler().tick()
    world.broker.fault = lambda run_id, path: None
    world.clock.advance(31)
    scheduler = world.scheduler()
    while scheduler.tick().is_full:
        pass
    assert [world.told(run) for run in runs] == [1] * len(runs)


def test_who_can_send_nothing_lets_another_sweep(world: World) -> None:
    """A host that is cut off from the broker keeps the right to sweep for no longer than one round."""
    cut_off = Broker(fault=lambda run_id, path: AWAY)
    here, there = world.scheduler("a", cut_off), world.scheduler("b")
    runs = [world.sleeping(1) for _ in range(5)]
    here.tick()
    world.clock.advance(1)
    assert here.tick().is_in_vain
    world.clock.advance(1)
    there.tick()
    assert [world.told(run) for run in runs] == [1] * 5
    world.clock.advance(1)
    here.tick()
    assert here.tick().due == 0  # the other has the right, and keeps it


def test_who_sends_something_keeps_the_right(world: World) -> None:
    """One bad message is no reason to let another try."""
    bad = world.sleeping(1)
    world.sleeping(1)
    world.broker.fault = lambda run_id, path: UNKNOWN_QUEUE if run_id == bad.id else None
    here, there = world.scheduler("a"), world.scheduler("b")
    here.tick()
    world.clock.advance(1)
    assert not here.tick().is_in_vain
    assert world.store.acquire_sweep("n", "b", 1000, 7500) is None
    assert there.tick().due == 0


class Damaged:
    """A store in which these runs cannot be read."""

    def __init__(self, store: MemoryStore, runs: Iterable[str]) -> None:
        self._store = store
        self._runs = set(runs)
        self.aside: list[tuple[str, str, str, int]] = []

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        self.aside.append((run_id, path, namespace, delay))
        self._store.set_aside(run_id, path, namespace, delay)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def due_timers(self, namespace: str, limit: int = 100, *, newest: bool = False) -> list[DueTimer]:
        return [
            DueTimer(RunHeader(run_id=one.header.run_id), Activation(path=one.activation.path), "ValueError: no JSON")
            if one.header.run_id in self._runs
            else one
            for one in self._store.due_timers(namespace, limit, newest=newest)
        ]


def test_what_cannot_be_read_is_set_aside_and_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, the log names it, and it is looked at again after a while."""
    poison, runs = world.sleeping(1), [world.sleeping(1) for _ in range(3)]
    damaged = Damaged(world.store, [poison.id])
    scheduler = world.scheduler(store=damaged)
    world.clock.advance(1)
    with caplog.at_level(logging.ERROR, "orchestrator"):
        report = scheduler.tick()
    assert (report.unreadable, report.republished) == (1, 3)
    assert [world.told(run) for run in runs] == [1, 1, 1]
    (record,) = caplog.records
    assert record.message.startswith("1 timer(s) cannot be read and are set aside for 30 s: ")
    assert f"run {poison.id!r}, step 0 (ValueError: no JSON)" in record.message
    assert damaged.aside == [(poison.id, "0", "n", 30_000)]
    world.clock.advance(1)
    assert scheduler.tick().unreadable == 0
    world.clock.advance(30)
    assert scheduler.tick().unreadable == 1


@pytest.mark.parametrize("error", [ValueError("no number"), KeyError("status"), StoreUnavailable("script error")])
def test_what_cannot_be_committed_is_set_aside(
    world: World, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with one entry, the others are moved on."""
    poison, runs = world.sleeping(1), [world.sleeping(1) for _ in range(3)]

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        def commit(self, run_id: str, change: Any) -> Any:
            if run_id == poison.id:
                raise error
            return world.store.commit(run_id, change)

        def commit_many(self, changes: Any) -> Any:
            return [self.commit(*change) for change in changes]

    world.clock.advance(1)
    with caplog.at_level(logging.ERROR, "orchestrator"):
        world.scheduler(store=Refusing()).tick()
    assert [world.told(run) for run in runs] == [1, 1, 1]
    assert world.store.due_timers("n") == []
    (record,) = caplog.records
    assert record.message == f"run {poison.id!r}, step s0 cannot be swept, and is looked at again in 30 s"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_queue_whose_length_raises_is_no_reason_to_stop(world: World) -> None:
    """A route that is no JSON, for one."""
    poison, run = world.queued(route="[1"), world.queued()

    def state_of(header: RunHeader, dispatch: Dispatch) -> QueueState:
        if header.run_id == poison.id:
            raise ValueError("no JSON")
        return SHORT

    world.clock.advance(30)
    world.state_of = state_of  # type: ignore[method-assign]
    world.scheduler().tick()
    assert (world.told(run), world.told(poison)) == (1, 0)


def test_a_store_that_is_away_ends_the_round(world: World) -> None:
    """It is not taken for the fault of the entries one by one."""
    for _ in range(50):
        world.sleeping(1)
    world.clock.advance(1)
    down = world.store
    for verb in ("commit", "commit_many", "set_aside"):
        down = FailingStore(down, verb, times=None)
    with pytest.raises(StoreUnavailable):
        world.scheduler(store=down).tick()
    world.clock.advance(1)
    world.scheduler().tick()
    assert len(world.broker.told) == 50


def test_a_long_queue_is_looked_through_ever_more_rarely(world: World) -> None:
    """And a message that was lost in it is sent soon after it has become short."""
    run = world.queued()
    world.short = False
    scheduler = world.scheduler()
    looks = 0
    for _ in range(1_200):
        world.clock.advance(1)
        looks += scheduler.tick().due
    assert looks <= 8  # 40 without it
    assert world.told(run) == 0
    world.short = True
    for _ in range(241):
        world.clock.advance(1)
        scheduler.tick()
    assert world.told(run) == 1
    assert replace(run.activation("0"), deadline=0).looks == 0


def test_rounds_are_added_up() -> None:
    """By those who make several: whether more is due, and whether the broker is away, is the last one's to say."""
    first = SweepReport(due=1, republished=2, expired=3, unsent=4, unreadable=5, is_full=True)
    later = SweepReport(due=10, republished=20, expired=30, unsent=40, unreadable=50, failure=AWAY)
    assert first.plus(later) == SweepReport(11, 22, 33, 44, 55, False, AWAY)
    assert later.plus(first) == SweepReport(11, 22, 33, 44, 55, True, None)


@pytest.mark.parametrize(
    "report, is_in_vain",
    [
        (SweepReport(), False),
        (SweepReport(due=3), False),
        (SweepReport(failure=AWAY), True),
        (SweepReport(failure=AWAY, republished=1), False),
        (SweepReport(unsent=1), True),
        (SweepReport(unsent=1, republished=1), False),
        (SweepReport(unsent=1, is_full=True), False),
    ],
)
def test_a_round_is_in_vain_that_sends_nothing_of_what_it_should(report: SweepReport, is_in_vain: bool) -> None:
    """While more is due, there may be something that can be sent."""
    assert report.is_in_vain is is_in_vain


def test_a_queue_that_is_never_short_hides_a_lost_message_no_longer_than_it_takes_to_work_it_off(world: World) -> None:
    """What waits there was sent ten minutes ago at most: a message that is older is lost, and is sent again once."""
    run = world.queued()
    world.short, world.worked_off = False, 600_000
    scheduler = world.scheduler()
    for _ in range(599):
        world.clock.advance(1)
        scheduler.tick()
    assert world.told(run) == 0
    for _ in range(600):
        world.clock.advance(1)
        scheduler.tick()
    assert world.told(run) == 1
