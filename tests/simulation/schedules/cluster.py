"""The processes of a schedule, with the store and the broker as they see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Any

from celery.exceptions import TimeLimitExceeded

from orchestrator.definitions import Workflow
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.abandoned import Delivery, fail_by_limit, give_back
from orchestrator.engine.calling import ProcessSigns
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.executor import Executor
from orchestrator.engine.idempotency import idempotency_key
from orchestrator.engine.lease import LeaseKeeper
from orchestrator.engine.registry import Registry
from orchestrator.engine.scheduler import Scheduler
from orchestrator.engine.services import Services
from orchestrator.engine.settings import BROKER_AWAY, Settings
from orchestrator.errors import BrokerUnavailable, StoreUnavailable
from orchestrator.host import delivery_mark
from orchestrator.rules.attempt_commands import is_claim_of
from orchestrator.rules.change import Claimed, Dispatch
from orchestrator.rules.model import RunHeader
from orchestrator.stores.memory import MemoryStore
from tests.simulation.schedules import faults
from tests.simulation.schedules.faults import Faults
from tests.simulation.schedules.hub import EPOCH, Actor, Hub, HubClock, Killed

SETTINGS = {
    away: Settings(lease_seconds=6.0, tick_seconds=1.0, republish_seconds=4.0, broker_away=away) for away in BROKER_AWAY
}

# What a connection may lose the answer of, and what a client may send again by itself.
WRITES = frozenset(
    {"create", "claim", "commit", "commit_many", "renew", "set_aside", "acquire_sweep", "heartbeat", "delete"}
)
_AWAY = ("store away", "store gone", "broker away", "backend away")
_ANYWHERE = ("kill", "kill child", "stall", "delay", *_AWAY, "clock back", "clock on")
INSTANT = frozenset({"now", "workers"})  # not worth a turn of others


@dataclass(frozen=True, slots=True)
class Message:
    """A message on the broker."""

    id: str
    run_id: str
    path: str
    seq: int


class Cluster:
    """One store, one broker, one result backend, and processes that live and die."""

    def __init__(self, hub: Hub, strikes: Faults, workflow: Workflow, settings: Settings) -> None:
        self.hub, self.faults, self.workflow, self.settings = hub, strikes, workflow, settings
        self.clock = HubClock(hub)
        self.store = MemoryStore(self.clock)
        self.processes: list[Process] = []
        self.messages: list[Message] = []
        self.idle: list[Actor] = []
        self.store_back = self.broker_back = self.backend_back = 0  # the moments from which they are there
        self.gone_until = 0  # the moment from which the store may be away again
        self.is_calm = False  # no fault strikes any more
        self.results: dict[str, tuple[str, Any]] = {}  # in the result backend: by the run's id, its status and result
        self.begun: Counter[str] = Counter()  # calls of steps, by their idempotency keys
        self.losses: Counter[str] = Counter()  # the same, of those whose worker a fault has hit
        self.limits = 0  # processes that have run into a time limit: their last claims are given back
        self.hits: Counter[str] = Counter()  # claims whose holder a fault has hit, by the same keys
        self.story: list[str] = []
        self._numbers = 0

    def note(self, text: str) -> None:
        """Add a line to the story of this schedule."""
        self.story.append(f"{(self.hub.now - EPOCH) / 1000:8.3f}  {text}")

    def number(self) -> int:
        """Return a number that does not come back."""
        self._numbers += 1
        return self._numbers

    def strike(self, *kinds: str) -> str:
        """Return the fault that strikes here, if one does."""
        return "" if self.is_calm else self.faults.strike(*kinds)

    # --- the broker --------------------------------------------------------------------------------------------------

    def put(self, run_id: str, dispatch: Dispatch) -> None:
        """Give a message to whoever is free."""
        self.messages.append(Message(f"m{self.number()}", run_id, dispatch.path, dispatch.seq))
        for actor in self.idle:
            self.hub.wake(actor)
        self.idle.clear()

    def take(self) -> Message:
        """Wait for a message: any of those that are there, for nothing says that they keep their order."""
        while not self.messages:  # who wakes late finds that others were faster
            self.idle.append(self.hub.current)
            self.hub.pause(inf)
        return self.messages.pop(int(self.hub.die.random() * len(self.messages)))

    # --- processes ---------------------------------------------------------------------------------------------------

    def add_worker(self) -> Worker:
        """Start a process that takes messages."""
        return Worker(self, f"worker {self.number()}")

    def deliveries(self) -> list[Delivery]:
        """Return the messages that are being worked on anywhere."""
        return [delivery for process in self.processes for delivery in process.deliveries.values()]

    def charge(self, deliveries: Iterable[Delivery], *, begun_only: bool = False) -> None:
        """Note which steps run once more, because a fault has hit who had claimed them by these deliveries."""
        for delivery in deliveries:
            header, mark = self.store.header(delivery.run_id), delivery_mark(delivery.id)
            for one in self.store.load(delivery.run_id) if header else ():
                if is_claim_of(one, mark) and header is not None:
                    key = idempotency_key(header, one)
                    self.hits[key] += 1
                    self.losses[key] += not begun_only or self.begun[key] > 0


class Process:
    """One process: an engine on the cluster's store and broker. Its actors have their turns at each call of those."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.is_alive = True
        self.is_doomed = False  # it dies within moments, and what it had claimed has been given back
        self.actors: list[Actor] = []
        self.deliveries: dict[Actor, Delivery] = {}
        store: Any = ProcessStore(self)
        registry = Registry()
        registry.add(cluster.workflow)
        signs = ProcessSigns(lambda error: None if self.is_alive else Killed())
        settings = cluster.settings
        services = Services(store, settings, cluster.clock, Contexts(settings), self, signs)
        self.executor = Executor(services, registry, SimulatedRuntime(self))
        self.executor.keeper = self.keeper = Keeper(self, store, settings)
        cluster.processes.append(self)

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Add an actor to this process."""
        self.actors.append(self.cluster.hub.spawn(f"{self.name}, {name}", work))

    def replace(self) -> Process:
        """Start another process in the place of this one, which has died."""
        return self.cluster.add_worker()

    def die(self, *, is_seen: bool) -> None:
        """Die here and now. Where that `is_seen`, what this process had claimed is given back at once."""
        cluster, hub = self.cluster, self.cluster.hub
        cluster.note(f"{self.name} dies" + (", which is seen" if is_seen else ""))
        self.is_alive = False
        cluster.processes.remove(self)
        cluster.charge(self.deliveries.values(), begun_only=True)
        heir = self.replace()
        for delivery in self.deliveries.values() if is_seen else ():
            heir.spawn("parent", lambda delivery=delivery: give_back(heir.executor, delivery))
        hub.bury(self.actors)

    def at(self, *kinds: str) -> str:
        """Let others have their turns here, and perhaps a fault strike; returns which, if it is one of `kinds`."""
        cluster, hub = self.cluster, self.cluster.hub
        if not self.is_alive:
            raise Killed
        # Those that strike here alone have a chance of their own: there are few places for each.
        kind = (kinds and cluster.strike(*kinds)) or cluster.strike(*_ANYWHERE)
        if kind:
            cluster.note(f"! {kind}, at {self.name}")
        match kind:
            case "kill" | "kill child":
                self.die(is_seen=kind == "kill child")
            case "stall":
                cluster.charge(self.deliveries.values())
                hub.stall(self.actors, cluster.faults.seconds(faults.STALL))
            case "delay":
                hub.pause(cluster.faults.seconds(faults.DELAY))
            case "store away" if hub.now > cluster.gone_until:
                cluster.store_back = hub.now + round(1000 * cluster.faults.seconds(faults.STORE_AWAY))
            case "store gone" if hub.now > cluster.store_back + faults.APART:
                cluster.store_back = hub.now + round(1000 * cluster.faults.seconds(faults.STORE_GONE))
                cluster.gone_until = cluster.store_back + faults.APART
            case "broker away":
                cluster.broker_back = hub.now + round(1000 * cluster.faults.seconds(faults.BROKER_AWAY))
            case "backend away":
                cluster.backend_back = hub.now + round(1000 * cluster.faults.seconds(faults.BACKEND_AWAY))
            case "clock back":
                cluster.clock.skew -= round(1000 * cluster.faults.seconds(faults.BACK))
            case "clock on":
                cluster.charge(cluster.deliveries())
                cluster.clock.skew += round(1000 * cluster.faults.seconds(faults.ON))
            case _:
                pass
        hub.pause()
        return kind if kind in kinds else ""

    def outruns_limit(self) -> None:
        """Run into a hard time limit: the process around this one ends the step, while this one has moments to live."""
        delivery, self.is_doomed = self.deliveries[self.cluster.hub.current], True
        self.cluster.charge(self.deliveries.values())
        self.cluster.limits += 1
        parent = Process(self.cluster, f"parent of {self.name}")
        error = TimeLimitExceeded(1)
        parent.spawn("settle", lambda: fail_by_limit(parent.executor, delivery, error))
        parent.spawn("executioner", self._be_executed)

    def _be_executed(self) -> None:
        self.cluster.hub.pause(self.cluster.faults.seconds(faults.LAST_MOMENTS))
        if self.is_alive:
            self.die(is_seen=False)


class Worker(Process):
    """A process with two that take messages, and a scheduler."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster, name)
        self._scheduler = Scheduler(self.executor.store, self.executor.runtime, cluster.settings, name)
        self.spawn("first", self.consume)
        self.spawn("second", self.consume)
        self.spawn("scheduler", self.sweep)

    def consume(self) -> None:
        """Take messages, one after the other."""
        cluster, me = self.cluster, self.cluster.hub.current
        while True:
            message = cluster.take()
            delivery = Delivery(message.run_id, message.path, message.id)
            self.deliveries[me] = delivery
            try:
                self.executor.execute(message.run_id, message.path, message.seq, delivery=message.id)
            except StoreUnavailable as error:
                cluster.note(f"{self.name} leaves {message.path!r}: {error}")
            del self.deliveries[me]

    def sweep(self) -> None:
        """Look after timers."""
        while True:
            is_full = False
            with suppress(StoreUnavailable):
                is_full = self._scheduler.tick().is_full
            self.cluster.hub.pause(0.0 if is_full else self.cluster.settings.tick_seconds)


