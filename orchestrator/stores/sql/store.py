"""The verbs of the SQL store: each reads under a run's lock, and writes the answer of `rules.apply`.

Every change locks the run's header row first, so that changes of one run exclude each other and its events get their
numbers in the order of its commits. `queries` knows how statements are written, `link` how they are carried.
"""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from orchestrator.host import monotonic
from orchestrator.ports import DueTimer, LeaseRef, RunQuery, StalePage, StoredEvent, WakeupChannel
from orchestrator.rules.apply import apply, claim, renew
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Refused
from orchestrator.rules.commands import may_delete
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.rules.timers import LANE, Lane, SweepGrant, SweepRight, is_stranded, is_timer_live, take_sweep_right
from orchestrator.stores.common import in_order, number_of
from orchestrator.stores.sql import queries as q
from orchestrator.stores.sql import rows
from orchestrator.stores.sql.batches import commit_upkeep
from orchestrator.stores.sql.link import Tx
from orchestrator.stores.sql.polling import PollingWait
from orchestrator.stores.sql.urls import hide_secrets, open_connections, parse_url

_PAGE = 200  # runs of one renewal that are locked together
_NOTIFY_SECONDS = 60.0  # seconds for which changes of a run are notified once a reader has asked
_MAX_DEAD_PAGES = 10  # pages of dead timers that one sweep clears away


