"""Which claims a sweep takes from their holders: those of dead workers, in bounded time, and of no others.

A fleet in virtual time: workers renew each third of a lease and again soon where that failed, schedulers tick each
second, and the store goes away or its clock jumps. What is real is the store, its rules and the schedulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.engine import scheduler as scheduler_module
from orchestrator.engine.scheduler import Scheduler
from orchestrator.engine.settings import Settings
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.ports import LeaseRef
from orchestrator.rules.change import Claimed, ClaimRequest, CreateActivation, Dispatch, Refused
from orchestrator.rules.model import ActivationStatus, RunHeader
from orchestrator.stores import MemoryStore
from orchestrator.testing.contract.kit import StartedRun, an_activation

LEASE = 30.0
STEP = 0.5  # seconds of virtual time that one turn takes
DURATIONS = [LEASE * part / 12 for part in range(3, 37)]  # a quarter of a lease to three leases


class Clock:
    """The time that really passes, and what the store's clock makes of it."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.off = 1_750_000_000.0

    def now(self) -> int:
        return round((self.passed + self.off) * 1000)

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


class Away:
    """A store that is away from time to time, and that may lose an answer."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.is_away = False
        self.loses = ""  # the next answer to this verb

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.store, name)

        def answer(*args: Any, **kwargs: Any) -> Any:
            if self.is_away:
                raise StoreUnavailable("it is away")
            if self.loses == name:
                self.loses = ""
                call(*args, **kwargs)
                self.store.clock.sleep(0.016)  # then the client sends it again
            return call(*args, **kwargs)

        return answer


class Runtime:
    """Counts what is published."""

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch], *, goes_on: bool = False) -> None:
        """Nobody is there to be told."""

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        """Every message goes out, to nobody."""
        return [None for _ in told]


class Worker:
    """Holds one claim, and renews it as the keeper does: each third of a lease, and sooner after a failure."""

    def __init__(self, fleet: Fleet, path: str, phase: float, lease: float = LEASE) -> None:
        self.fleet, self.path, self.lease = fleet, path, lease
        self.next, self.lives = fleet.clock.passed + phase, True
        self.token = f"token {path}"
        ask = ClaimRequest(fleet.run.id, path, fleet.run.activation(path).seq, self.token, round(lease * 1000))
        assert isinstance(fleet.store.claim(ask), Claimed)

    def turn(self) -> None:
        if not self.lives or self.fleet.clock.passed < self.next:
            return
        try:
            self.fleet.away.renew([LeaseRef(self.fleet.run.id, self.path, self.token)], round(self.lease * 1000))
            self.next += self.lease / 3
        except StoreUnavailable:
            self.next = self.fleet.clock.passed + self.lease / 12

    @property
    def holds(self) -> bool:
        found = self.fleet.run.activation(self.path)
        return found.status == ActivationStatus.RUNNING and found.lease_token == self.token


class Fleet:
    """Workers and schedulers around one store, going on in virtual time."""

    def __init__(self, patch: pytest.MonkeyPatch, *, schedulers: int = 1, tick: float = 1.0, workers: int = 8) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.away = Away(self.store)
        patch.setattr(scheduler_module, "monotonic", lambda: self.clock.passed)
        self.settings = Settings(lease_seconds=LEASE, tick_seconds=tick, namespace="fleet")
        self.schedulers = [self.scheduler(f"s{number}") for number in range(schedulers)]
        self.ticking = list(self.schedulers)
        self.next_tick = 0.0
        activations = [an_activation(str(number)) for number in range(workers + 1)]
        self.run = StartedRun(self.store, *activations, namespace="fleet")
        self.go_on(2 * LEASE)
        # Renewals are spread evenly, so that for each outage there is one whose renewal it hits worst.
        self.workers = [Worker(self, str(number), LEASE / 3 * number / workers) for number in range(workers)]

    def scheduler(self, name: str) -> Scheduler:
        store: Any = self.away
        runtime: Any = Runtime()
        return Scheduler(store, runtime, self.settings, name)

    def turn(self) -> None:
        """Let time pass; all who are late come, the schedulers first: that is the worst."""
        self.clock.sleep(STEP)
        if self.clock.passed >= self.next_tick:
            self.next_tick = self.clock.passed + self.settings.tick_seconds
            for one in self.ticking:
                try:
                    one.tick()
                except StoreUnavailable:
                    continue
        for worker in getattr(self, "workers", ()):
            worker.turn()

    def go_on(self, seconds: float) -> None:
        end = self.clock.passed + seconds
        while self.clock.passed < end:
            self.turn()

    def be_away(self, seconds: float) -> None:
        self.away.is_away = True
        self.go_on(seconds)
        self.away.is_away = False

    def wait_until_lost(self, worker: Worker) -> float:
        """How long it takes until the claim of a dead worker is taken."""
        begin = self.clock.passed
        while worker.holds:
            self.turn()
            assert self.clock.passed - begin < 100 * LEASE, "it is never taken"
        return self.clock.passed - begin

    def all_hold(self) -> bool:
        return all(worker.holds for worker in self.workers if worker.lives)


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


@pytest.mark.parametrize("seconds", DURATIONS)
@pytest.mark.parametrize("schedulers", [1, 3])
def test_a_store_that_was_away_costs_no_living_worker_its_claim(
    patch: pytest.MonkeyPatch, seconds: float, schedulers: int
) -> None:
    """However long it was; a dead worker's claim is taken a lease after it is back, and a little for the ticks."""
    fleet = Fleet(patch, schedulers=schedulers)
    fleet.go_on(LEASE)
    dead = fleet.workers[0]
    dead.lives = False
    fleet.be_away(seconds)
    assert fleet.wait_until_lost(dead) <= LEASE + 4
    fleet.go_on(2 * LEASE)
    assert fleet.all_hold()