class Keeper(LeaseKeeper):
    """The keeper of a process, which an actor beats instead of a thread. It starts with the first claim."""

    def __init__(self, process: Process, store: Any, settings: Settings) -> None:
        super().__init__(store, settings, lambda claimed, error: None, starts_thread=False)
        self._process = process
        self._has_begun = False

    @contextmanager
    def keep_alive(self, claimed: Claimed) -> Iterator[AbortSignal]:
        if not self._has_begun:
            self._has_begun = True
            self._process.spawn("keeper", self._beat_for_ever)
        with super().keep_alive(claimed) as signal:
            yield signal

    def _beat_for_ever(self) -> None:
        while True:
            self._process.cluster.hub.pause(self.beat())


class ProcessStore:
    """The store as one process sees it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.cluster.store

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._store, verb)
        if verb in INSTANT:
            return call
        made = self._make(call, verb)
        setattr(self, verb, made)
        return made

    def _make(self, call: Callable[..., Any], verb: str) -> Callable[..., Any]:
        process, cluster = self._process, self._process.cluster
        kinds = ("lost answer", "resent") if verb in WRITES else ()

        def call_through(*args: Any, **kwargs: Any) -> Any:
            fault = process.at(*kinds)
            self._be_there()
            answer = call(*args, **kwargs)
            process.at()
            if fault == "lost answer":
                raise StoreUnavailable("the answer was lost (on purpose)")
            if fault == "resent":
                cluster.hub.pause(cluster.faults.seconds((0.0, 0.5)))
                process.at()
                self._be_there()
                answer = call(*args, **kwargs)
            return answer

        return call_through

    def _be_there(self) -> None:
        cluster = self._process.cluster
        if cluster.hub.now < cluster.store_back:
            raise StoreUnavailable("the store is away (on purpose)")


class SimulatedRuntime:
    """The evented runtime on the cluster's broker, with its result backend."""

    name = "celery"
    is_shared = True
    keeps_results = True
    tasks = None  # nothing is known here of Celery's tasks

    def __init__(self, process: Process) -> None:
        self._process = process
        self._cluster = process.cluster

    def publish(self, header: RunHeader, dispatches: Sequence[Dispatch], *, goes_on: bool = False) -> None:
        """Send messages; one of later waits in this process, and dies with it."""
        for dispatch in dispatches:
            if not dispatch.delay:
                self._send(header, dispatch)
            elif dispatch.delay <= 2000:
                self._process.spawn("timer", lambda dispatch=dispatch: self._send_later(header, dispatch))

    def publish_many(self, told: Sequence[tuple[RunHeader, Sequence[Dispatch]]]) -> list[BrokerUnavailable | None]:
        """Send messages of many runs."""
        errors: list[BrokerUnavailable | None] = []
        for header, dispatches in told:
            try:
                self.publish(header, dispatches)
                errors.append(None)
            except BrokerUnavailable as error:
                errors.append(error)
        return errors

    def _send(self, header: RunHeader, dispatch: Dispatch) -> None:
        cluster = self._cluster
        fault = self._process.at("unsure", "refused", "lost", "repeated")
        if fault == "refused":
            raise BrokerUnavailable("the broker takes this message not (on purpose)", is_refused=True)
        if cluster.hub.now < cluster.broker_back:
            raise BrokerUnavailable("the broker is away (on purpose)")
        if fault != "lost":
            cluster.put(header.run_id, dispatch)
        if fault == "repeated":
            cluster.put(header.run_id, dispatch)
        if fault == "unsure":
            raise BrokerUnavailable("the broker's answer was lost (on purpose)")

    def _send_later(self, header: RunHeader, dispatch: Dispatch) -> None:
        self._cluster.hub.pause(dispatch.delay / 1000)
        with suppress(BrokerUnavailable):
            self.publish(header, [Dispatch(dispatch.path, dispatch.seq, dispatch.route)])

    def deliver(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Write the result over whatever is there. As in a real backend, what was read may be old by then."""
        made = (header.status, result())
        with self._at_backend():
            self._cluster.results[header.run_id] = made

    def discard_result(self, run_id: str) -> None:
        """Forget the result."""
        with self._at_backend():
            self._cluster.results.pop(run_id, None)

    @contextmanager
    def _at_backend(self) -> Iterator[None]:
        fault = self._process.at("unwritten", "unsure")
        if fault == "unwritten" or self._cluster.hub.now < self._cluster.backend_back:
            raise ConnectionError("the result backend is away (on purpose)")
        yield
        self._process.at()
        if fault == "unsure":
            raise ConnectionError("the result backend's answer was lost (on purpose)")

    def on_progress(self, header: RunHeader) -> None:
        """Show nothing."""

    def on_end(self, header: RunHeader, result: Callable[[], Any], error: Callable[[], BaseException | None]) -> None:
        """Show nothing."""

    def wake(self, run_id: str) -> None:
        """Do nothing: workers learn by their renewals."""