class SqlStore:
    """Runs in SQLite (`sqlite:///path/to/file.db`) or PostgreSQL (`postgresql://…`), there in `schema` if one is named.

    The tables are made, or brought up to date, at first use. `url` is without the password. With a channel for
    wake-ups, processes that wait for a run are woken by those that change it.
    """

    def __init__(self, url: str, *, schema: str | None = None) -> None:
        self._address = url, schema
        parsed = parse_url(url)
        self.url = hide_secrets(parsed)
        self._connections = open_connections(parsed, self.url, schema)
        self._wakeups: WakeupChannel | None = None
        self._asked_at: dict[tuple[str, str], float] = {}
        self._sweeping: set[tuple[str, str]] = set()  # namespaces and holders that had the right when they last asked
        weakref.finalize(self, self._connections.close)

    def __repr__(self) -> str:
        return f"SqlStore({self.url!r})"

    def with_own_connections(self) -> SqlStore:
        url, schema = self._address
        return SqlStore(url, schema=schema)

    def attach_wakeups(self, channel: WakeupChannel) -> None:
        """Notify, and wait, by this channel from now on. A store that has one keeps it: it may serve several apps."""
        self._wakeups = self._wakeups or channel

    def create(self, header: RunHeader) -> RunHeader:
        run = rows.encode_name(header.run_id)

        def work(tx: Tx) -> Callable[[], RunHeader | None]:
            found = tx.send(q.HEADER, run=run)
            clock = tx.send(q.CLOCK)
            if stored := found.fetchall():
                return lambda: rows.header_of(run, stored[0][0])
            now = clock.fetchall()[0][0]
            made = replace(header, created_at=now, updated_at=now)
            tx.send(q.INSERT_RUN, run=run, namespace=rows.encode_name(made.namespace), **rows.columns(made))
            kept = tx.send(q.HEADER, run=run)
            return lambda: next((rows.header(doc) for (doc,) in kept.fetchall()), None)

        # Another's run may have stood in the way of the insert, and be deleted before it is read: then once more.
        while (stored := self._connections.change(work)) is None:
            pass
        return stored

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        run = rows.encode_name(ask.run_id)
        is_awaited = False

        def work(tx: Tx) -> Callable[[], Claimed | Refused]:
            nonlocal is_awaited
            locked = rows.lock(tx, run, [ask.path])
            answer = claim(ask, locked.header, locked.activations.get(ask.path), locked.now)
            if isinstance(answer, Refused):
                return lambda: answer
            is_awaited = rows.must_notify(locked, answer)
            rows.write(tx, run, locked, answer)
            return rows.package(
                tx, run, answer.header, answer.activations.get(ask.path) or locked.activations[ask.path]
            )

        answer = self._connections.change(work)
        self._notify(ask.run_id, is_awaited)
        return answer

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        run = rows.encode_name(run_id)
        paths = sorted(change.reads())
        is_awaited = False

        def work(tx: Tx) -> Callable[[], Committed | Refused]:
            nonlocal is_awaited
            locked = rows.lock(tx, run, paths, change)
            answer = apply(change, locked.header, locked.activations, locked.mailbox, locked.now, locked.remembered)
            if isinstance(answer, Refused):
                return lambda: answer
            is_awaited = rows.must_notify(locked, answer)
            if not answer.repeated:
                if change.drop_events:
                    locked = replace(locked, events=0)  # the numbers begin again with the log
                rows.write_extras(tx, run, change, answer.posted)
                rows.write(tx, run, locked, answer, change.max_events, change.max_event_age)
            claimed = None
            if answer.claimed is not None:
                activation = answer.activations.get(answer.claimed) or locked.activations[answer.claimed]
                of = locked.header if answer.repeated and locked.header is not None else answer.header
                claimed = rows.package(tx, run, of, activation, None if answer.repeated else change)
            return lambda: Committed(answer.header, answer.dispatches, claimed() if claimed else None, answer.left_out)

        answer = self._connections.change(work)
        self._notify(run_id, is_awaited)
        return answer

    def commit_many(self, changes: Sequence[tuple[str, Change]]) -> list[Committed | Refused]:
        answers, awaited = commit_upkeep(self._connections, changes)
        for run_id in awaited:
            self._notify(run_id, True)
        # In the order of the changes: those of a run that was left out come one after the other, too.
        return [answers.get(place) or self.commit(*change) for place, change in enumerate(changes)]

    def header(self, run_id: str) -> RunHeader | None:
        run = rows.encode_name(run_id)
        found = self._rows(q.HEADER, run=run)
        return rows.header_of(run, found[0][0]) if found else None

    def load(self, run_id: str, paths: Iterable[str] | None = None) -> list[Activation]:
        run = rows.encode_name(run_id)
        if paths is None:
            return _in_path_order(run, self._rows(q.ACTIVATIONS, run=run))
        return _in_path_order(run, self._rows(q.ACTIVATIONS_AT, run=run, paths=sorted(set(paths))))

    def load_awaiting(
        self, run_id: str, *, below: Sequence[str] | None = None, label: str | None = None
    ) -> list[Activation]:
        run = rows.encode_name(run_id)
        if label is not None:
            return _in_path_order(run, self._rows(q.AWAITING_WITH_LABEL, run=run, label=rows.encode_name(label)))
        if below is None:
            return _in_path_order(run, self._rows(q.AWAITING_ACTIVATIONS, run=run))
        return _in_path_order(run, self._rows(q.AWAITING_BELOW, run=run, paths=sorted(set(below))))

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        wanted = list(dict.fromkeys(ids))
        found = dict(self._rows(q.VALUES, run=rows.encode_name(run_id), ids=[rows.encode_name(id_) for id_ in wanted]))
        return {id_: found[key] for id_ in wanted if (key := rows.encode_name(id_)) in found}

    def state(self, run_id: str) -> dict[str, str]:
        return {rows.decode_name(key): text for key, text in self._rows(q.STATE, run=rows.encode_name(run_id))}

    def context(self, run_id: str) -> dict[str, str]:
        return {rows.decode_name(key): text for key, text in self._rows(q.CONTEXT, run=rows.encode_name(run_id))}

    def mail(self, run_id: str, name: str, limit: int = 1) -> list[str]:
        found = self._rows(q.MAIL, run=rows.encode_name(run_id), name=rows.encode_name(name), limit=limit)
        return [rows.decode_name(entry) for (entry,) in found]

    def events(self, run_id: str, after: str = "", limit: int = 500) -> list[StoredEvent]:
        found = self._rows(q.EVENTS, run=rows.encode_name(run_id), after=number_of(after), limit=limit)
        return [StoredEvent(str(number), at, json.loads(doc)) for number, at, doc in found]

    def wait_for_events(self, run_id: str, after: str, timeout: float, limit: int = 500) -> list[StoredEvent]:
        seen = number_of(after)
        waiting = PollingWait(self._wakeups, run_id, timeout, lambda: self._ask(q.FOLLOW_EVENTS, run_id))
        while True:
            found = self._rows(q.NEWEST, run=rows.encode_name(run_id))
            if not found or found[0][0] > seen or not waiting.pause():
                return self.events(run_id, after, limit)

    def last_event(self, run_id: str) -> str:
        found = self._rows(q.NEWEST, run=rows.encode_name(run_id))
        return str(found[0][0]) if found and found[0][0] else ""

    def wait_until_settled(self, run_id: str, settle_count: int, timeout: float) -> RunHeader | None:
        waiting = PollingWait(self._wakeups, run_id, timeout, lambda: self._ask(q.AWAIT_SETTLING, run_id))
        while True:
            found = self._rows(q.SETTLE_COUNT, run=rows.encode_name(run_id))
            if not found or found[0][0] > settle_count or not waiting.pause():
                return self.header(run_id)

    def _ask(self, query: str, run_id: str) -> None:
        """Make sure that changes of this run are notified for a while. The readers of a process ask once for all."""
        now, key = monotonic(), (query, run_id)
        if now - self._asked_at.get(key, -_NOTIFY_SECONDS) < _NOTIFY_SECONDS / 2:
            return
        self._asked_at = {kept: at for kept, at in self._asked_at.items() if now - at < _NOTIFY_SECONDS / 2}
        self._asked_at[key] = now

        def work(tx: Tx) -> Callable[[], None]:
            tx.send(query, run=rows.encode_name(run_id), ttl=round(_NOTIFY_SECONDS * 1000))
            return lambda: None

        self._connections.change(work)

    def _notify(self, run_id: str, is_awaited: bool) -> None:
        if is_awaited and self._wakeups is not None:
            self._wakeups.notify(run_id)

    def due_timers(self, namespace: str, limit: int = 100, *, newest: bool = False) -> list[DueTimer]:
        query, found = q.DUE_TIMERS_NEWEST if newest else q.DUE_TIMERS, list[DueTimer]()
        for _ in range(_MAX_DEAD_PAGES):
            page = self._rows(query, namespace=rows.encode_name(namespace), limit=limit)
            read = [rows.due(*row[1:]) for row in page]
            found = [timer for timer in read if timer.problem or is_timer_live(timer.header, timer.activation)]
            dead = [timer for timer in read if not (timer.problem or is_timer_live(timer.header, timer.activation))]
            if dead:
                self._drop_dead(dead)
            is_full = limit in Counter(place // LANE for place, *_ in page).values()
            if not (is_full and dead):
                break
        return in_order(found, newest)

    def _drop_dead(self, dead: Sequence[DueTimer]) -> None:
        by_run: dict[str, list[Activation]] = {}
        for timer in dead:
            by_run.setdefault(timer.header.run_id, []).append(timer.activation)

        def work(tx: Tx) -> Callable[[], None]:
            for run_id, doc in tx.send(q.LOCK_MANY, runs=sorted(map(rows.encode_name, by_run))).fetchall():
                # Read again under the lock: the run may have been reopened meanwhile, and its activations have moved.
                header = rows.header(doc)
                paths = [rows.encode_name(activation.path) for activation in by_run[header.run_id]]
                read = tx.send(q.ACTIVATIONS_AT, run=run_id, paths=paths).fetchall()
                found = [rows.activation(doc) for (doc,) in read]
                gone = [activation for activation in found if not is_timer_live(header, activation)]
                names = [rows.encode_name(activation.path) for activation in gone]
                tx.send(q.DROP_TIMERS_DUE, run=run_id, paths=names, width=LANE)
            return lambda: None

        self._connections.change(work)

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        run, place = rows.encode_name(run_id), rows.encode_name(path)

        def work(tx: Tx) -> Callable[[], None]:
            tx.send(q.SET_ASIDE, run=run, path=place, width=LANE, delay=delay)
            return lambda: None

        self._connections.change(work)

    def renew(self, refs: Sequence[LeaseRef], lease: int) -> dict[LeaseRef, str]:
        refused: dict[LeaseRef, str] = {}
        refs = list(dict.fromkeys(refs))  # PostgreSQL refuses a statement that writes one row twice
        for start in range(0, len(refs), _PAGE):
            page = refs[start : start + _PAGE]
            refused |= self._connections.change(lambda tx, page=page: self._renew(tx, page, lease))  # type: ignore[misc]
        return {ref: refused[ref] for ref in refs if ref in refused}

    @staticmethod
    def _renew(tx: Tx, page: Sequence[LeaseRef], lease: int) -> Callable[[], dict[LeaseRef, str]]:
        runs = [rows.encode_name(ref.run_id) for ref in page]
        locks = tx.send(q.LOCK_MANY, runs=sorted(set(runs)))
        found = tx.send(q.READ_PAIRS, runs=runs, paths=[rows.encode_name(ref.path) for ref in page])
        headers = {rows.decode_name(run): rows.listed_header(run, doc) for run, doc in locks.fetchall()}
        (_, _, _, now), *read = found.fetchall()
        # One that cannot be read is lost, and the others are renewed.
        activations = {(run, path): one for _, run, path, doc in read if (one := rows.readable_activation(doc))}
        reasons: dict[LeaseRef, str] = {}
        kept: dict[str, list[Activation]] = {}
        for ref, run in zip(page, runs, strict=True):
            activation = activations.get((run, rows.encode_name(ref.path)))
            answer = renew(headers.get(ref.run_id), activation, ref.path, ref.token, lease, int(now))
            if isinstance(answer, Refused):
                reasons[ref] = answer.reason
            else:
                kept.setdefault(ref.run_id, []).append(answer)
        rows.write_many(tx, [(headers[run_id], activations) for run_id, activations in kept.items()])
        return lambda: reasons

    def runs(self, query: RunQuery) -> list[RunHeader]:
        wanted = _filter(query)
        page = {"limit": query.limit, "offset": query.offset, "last": query.limit + query.offset}
        return [
            rows.listed_header(*row) for row in self._rows(q.list_runs(tuple(wanted), query.awaiting), **wanted, **page)
        ]

    def count_runs(self, query: RunQuery) -> int:
        wanted = _filter(query)
        count: int = self._rows(q.count_runs(tuple(wanted), query.awaiting), **wanted)[0][0]
        return count

    def stale_runs(self, status: str, before: int, after: str = "", limit: int = 100) -> StalePage:
        moment, run = after.split(":", 1) if after else ("-1", "")
        found = self._rows(q.STALE_RUNS, status=status, before=before, moment=int(moment), run=run, limit=limit)
        headers = [rows.listed_header(run_id, doc) for run_id, _, updated_at, doc in found if updated_at < before]
        cursor = "{1}:{0}".format(*found[-1]) if len(found) == limit else ""
        return StalePage([header for header in headers if header.status == status], cursor)

    def delete(
        self,
        run_id: str,
        statuses: frozenset[str] | None = None,
        *,
        created_at: int | None = None,
        before: int | None = None,
    ) -> bool:
        run = rows.encode_name(run_id)

        def work(tx: Tx) -> Callable[[], bool]:
            found = tx.send(q.LOCK, run=run).fetchall()
            if not found or not may_delete(rows.listed_header(run, found[0][0]), statuses, created_at, before):
                return lambda: False
            for query in q.DELETE_RUN:
                tx.write(query, run=run)
            return lambda: True

        return self._connections.change(work)

    def find_stranded(self, namespace: str, ahead: int, limit: int = 100) -> list[DueTimer]:
        space, offset = rows.encode_name(namespace), Lane.LEASES.offset
        page = self._rows(q.LEASES_AHEAD, namespace=space, ahead=ahead, limit=limit, offset=offset)
        read = [(now, rows.due(*row)) for now, *row in page]
        return [due for now, due in read if not due.problem and is_stranded(due.header, due.activation, now)]

    def acquire_sweep(self, namespace: str, holder: str, lease: int, pause: int) -> SweepGrant | None:
        space, mine = rows.encode_name(namespace), rows.encode_name(holder)
        # Nearly all that ask only look whether another still sweeps: that takes one statement, which locks nothing.
        if (space, mine) not in self._sweeping:
            for now, *seen in self._rows(q.SCHEDULER, namespace=space):
                if take_sweep_right(SweepRight(*seen), mine, lease, pause, now) == (None, None):
                    return None

        def work(tx: Tx) -> Callable[[], SweepGrant | None]:
            tx.send(q.MAKE_SCHEDULER, namespace=space)
            found = tx.send(q.LOCK_SCHEDULER, namespace=space)
            clock = tx.send(q.CLOCK)
            right = SweepRight(*found.fetchall()[0])
            grant, noted = take_sweep_right(right, mine, lease, pause, clock.fetchall()[0][0])
            if noted is not None:
                tx.send(q.TAKE_SWEEP, namespace=space, **asdict(noted))
            return lambda: grant

        granted = self._connections.change(work)
        (self._sweeping.add if granted is not None else self._sweeping.discard)((space, mine))
        return granted

    def heartbeat(self, namespace: str, worker: str, ttl: int) -> None:
        def work(tx: Tx) -> Callable[[], None]:
            space, mine = rows.encode_name(namespace), rows.encode_name(worker)
            tx.write(q.HEARTBEAT, namespace=space, worker=mine, ttl=ttl)
            tx.write(q.FORGET_WORKERS, namespace=space, worker=mine)
            return lambda: None

        self._connections.change(work)

    def workers(self, namespace: str) -> list[str]:
        return sorted(
            rows.decode_name(worker) for (worker,) in self._rows(q.WORKERS, namespace=rows.encode_name(namespace))
        )

    def now(self) -> int:
        now: int = self._rows(q.CLOCK)[0][0]
        return now

    def close(self) -> None:
        self._connections.close()

    def _rows(self, query: str, **parameters: Any) -> list[Any]:
        def work(tx: Tx) -> Callable[[], list[Any]]:
            return tx.send(query, **parameters).fetchall

        return self._connections.read(work)


def _in_path_order(run: str, found: Sequence[Any]) -> list[Activation]:
    return sorted((rows.activation_of(run, doc) for (doc,) in found), key=lambda activation: activation.at)


def _filter(query: RunQuery) -> dict[str, str]:
    """Return the columns that are given, with their values."""
    return {
        key: rows.encode_name(value)
        for key in ("workflow_id", "status", "resource_id")
        if (value := getattr(query, key)) is not None
    }
