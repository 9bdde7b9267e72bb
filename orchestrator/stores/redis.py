"""The Redis store: a commit is one script on the server, a claim another.

The scripts (`scripts/*.lua`) read a change as `rules.apply` does; a test compares the two on generated histories. A
failover takes runs back by up to a second: their steps run again, and changes accepted in that second are gone. Needs
Redis 6.2 or later.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from orchestrator.host import monotonic
from orchestrator.ports import DueTimer, LeaseRef, RunQuery, StalePage, StoredEvent
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Refused
from orchestrator.rules.model import AWAITING, Activation, RunHeader, parse_path
from orchestrator.rules.timers import SweepGrant
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.common import is_upkeep, list_header, matches, read_header
from orchestrator.stores.redis_connections import Call, RedisConnections
from orchestrator.stores.redis_keys import Layout, awaiting_ranges, index_prefix, mail_range
from orchestrator.stores.redis_streams import StreamWatch
from orchestrator.stores.redis_timers import TimerIndex

_REMEMBER_SWEEPS = 7 * 24 * 3600 * 1000  # ms; after a longer gap, there was never a sweep
_PAGE = 500  # values or headers in one command: a long one would hold up the whole server
_BATCH = 25  # changes that one script commits, for the same reason

_CURSOR = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")


class RedisStore:
    """Runs in Redis, for `redis://`, `rediss://` and `redis+socket://` URLs, and those of sentinels and clusters.

    `shards` is fixed when the store is first used; another number is refused. With `strict` a server that may evict
    keys or keeps nothing on disk is refused too, else there is a warning. `timeout` (seconds) and `retries` bound the
    time of one call while the server does not answer. The class has as many verbs as its port.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "orchestrator",
        shards: int = 16,
        strict: bool = False,
        timeout: float = 5.0,
        retries: int = 3,
    ) -> None:
        self.url = url
        self._options: dict[str, Any] = {
            "prefix": prefix,
            "shards": shards,
            "strict": strict,
            "timeout": timeout,
            "retries": retries,
        }
        if not prefix or set("{}") & set(prefix):
            raise ValueError(f"a prefix of Redis keys has no braces, which name the node of a cluster: {prefix!r}")
        self._keys = Layout(prefix, shards)
        self._connections = RedisConnections(url, self._keys, strict=strict, timeout=timeout, retries=retries)
        self._timers = TimerIndex(self._connections, self._keys)
        self._streams = StreamWatch(self._connections, self._keys)

    def with_own_connections(self) -> RedisStore:
        return RedisStore(self.url, **self._options)

    def create(self, header: RunHeader) -> RunHeader:
        keys = self._keys.run(header.run_id)
        text = self._connections.script("create", (keys.header, keys.index), (wire.dumps(header.doc()),))
        return wire.header_of(text)

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        words = (ask.run_id, ask.path, ask.seq, ask.token, ask.lease, ask.runtime, ask.sending, ask.sender)
        return wire.claimed_of(self._connections.script("claim", self._keys.run(ask.run_id).claim, words))

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        words = (run_id, *wire.change_words(change))
        return wire.committed_of(self._connections.script("commit", self._keys.run(run_id).commit, words))

    def commit_many(self, changes: Sequence[tuple[str, Change]]) -> list[Committed | Refused]:
        of_shards: dict[int, list[int]] = {}
        for place, (run_id, change) in enumerate(changes):
            if is_upkeep(change):
                of_shards.setdefault(self._keys.shard(run_id), []).append(place)
        parts = [places[at : at + _BATCH] for places in of_shards.values() for at in range(0, len(places), _BATCH)]
        texts = self._connections.calls([self._commits([changes[place] for place in places]) for places in parts])
        answers = {
            place: answer
            for places, text in zip(parts, texts, strict=True)
            for place, answer in zip(places, wire.many_committed_of(text), strict=True)
        }
        return [answers.get(place) or self.commit(*change) for place, change in enumerate(changes)]

    def _commits(self, changes: Sequence[tuple[str, Change]]) -> Call:
        keys, words = list[str](), list[str]()
        for run_id, change in changes:
            mine = (run_id, *wire.change_words(change))
            keys += self._keys.run(run_id).commit
            words += (str(len(mine)), *mine)
        return "commit_many.lua", keys, words

    def header(self, run_id: str) -> RunHeader | None:
        text = self._connections.call("GET", self._keys.run(run_id).header)
        return read_header(run_id, lambda: wire.header_of(text)) if text else None

    def load(self, run_id: str, paths: Iterable[str] | None = None) -> list[Activation]:
        key = self._keys.run(run_id).activations
        if paths is None:
            return _in_path_order(
                {path.decode(): text for path, text in self._connections.call("HGETALL", key).items()}
            )
        names = list(dict.fromkeys(paths))
        return (
            _in_path_order(dict(zip(names, self._connections.call("HMGET", key, *names), strict=True))) if names else []
        )

    def load_awaiting(
        self, run_id: str, *, below: Sequence[str] | None = None, label: str | None = None
    ) -> list[Activation]:
        keys, ranges = self._keys.run(run_id), awaiting_ranges(below, label)
        words = self._connections.script("awaiting", (keys.activations, keys.awaiting), ranges)
        found = _in_path_order({words[at].decode(): words[at + 1] for at in range(0, len(words), 2)})
        return [each for each in found if each.status in AWAITING and label in (None, each.label)]

    def values(self, run_id: str, ids: Iterable[str]) -> dict[str, str]:
        key, names = self._keys.run(run_id).values, list(dict.fromkeys(ids))
        pages = [names[at : at + _PAGE] for at in range(0, len(names), _PAGE)]
        answers = self._connections.calls([("HMGET", key, *page) for page in pages])
        return {
            name: text
            for page, texts in zip(pages, answers, strict=True)
            for name, text in wire.found_of(page, texts).items()
        }

    def state(self, run_id: str) -> dict[str, str]:
        return self._hash(self._keys.run(run_id).state)

    def context(self, run_id: str) -> dict[str, str]:
        return self._hash(self._keys.run(run_id).context)

    def _hash(self, key: str) -> dict[str, str]:
        return {name.decode(): text.decode() for name, text in self._connections.call("HGETALL", key).items()}

    def mail(self, run_id: str, name: str, limit: int = 1) -> list[str]:
        first, low, high = mail_range(name)
        found = self._connections.call("ZRANGEBYLEX", self._keys.run(run_id).mailboxes, low, high, "LIMIT", 0, limit)
        return [member[len(first) :].decode() for member in found]

    def events(self, run_id: str, after: str = "", limit: int = 500) -> list[StoredEvent]:
        keys = self._keys.run(run_id)
        first = f"({_cursor(after)}" if after else "-"
        return wire.events_of(self._connections.script("events", (keys.header, keys.events), (first, limit)))

    def wait_for_events(self, run_id: str, after: str, timeout: float, limit: int = 500) -> list[StoredEvent]:
        end = monotonic() + timeout
        # The first look needs no other connection than the last one: most readers find something at once.
        while not (found := self.events(run_id, after, limit)) and (left := end - monotonic()) > 0:
            self._streams.wait(self._keys.run(run_id).events, after, left)
        return found

    def last_event(self, run_id: str) -> str:
        found = self._connections.call("XREVRANGE", self._keys.run(run_id).events, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else ""

    def wait_until_settled(self, run_id: str, settle_count: int, timeout: float) -> RunHeader | None:
        keys, end = self._keys.run(run_id), monotonic() + timeout
        while True:
            # The last settling is read before the header: one that comes later ends the blocking read at once.
            last, text = self._connections.calls(
                [("XREVRANGE", keys.settled, "+", "-", "COUNT", 1), ("GET", keys.header)]
            )
            header = wire.header_of(text) if text else None
            left = end - monotonic()
            if header is None or header.settle_count > settle_count or left <= 0:
                return header
            self._streams.wait(keys.settled, last[0][0].decode() if last else "", left)

    def due_timers(self, namespace: str, limit: int = 100, *, newest: bool = False) -> list[DueTimer]:
        return self._timers.due(namespace, limit, newest)

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        self._timers.set_aside(run_id, path, namespace, delay)

    def renew(self, refs: Sequence[LeaseRef], lease: int) -> dict[LeaseRef, str]:
        of: dict[str, list[LeaseRef]] = {}
        for ref in refs:
            of.setdefault(ref.run_id, []).append(ref)
        answers = self._connections.calls([self._renewal(run_id, mine, lease) for run_id, mine in of.items()])
        pairs = (
            pair for mine, reasons in zip(of.values(), answers, strict=True) for pair in zip(mine, reasons, strict=True)
        )
        return {ref: reason.decode() for ref, reason in pairs if reason}

    def _renewal(self, run_id: str, refs: list[LeaseRef], lease: int) -> Call:
        keys = self._keys.run(run_id)
        words = [word for ref in refs for word in (ref.path, ref.token)]
        return "renew.lua", (keys.header, keys.activations, keys.timers), (run_id, lease, *words)

    def runs(self, query: RunQuery) -> list[RunHeader]:
        """Return one page of headers."""
        prefix, exact = index_prefix(query)
        last = query.offset + query.limit
        if not exact:
            return list(islice(self._matching(prefix, query), query.offset, last))
        low, high = f"[{prefix}0", f"({prefix};"
        found = self._connections.calls(
            [("ZREVRANGEBYLEX", key, high, low, "LIMIT", 0, last) for key in self._keys.indexes()]
        )
        return self._headers(prefix, list(islice(heapq.merge(*found, reverse=True), query.offset, last)))

    def count_runs(self, query: RunQuery) -> int:
        prefix, exact = index_prefix(query)
        if not exact:
            return sum(1 for _ in self._matching(prefix, query))
        calls = [("ZLEXCOUNT", key, f"[{prefix}0", f"({prefix};") for key in self._keys.indexes()]
        return sum(self._connections.calls(calls))

    def _matching(self, prefix: str, query: RunQuery) -> Iterator[RunHeader]:
        """Give the runs below an index prefix that match, newest first."""
        calls = [("ZREVRANGEBYLEX", key, f"({prefix};", f"[{prefix}0") for key in self._keys.indexes()]
        members = heapq.merge(*self._connections.calls(calls), reverse=True)
        while page := list(islice(members, _PAGE)):
            yield from (header for header in self._headers(prefix, page) if matches(header, query))

    def stale_runs(self, status: str, before: int, after: str = "", limit: int = 100) -> StalePage:
        prefix, _ = index_prefix(RunQuery(status=status))
        low, high = f"({prefix}{after}" if after else f"[{prefix}0", f"({prefix}{before:015d}"
        calls = [("ZRANGEBYLEX", key, low, high, "LIMIT", 0, limit) for key in self._keys.indexes()]
        members = list(islice(heapq.merge(*self._connections.calls(calls)), limit))
        found = self._headers(prefix, members)
        cursor = members[-1].decode()[len(prefix) :] if len(members) == limit else ""
        return StalePage([each for each in found if each.status == status and each.updated_at < before], cursor)

    def _headers(self, prefix: str, members: list[bytes]) -> list[RunHeader]:
        skip = len(prefix.encode()) + 16  # digits of the moment and a colon
        texts = self._connections.calls([("GET", self._keys.run(member[skip:].decode()).header) for member in members])
        runs = [member[skip:].decode() for member in members]
        return [
            list_header(run_id, lambda text=text: wire.header_of(text))  # type: ignore[misc]
            for run_id, text in zip(runs, texts, strict=True)
            if text
        ]

    def delete(
        self,
        run_id: str,
        statuses: frozenset[str] | None = None,
        *,
        created_at: int | None = None,
        before: int | None = None,
    ) -> bool:
        guards = ("" if guard is None else guard for guard in (created_at, before))
        words = (run_id, *guards, *(["*"] if statuses is None else sorted(statuses)))
        return bool(self._connections.script("delete", self._keys.run(run_id).commit, words))

    def find_stranded(self, namespace: str, ahead: int, limit: int = 100) -> list[DueTimer]:
        return self._timers.stranded(namespace, ahead, limit)

    def acquire_sweep(self, namespace: str, holder: str, lease: int, pause: int) -> SweepGrant | None:
        if self._connections.is_cluster:
            # While a node is away, no lease of its shards is renewed. That has to be a pause of all sweeps, or the
            # first one after it would take steps from workers that are alive.
            self._connections.calls([("EXISTS", self._keys.timers(shard)) for shard in range(self._keys.shards)])
        words = (holder, lease, pause, max(_REMEMBER_SWEEPS, lease))
        grant = self._connections.script("acquire_sweep", (self._keys.sweep(namespace),), words)
        return SweepGrant(*grant) if grant else None

    def heartbeat(self, namespace: str, worker: str, ttl: int) -> None:
        self._connections.script("workers", (self._keys.workers(namespace),), (ttl, worker))

    def workers(self, namespace: str) -> list[str]:
        return sorted(
            name.decode() for name in self._connections.script("workers", (self._keys.workers(namespace),), ())
        )

    def now(self) -> int:
        seconds, micros = self._connections.call("TIME", key=self._keys.format)
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        self._streams.close()
        self._connections.close()


def _in_path_order(found: Mapping[str, bytes | None]) -> list[Activation]:
    return [wire.activation_of(path, text) for path in sorted(found, key=parse_path) if (text := found[path])]


def _cursor(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise ValueError(f"{text!r} is no cursor of this store")
    return text
