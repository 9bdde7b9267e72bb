"""The memory store: everything is in this process, behind one lock.

It behaves no better than the other stores: values pass through it as text only, activations as frozen documents, and
the clock is a port.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeVar

from orchestrator.host import SystemClock, monotonic
from orchestrator.ports import Clock, DueTimer, LeaseRef, RunQuery, StalePage, StoredEvent
from orchestrator.rules.apply import UNKNOWN, Applied, apply, claim, renew
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Refused, RequestGuard
from orchestrator.rules.commands import may_delete
from orchestrator.rules.events import make_events_trimmed
from orchestrator.rules.mailbox import Mailbox
from orchestrator.rules.model import AWAITING, Activation, RunHeader, parse_path
from orchestrator.rules.replies import REQUEST_MEMORY
from orchestrator.rules.timers import (
    Lane,
    SweepGrant,
    SweepRight,
    has_timer,
    is_due,
    is_stranded,
    is_timer_live,
    lane_of,
    take_sweep_right,
)
from orchestrator.stores.common import SLACK, in_order, matches, number_of

_T = TypeVar("_T")
_FORK_PATIENCE = 5.0  # seconds that a fork waits for the lock of a store; no verb takes that long


@dataclass(slots=True)
class _Run:
    header: RunHeader
    activations: dict[str, Activation] = field(default_factory=dict)  # by path
    values: dict[str, str] = field(default_factory=dict)  # stored texts, by value id
    state: dict[str, str] = field(default_factory=dict)  # stored texts, by key
    context: dict[str, str] = field(default_factory=dict)  # the same
    events: list[StoredEvent] = field(default_factory=list)  # those that have not been dropped
    mailboxes: dict[str, list[str]] = field(default_factory=dict)  # sorted entries, by event name
    awaiting: set[str] = field(default_factory=set)  # paths of the activations with an awaiting status
    # Moments and replies, by request, in the order of the moments: those for which the header has no room any more.
    requests: dict[str, tuple[int, str]] = field(default_factory=dict)
    # Notified when there are more events. It shares the store's lock.
    has_events: threading.Condition = field(default_factory=threading.Condition)


class MemoryStore:
    """Runs in this process's memory. `clock` may be virtual."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.url = "memory://"
        self._clock = self.clock = clock or SystemClock()
        self._runs: dict[str, _Run] = {}
        self._timers: dict[tuple[str, str], int] = {}
        self._sweeps: dict[str, SweepRight] = {}
        self._workers: dict[tuple[str, str], int] = {}
        self.renew_locks()
        _forks.stores.add(self)

    def renew_locks(self) -> None:
        """Make new locks: this process is a new one, with a copy of everything."""
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        for run in self._runs.values():
            run.has_events = threading.Condition(self.lock)

    def create(self, header: RunHeader) -> RunHeader:
        with self._changed:
            stored = self._runs.get(header.run_id)
            if stored is None:
                now = self._clock.now()
                stored = _Run(
                    replace(header, created_at=now, updated_at=now), has_events=threading.Condition(self.lock)
                )
                self._runs[header.run_id] = stored
            return stored.header

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        with self._changed:
            run = self._runs.get(ask.run_id)
            activation = run.activations.get(ask.path) if run else None
            answer = claim(ask, run.header if run else None, activation, self._clock.now())
            if run is None or isinstance(answer, Refused):
                return answer if isinstance(answer, Refused) else Refused(UNKNOWN)
            self._write(run, answer)
            return self._package(run, ask.path)

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        with self._changed:
            run = self._runs.get(run_id)
            if run is None:
                return Refused(UNKNOWN)
            activations = {path: run.activations[path] for path in change.reads() if path in run.activations}
            entries = run.mailboxes.get(change.mailbox.name) if change.mailbox else None
            mailbox = Mailbox(entries[0], entries[-1]) if entries else Mailbox()
            remembered = _remembered(run, change)
            answer = apply(change, run.header, activations, mailbox, self._clock.now(), remembered)
            if isinstance(answer, Refused):
                return answer
            if not answer.repeated:
                self._write_extras(run, change, answer.posted)
                self._write(run, answer)
                _trim_to_length(run, change.max_events)
                _trim_by_age(run, change.max_event_age if answer.events else 0)
                self._changed.notify_all()
            claimed = self._package(run, answer.claimed) if answer.claimed is not None else None
            return Committed(answer.header, answer.dispatches, claimed, answer.left_out)

    def commit_many(self, changes: Sequence[tuple[str, Change]]) -> list[Committed | Refused]:
        return [self.commit(run_id, change) for run_id, change in changes]

    def header(self, run_id: str) -> RunHeader | None:
        with self._changed:
            run = self._runs.get(run_id)
            return run.header if run else None

    def load(self, run_id: str, paths: Iterable[str] | None = None) -> list[Activation]:
        def pick(run: _Run) -> list[Activation]:
            wanted = run.activations.keys() if paths is None else run.activations.keys() & set(paths)
            return _in_path_order(run, wanted)

        return self._read(run_id, pick, [])

    def load_awaiting(
        self, run_id: str, *, below: Sequence[str] | None = None, label: str | None = None
    ) -> list[Activation]:
        def pick(run: _Run) -> list[Activation]:
            places = None if below is None else tuple(f"{path}." for path in below)
            wanted = run.awaiting if places is None else {at for at in run.awaiting if f"{at}.".startswith(places)}
            found = _in_path_order(run, wanted)
            return [each for each in found if label in (None, each.label)]

        return self._read(run_id, pick, [])

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        return self._read(run_id, lambda run: {key: run.values[key] for key in ids if key in run.values}, {})

    def state(self, run_id: str) -> dict[str, str]:
        return self._read(run_id, lambda run: dict(run.state), {})

    def context(self, run_id: str) -> dict[str, str]:
        return self._read(run_id, lambda run: dict(run.context), {})

    def mail(self, run_id: str, name: str, limit: int = 1) -> list[str]:
        return self._read(run_id, lambda run: run.mailboxes.get(name, [])[:limit], [])

    def events(self, run_id: str, after: str = "", limit: int = 500) -> list[StoredEvent]:
        seen = number_of(after)
        return self._read(run_id, lambda run: _page(run, seen, limit), [])

    def wait_for_events(self, run_id: str, after: str, timeout: float, limit: int = 500) -> list[StoredEvent]:
        end, seen = monotonic() + timeout, number_of(after)
        with self.lock:
            while True:
                run = self._runs.get(run_id)
                found = _page(run, seen, limit) if run else []
                left = end - monotonic()
                if run is None or found or left <= 0:
                    return found
                run.has_events.wait(left)

    def last_event(self, run_id: str) -> str:
        return self._read(run_id, lambda run: run.events[-1].id if run.events else "", "")

    def wait_until_settled(self, run_id: str, settle_count: int, timeout: float) -> RunHeader | None:
        end = monotonic() + timeout
        with self._changed:
            while True:
                run = self._runs.get(run_id)
                if run is None or run.header.settle_count > settle_count or monotonic() >= end:
                    return run.header if run else None
                self._changed.wait(max(0.0, end - monotonic()))

    def due_timers(self, namespace: str, limit: int = 100, *, newest: bool = False) -> list[DueTimer]:
        with self._changed:
            now = self._clock.now()
            found: dict[Lane, list[DueTimer]] = {lane: [] for lane in Lane}
            for (run_id, path), moment in sorted(self._timers.items(), key=lambda item: item[1], reverse=newest):
                run = self._runs[run_id]
                activation = run.activations[path]
                lane = found[lane_of(activation)]
                if moment > now or len(lane) >= limit:
                    continue
                if not is_timer_live(run.header, activation):
                    del self._timers[run_id, path]
                elif run.header.namespace == namespace and is_due(activation, now):
                    lane.append(DueTimer(run.header, activation))
            return in_order(chain(*found.values()), newest)

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        with self._changed:
            now = self._clock.now()
            if self._timers.get((run_id, path), now + 1) <= now:
                self._timers[run_id, path] = now + delay

    def renew(self, refs: Sequence[LeaseRef], lease: int) -> dict[LeaseRef, str]:
        with self._changed:
            return {ref: reason for ref in refs if (reason := self._renew(ref, lease))}

    def _renew(self, ref: LeaseRef, lease: int) -> str:
        run = self._runs.get(ref.run_id)
        if run is None:
            return UNKNOWN
        answer = renew(run.header, run.activations.get(ref.path), ref.path, ref.token, lease, self._clock.now())
        if isinstance(answer, Refused):
            return answer.reason
        self._keep(run, answer)
        return ""

    def runs(self, query: RunQuery) -> list[RunHeader]:
        found = sorted(self._matching(query), key=_by_creation, reverse=True)
        return found[query.offset : query.offset + query.limit]

    def count_runs(self, query: RunQuery) -> int:
        return len(self._matching(query))

    def _matching(self, query: RunQuery) -> list[RunHeader]:
        with self._changed:
            return [run.header for run in self._runs.values() if matches(run.header, query)]

    def stale_runs(self, status: str, before: int, after: str = "", limit: int = 100) -> StalePage:
        moment, run_id = after.split(":", 1) if after else ("-1", "")
        behind = int(moment), run_id
        found = [
            header
            for header in sorted(self._matching(RunQuery(status=status)), key=_by_creation)
            if header.created_at < before and _by_creation(header) > behind
        ][:limit]
        cursor = "{}:{}".format(*_by_creation(found[-1])) if len(found) == limit else ""
        return StalePage([header for header in found if header.updated_at < before], cursor)

    def delete(
        self,
        run_id: str,
        statuses: frozenset[str] | None = None,
        *,
        created_at: int | None = None,
        before: int | None = None,
    ) -> bool:
        with self._changed:
            run = self._runs.get(run_id)
            if run is None or not may_delete(run.header, statuses, created_at, before):
                return False
            del self._runs[run_id]
            run.has_events.notify_all()
            for path in run.activations:
                self._timers.pop((run_id, path), None)
            return True

    def find_stranded(self, namespace: str, ahead: int, limit: int = 100) -> list[DueTimer]:
        with self._changed:
            now = self._clock.now()
            places = sorted((moment, place) for place, moment in self._timers.items() if now < moment <= now + ahead)
            read = [(self._runs[run_id], path) for _, (run_id, path) in reversed(places)]
            due = [DueTimer(run.header, run.activations[path]) for run, path in read]
            return [
                one for one in due if one.header.namespace == namespace and is_stranded(one.header, one.activation, now)
            ][:limit]

    def acquire_sweep(self, namespace: str, holder: str, lease: int, pause: int) -> SweepGrant | None:
        with self._changed:
            right = self._sweeps.get(namespace, SweepRight())
            grant, noted = take_sweep_right(right, holder, lease, pause, self._clock.now())
            if noted is not None:
                self._sweeps[namespace] = noted
            return grant

    def heartbeat(self, namespace: str, worker: str, ttl: int) -> None:
        with self._changed:
            self._workers[namespace, worker] = self._clock.now() + ttl

    def workers(self, namespace: str) -> list[str]:
        with self._changed:
            now = self._clock.now()
            return sorted(worker for (of, worker), until in self._workers.items() if of == namespace and until > now)

    def now(self) -> int:
        return self._clock.now()

    def with_own_connections(self) -> MemoryStore:
        return self

    def close(self) -> None:
        """Do nothing: a named memory store lives as long as its process."""

    def _read(self, run_id: str, pick: Callable[[_Run], _T], otherwise: _T) -> _T:
        with self._changed:
            run = self._runs.get(run_id)
            return pick(run) if run else otherwise

    def _package(self, run: _Run, path: str) -> Claimed:
        activation = run.activations[path]
        wanted = (activation.input, activation.suspend, activation.resume, *activation.needs.split())
        values = {key: run.values[key] for key in wanted if key in run.values}
        return Claimed(run.header, activation, values, dict(run.state), dict(run.context))

    def _write_extras(self, run: _Run, change: Change, posted: str) -> None:
        if change.drop_events:
            run.events.clear()
        for key in change.drop_values:
            run.values.pop(key, None)
        for key, text in change.values.items():
            run.values.setdefault(key, text)
        _patch(run.state, change.state)
        _patch(run.context, change.context)
        if change.mailbox is not None:
            mailbox = run.mailboxes.setdefault(change.mailbox.name, [])
            place = bisect_left(mailbox, posted)
            if posted and mailbox[place : place + 1] != [posted]:
                mailbox.insert(place, posted)
            place = bisect_left(mailbox, change.mailbox.pop)
            if mailbox[place : place + 1] == [change.mailbox.pop]:
                del mailbox[place]

    def _write(self, run: _Run, applied: Applied) -> None:
        run.header = applied.header
        for request_id, answer in applied.displaced.items():
            _displace(run, request_id, answer, self._clock.now())
        now, last = self._clock.now(), int(run.events[-1].id) if run.events else 0
        for number, doc in enumerate(applied.events, last + 1):
            run.events.append(StoredEvent(str(number), now, doc))
        if applied.events:
            run.has_events.notify_all()
        for activation in applied.activations.values():
            self._keep(run, activation)

    def _keep(self, run: _Run, activation: Activation) -> None:
        key = (run.header.run_id, activation.path)
        self._timers.pop(key, None)
        run.awaiting.discard(activation.path)
        if not activation.status:
            run.activations.pop(activation.path, None)
            return
        run.activations[activation.path] = activation
        if activation.status in AWAITING:
            run.awaiting.add(activation.path)
        if has_timer(run.header, activation):
            self._timers[key] = activation.deadline


