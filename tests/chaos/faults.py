"""The faults: each strikes a round, for so many seconds, and says what it hit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.chaos import calls
from tests.chaos.effects import count_at_work
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.servers import Outlet
from tests.chaos.setup import Setup
from tests.vendor import LocalProcess, wait_until

GRACE = 5.0  # seconds that a service manager leaves a worker to end
LATENCY = 0.15
_T = TypeVar("_T")


@dataclass(frozen=True)
class Strike:
    """A fault that was tried. It counts if `hit` (executions, connections, bytes, messages, calls) is not 0."""

    kind: str
    target: str
    begin: float
    end: float
    hit: int
    # whose executions may be repeated because of it
    pids: frozenset[int] = frozenset()


@dataclass
class Site:
    """What faults are let loose on."""

    setup: Setup
    broker: Outlet
    store: Outlet
    fleet: Fleet
    chance: random.Random
    # how long an outage lasts
    seconds: float


@dataclass(frozen=True)
class _Hit:
    count: int
    target: str
    pids: frozenset[int] = field(default_factory=frozenset)


Fault = Callable[[Site], _Hit]


def strike(kind: str, site: Site) -> Strike:
    """Let one fault strike, and return what it did."""
    begin = time.time()
    hit = FAULTS[kind](site)
    return Strike(kind, hit.target, begin, time.time(), hit.count, hit.pids)


# ------------------------------------------------------------------------------------------------------------ workers


def _busy(site: Site, *, prefork: bool | None = None) -> Worker:
    """Return a worker that is at work, if there is one that is of the pool."""
    fits = [worker for worker in site.fleet.workers if prefork is None or worker.is_prefork is prefork]
    site.chance.shuffle(fits)
    return _await_work(lambda: next((worker for worker in fits if site.fleet.count_at_work(worker)), None)) or fits[0]


def _await_work(look: Callable[[], _T | None], seconds: float = 5.0) -> _T | None:
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        time.sleep(0.01)
    return found


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _send_group(worker: Worker, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(worker.process.pid, number)


def _signal(number: int, site: Site, pids: set[int], send: Callable[[int], None]) -> int:
    """Send the signal; after a STOP wait until the lease is over, and let it go on. Returns what was at work."""
    before = count_at_work(site.setup.effects, pids)
    send(number)
    # What has begun since the look, and was cut off, counts too.
    hit = max(before, count_at_work(site.setup.effects, pids))
    if number == signal.SIGSTOP:
        time.sleep(site.setup.lease + 2)
        send(signal.SIGCONT)
    return hit


def _to_child(number: int) -> Fault:
    def fault(site: Site) -> _Hit:
        worker = _busy(site, prefork=True)
        children = worker.children()
        busy = [pid for pid in children if count_at_work(site.setup.effects, {pid})] or children
        if not busy:
            return _Hit(0, worker.process.name)
        pid = site.chance.choice(busy)
        hit = _signal(number, site, {pid}, lambda number: _send(pid, number))
        return _Hit(hit, f"{worker.process.log.name} child {pid}", frozenset({pid}))

    return fault


def _to_main(number: int, repeats: Callable[[Worker], set[int]]) -> Fault:
    """A signal to the main process; what was at work in the processes that `repeats` returns may run again."""

    def fault(site: Site) -> _Hit:
        worker = _busy(site)
        again = repeats(worker)
        hit = _signal(number, site, worker.pids(), lambda number: _send(worker.process.pid, number))
        return _Hit(hit, worker.process.log.name, frozenset(again))

    return fault


def _to_group(number: int) -> Fault:
    def fault(site: Site) -> _Hit:
        worker = _busy(site)
        pids = worker.pids()
        hit = _signal(number, site, pids, lambda number: _send_group(worker, number))
        return _Hit(hit, worker.process.log.name, frozenset(pids))

    return fault


def _rolling(stop: Callable[[Worker], None], *, new_first: bool) -> Fault:
    """A deployment of all workers, one by one: stop, KILL after the grace, start."""

    def fault(site: Site) -> _Hit:
        count, pids = 0, set[int]()
        old_ones = list(site.fleet.workers)
        for old in old_ones:
            site.fleet.retire(old)
        new_ones = [site.fleet.hire(old.kind) for old in old_ones] if new_first else []
        for new in new_ones:
            wait_until(new.is_ready, 60)
        for old in old_ones:
            pids |= old.pids()
            count += site.fleet.count_at_work(old)
            stop(old)
            with suppress(TimeoutError):
                old.process.wait_exit(GRACE)
            old.process.remove()
            if not new_first:
                site.fleet.hire(old.kind)
        return _Hit(count, "all workers", frozenset(pids))

    return fault


def _term_group(worker: Worker) -> None:
    _send_group(worker, signal.SIGTERM)


def _term_main(worker: Worker) -> None:
    _send(worker.process.pid, signal.SIGTERM)


# ------------------------------------------------------------------------------------------------------------ servers


def _at_store(fault: Callable[[Site, Outlet], int]) -> Fault:
    return lambda site: _Hit(fault(site, site.store), f"store ({site.store.kind})")


def _at_broker(fault: Callable[[Site, Outlet], int]) -> Fault:
    return lambda site: _Hit(fault(site, site.broker), f"broker ({site.broker.kind})")


def _cut(site: Site, outlet: Outlet) -> int:
    """Break all connections, and let nobody in for a while."""
    refused = outlet.wire.refused
    outlet.wire.refusing = True
    broken = outlet.wire.cut()
    time.sleep(site.seconds)
    outlet.wire.refusing = False
    return broken + outlet.wire.refused - refused


def _blink(site: Site, outlet: Outlet) -> int:
    """Break all connections once."""
    return outlet.wire.cut()


def _black_hole(site: Site, outlet: Outlet) -> int:
    """Accept everything and say nothing; then break what was promised nothing."""
    swallowed = outlet.wire.swallowed
    outlet.wire.frozen = True
    time.sleep(site.seconds)
    outlet.wire.frozen = False
    outlet.wire.cut()
    return outlet.wire.swallowed - swallowed


def _slow(site: Site, outlet: Outlet) -> int:
    turns = outlet.wire.turns
    outlet.wire.delay = LATENCY
    time.sleep(site.seconds)
    outlet.wire.delay = 0
    return outlet.wire.turns - turns


def _lose_answers(site: Site, outlet: Outlet) -> int:
    """Break connections after the request has been passed on and before its answer."""
    lost = outlet.wire.lost
    end = time.monotonic() + site.seconds
    while time.monotonic() < end:
        outlet.wire.lose_answer()
        time.sleep(0.25)
    outlet.wire.lose_none()
    time.sleep(0.25)
    return outlet.wire.lost - lost


def _kill_redis(site: Site, outlet: Outlet) -> int:
    assert outlet.redis is not None
    broken = outlet.wire.cut()
    process: LocalProcess = outlet.redis.process
    process.remove()
    time.sleep(site.seconds)
    outlet.redis.start()
    return broken


def _fill_redis(site: Site, outlet: Outlet) -> int:
    refused = outlet.set_memory(1)
    time.sleep(site.seconds)
    return outlet.set_memory(0) - refused


def _flush(site: Site, outlet: Outlet) -> int:
    """Empty the broker at a moment at which there is something in it, if one comes."""
    return _await_work(lambda: outlet.drop_messages() or None) or 0


# ------------------------------------------------------------------------------------------------------------ callers


def _kill_caller(site: Site) -> _Hit:
    """Kill a caller in the middle of a call; the supervisor brings it back."""

    def open_caller() -> str | None:
        names = list(site.fleet.callers)
        site.chance.shuffle(names)
        return next((name for name in names if _has_open_call(site.setup.calls, name)), None)

    name = _await_work(open_caller) or site.chance.choice(list(site.fleet.callers))
    process = site.fleet.callers[name]
    process.kill()
    return _Hit(int(_has_open_call(site.setup.calls, name)), name)


def _has_open_call(folder: Path, name: str) -> bool:
    made = calls.read(folder, name)
    return bool(made) and made[-1].outcome == calls.OPEN


_STOPPING = ("TERM", "QUIT", "INT", "KILL", "STOP")
_ANY_SERVER: dict[str, Callable[[Site, Outlet], int]] = {
    "cut": _cut,
    "blink": _blink,
    "black hole": _black_hole,
    "slow": _slow,
    "lost answers": _lose_answers,
}
FAULTS: dict[str, Fault] = {
    **{f"{name} to a child": _to_child(signal.Signals[f"SIG{name}"]) for name in _STOPPING},
    "QUIT to a main process": _to_main(signal.SIGQUIT, Worker.pids),
    "KILL to a main process": _to_main(signal.SIGKILL, Worker.pids),
    # Children renew their leases by themselves.
    "STOP to a main process": _to_main(signal.SIGSTOP, lambda worker: {worker.process.pid}),
    # Warm: what is at work ends.
    "TERM to a main process": _to_main(signal.SIGTERM, lambda worker: set()),
    "INT to a main process": _to_main(signal.SIGINT, lambda worker: set()),
    "HUP to a main process": _to_main(signal.SIGHUP, lambda worker: set()),
    **{f"{name} to a group": _to_group(signal.Signals[f"SIG{name}"]) for name in _STOPPING},
    "rolling restart as systemd": _rolling(_term_group, new_first=False),
    "rolling restart as supervisor": _rolling(_term_main, new_first=False),
    "rolling restart as Kubernetes": _rolling(_term_main, new_first=True),
    **{f"store: {name}": _at_store(fault) for name, fault in _ANY_SERVER.items()},
    **{f"broker: {name}": _at_broker(fault) for name, fault in _ANY_SERVER.items()},
    "store: killed": _at_store(_kill_redis),
    "store: full": _at_store(_fill_redis),
    "broker: killed": _at_broker(_kill_redis),
    "broker: flushed": _at_broker(_flush),
    "a caller killed": _kill_caller,
}
_REDIS_ONLY = {"store: killed": "store", "store: full": "store", "broker: killed": "broker"}


def kinds_for(combination: str) -> list[str]:
    """Return the faults that a combination of broker and store can have."""
    broker, store = combination.split("+")
    servers = {"broker": broker, "store": store}
    return [kind for kind in FAULTS if servers.get(_REDIS_ONLY.get(kind, ""), "redis") == "redis"]