@pytest.mark.parametrize("seconds", DURATIONS[::3])
def test_outages_in_a_row_cost_no_living_worker_its_claim(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """With hardly the time to renew in between."""
    fleet = Fleet(patch)
    fleet.workers[0].lives = False
    for _ in range(4):
        fleet.be_away(seconds)
        fleet.go_on(LEASE / 2)
    assert fleet.wait_until_lost(fleet.workers[0]) <= LEASE + 4
    assert fleet.all_hold()


@pytest.mark.parametrize("seconds", DURATIONS[::3])
def test_another_scheduler_knows_of_the_pause_that_one_has_seen(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """The first is busy, or dies, after the sweep in which it saw it."""
    fleet = Fleet(patch, schedulers=2)
    for worker in fleet.workers:
        worker.next += LEASE / 2  # they hear late that the store is back
    fleet.be_away(seconds)
    first, second = fleet.schedulers
    first.tick()
    fleet.ticking = [second]
    fleet.go_on(3 * LEASE)
    assert fleet.all_hold()


@pytest.mark.parametrize("seconds", DURATIONS[::3])
def test_a_sweep_whose_answer_is_lost_does_not_lose_the_pause(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """It is asked again a moment later, when there seems to have been none."""
    fleet = Fleet(patch)
    fleet.be_away(seconds)
    fleet.away.loses = "acquire_sweep"
    fleet.go_on(3 * LEASE)
    assert not fleet.away.loses
    assert fleet.all_hold()


@pytest.mark.parametrize("seconds", DURATIONS[::3])
def test_a_store_that_goes_away_within_a_tick_takes_nothing_either(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """It went away after the right was given, and what was due was answered when it was back."""
    fleet = Fleet(patch)
    due_timers = fleet.store.due_timers

    def late(*args: Any, **kwargs: Any) -> Any:
        fleet.ticking = []  # it hangs in this call
        fleet.store.due_timers = due_timers  # type: ignore[method-assign]
        fleet.be_away(seconds)
        return due_timers(*args, **kwargs)

    fleet.store.due_timers = late  # type: ignore[method-assign]
    fleet.schedulers[0].tick()
    fleet.ticking = fleet.schedulers
    fleet.go_on(2 * LEASE)
    assert fleet.all_hold()


@pytest.mark.parametrize("seconds", [sign * length for length in (1, 5, 20, 29, 31, 70, 3_600) for sign in (1, -1)])
def test_a_clock_that_jumps_costs_no_living_worker_its_claim(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Whichever way; and a dead worker's claim is taken in bounded time, not in that of the jump."""
    fleet = Fleet(patch)
    dead = fleet.workers[0]
    dead.lives = False
    fleet.turn()
    fleet.clock.off += seconds
    assert fleet.wait_until_lost(dead) <= 4 * LEASE
    fleet.go_on(2 * LEASE)
    assert fleet.all_hold()


def test_a_clock_that_goes_back_leaves_the_right_to_sweep_to_nobody(patch: pytest.MonkeyPatch) -> None:
    """Its holder is dead, and its right would last for an hour."""
    fleet = Fleet(patch, schedulers=2)
    first, second = fleet.schedulers
    first.tick()
    fleet.clock.off -= 3_600
    fleet.ticking = [second]
    dead = fleet.workers[0]
    dead.lives = False
    assert fleet.wait_until_lost(dead) <= 4 * LEASE
    assert fleet.all_hold()


def test_sleeps_are_no_stranded_leases(patch: pytest.MonkeyPatch) -> None:
    """They go by the clock, wherever it goes."""
    fleet = Fleet(patch)
    fleet.run.commit_request(CreateActivation(an_activation("9", status=ActivationStatus.SLEEPING), delay=1_800_000))
    fleet.clock.off -= 3_600
    fleet.go_on(4 * LEASE)
    assert fleet.run.activation("9").status == ActivationStatus.SLEEPING


def test_each_claim_has_the_time_of_its_own_lease(patch: pytest.MonkeyPatch) -> None:
    """A worker with other settings holds it: it renews more rarely than the scheduler would."""
    fleet = Fleet(patch)
    fleet.workers.append(Worker(fleet, "8", 0.0, lease=4 * LEASE))
    fleet.workers[-1].next += LEASE
    fleet.be_away(5 * LEASE)
    fleet.go_on(5 * LEASE)
    assert fleet.all_hold()


def test_a_long_tick_is_no_pause(patch: pytest.MonkeyPatch) -> None:
    """It asks again while it is at work: else whoever is always busy would never take a claim."""
    fleet = Fleet(patch)
    publish = Runtime.publish
    patch.setattr(Runtime, "publish", lambda *args: (fleet.clock.sleep(1.5), publish(*args))[1])
    for worker in fleet.workers[:6]:
        worker.lives = False
    assert max(fleet.wait_until_lost(worker) for worker in fleet.workers[:6]) <= 2 * LEASE


def test_a_copy_of_a_message_takes_no_claim_either(patch: pytest.MonkeyPatch) -> None:
    """It may be the first to come when the store is back."""
    fleet = Fleet(patch)
    fleet.be_away(2 * LEASE)
    found = fleet.run.activation("0")
    assert isinstance(fleet.store.claim(ClaimRequest(fleet.run.id, "0", found.seq, "another", 30_000)), Refused)
    fleet.go_on(LEASE)
    assert fleet.all_hold()