class _Forks:
    """Locks the stores while the process forks: a child must not get one in the middle of a change."""

    def __init__(self) -> None:
        self.stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()
        self._locked: list[MemoryStore] = []
        os.register_at_fork(before=self.before, after_in_parent=self.parent, after_in_child=self.child)

    def before(self) -> None:
        """Acquire the lock of every store before the fork; give up after `_FORK_PATIENCE` seconds each."""
        self._locked.extend(store for store in list(self.stores) if store.lock.acquire(timeout=_FORK_PATIENCE))

    def parent(self) -> None:
        """Release the locks again."""
        locked, self._locked = self._locked, []
        for store in locked:
            store.lock.release()

    def child(self) -> None:
        """Give the stores locks of this process's own."""
        self._locked = []
        for store in list(self.stores):
            store.renew_locks()


_forks = _Forks()


def _remembered(run: _Run, change: Change) -> str | None:
    """Return what is kept beside the header as the answer to this very request."""
    found = run.requests.get(change.guard.id) if isinstance(change.guard, RequestGuard) else None
    return None if found is None else found[1]


def _displace(run: _Run, request_id: str, answer: str, now: int) -> None:
    """Keep an answer for which the header has no room any more, and forget those that nobody can ask for."""
    run.requests.pop(request_id, None)
    run.requests[request_id] = now, answer
    while (oldest := next(iter(run.requests))) and run.requests[oldest][0] <= now - REQUEST_MEMORY:
        del run.requests[oldest]


def _by_creation(header: RunHeader) -> tuple[int, str]:
    return header.created_at, header.run_id


def _in_path_order(run: _Run, paths: Iterable[str]) -> list[Activation]:
    return [run.activations[path] for path in sorted(paths, key=parse_path)]


def _page(run: _Run, seen: int, limit: int) -> list[StoredEvent]:
    first = int(run.events[0].id) if run.events else 1
    start = max(0, seen + 1 - first)
    return run.events[start : start + limit]


def _trim_to_length(run: _Run, max_events: int) -> None:
    """Drop the oldest events of a log that is too long: many now and then, for the list is copied each time."""
    if max_events and len(run.events) > max_events + SLACK:
        _drop_before(run, len(run.events) - max_events)


def _trim_by_age(run: _Run, max_event_age: int) -> None:
    """Drop the events that are older than this by the newest event, which has just been written: many now and then."""
    if max_event_age and len(run.events) > SLACK:
        young = run.events[-1].at - max_event_age
        if run.events[SLACK].at < young:
            _drop_before(run, next(place for place, event in enumerate(run.events) if event.at >= young))


def _drop_before(run: _Run, first: int) -> None:
    """Drop the events before this place, except the newest of them, which marks the gap from now on."""
    if first > 1:
        del run.events[: first - 1]
        run.events[0] = replace(run.events[0], doc=make_events_trimmed())


def _patch(stored: dict[str, str], patch: Mapping[str, str | None]) -> None:
    for key, text in patch.items():
        if text is None:
            stored.pop(key, None)
        else:
            stored[key] = text
