"""The Redis store: a commit is one script on the server, a claim another. The only file that imports the Redis client.

The scripts (`scripts/*.lua`) read a change as `rules.apply` does; a test compares the two on generated histories. A
failover takes runs back by up to a second: their steps run again, and changes accepted in that second are gone. Needs
Redis 6.2 or later.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import DueTimer, LeaseRef, RunPageOf, RunQuery, StoredEvent
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, Refused
from orchestrator.rules.model import Activation, RunHeader, parse_path
from orchestrator.rules.timers import SweepGrant
from orchestrator.rules.transitions import IllegalTransition
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.common import matches
from orchestrator.stores.redis_keys import Layout, index_prefix, parse_timer
from orchestrator.stores.redis_urls import client_url, shown_url

FORMAT = 2  # of keys and documents; another one is not read, neither an older nor a newer
_REMEMBER_SWEEPS = 7 * 24 * 3600 * 1000  # ms; after a longer gap, there was never a sweep
_PAGE = 500  # values or headers in one command: a long one would hold up the whole server
_MAX_CONNECTIONS = 10_000  # of one process, one for each reader that waits: the server has a limit of its own
_BLOCK = 10.0  # seconds that one blocking read lasts at most: a dead connection is noticed after it

_CURSOR = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")
# Behind the message, some servers add where in the script it was raised.
_ILLEGAL = re.compile(r"ILLEGAL (.*?)( script: |$)", re.DOTALL)

logger = logging.getLogger("orchestrator")
_warned: set[str] = set()

_Client = Any  # redis.Redis, whose commands have no types of their own
_Call = tuple[Any, ...]  # a command and its arguments; `("name.lua", keys, arguments)` is a script


class RedisStore:
    """Runs in Redis, for `redis://`, `rediss://` and `redis+socket://` URLs.

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
        self._keys = Layout(prefix, shards)
        self._connections = _RedisConnections(url, self._keys, strict=strict, timeout=timeout, retries=retries)

    def create(self, header: RunHeader) -> RunHeader:
        keys = self._keys.run(header.run_id)
        text = self._connections.script("create", (keys.header, keys.index), (wire.dumps(header.doc()),))
        return wire.header_of(text)

    def claim(self, ask: ClaimRequest) -> Claimed | Refused:
        words = (ask.run_id, ask.path, ask.seq, ask.token, ask.lease)
        return wire.claimed_of(self._connections.script("claim", self._keys.run(ask.run_id).claim, words))

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        words = (run_id, *wire.change_words(change))
        return wire.committed_of(self._connections.script("commit", self._keys.run(run_id).commit, words))

    def header(self, run_id: str) -> RunHeader | None:
        text = self._connections.call("GET", self._keys.run(run_id).header)
        return wire.header_of(text) if text else None

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

    def load_awaiting(self, run_id: str) -> list[Activation]:
        keys = self._keys.run(run_id)
        words = self._connections.script("awaiting", (keys.activations, keys.awaiting), ())
        return _in_path_order({words[at].decode(): words[at + 1] for at in range(0, len(words), 2)})

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

    def mail(self, run_id: str, name: str) -> list[str]:
        found = self._connections.call("HGET", self._keys.run(run_id).mailboxes, name)
        entries: list[str] = json.loads(found) if found else []
        return entries

    def events(self, run_id: str, after: str = "", limit: int = 500) -> list[StoredEvent]:
        keys = self._keys.run(run_id)
        first = f"({_cursor(after)}" if after else "-"
        return wire.events_of(self._connections.script("events", (keys.header, keys.events), (first, limit)))

    def wait_for_events(self, run_id: str, after: str, timeout: float, limit: int = 500) -> list[StoredEvent]:
        key, end = self._keys.run(run_id).events, monotonic() + timeout
        while (left := end - monotonic()) > 0:
            block = max(1, round(min(left, _BLOCK) * 1000))
            cursor = _cursor(after) if after else "0-0"
            if self._connections.call("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", key, cursor, blocking=True):
                break
        return self.events(run_id, after, limit)

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
            block = max(1, round(min(left, _BLOCK) * 1000))
            cursor = last[0][0] if last else "0-0"
            self._connections.call("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", keys.settled, cursor, blocking=True)

    def due_timers(self, namespace: str, limit: int = 100) -> list[DueTimer]:
        shards = range(self._keys.shards)
        while True:
            pages = self._connections.calls(
                [("due_timers.lua", (self._keys.timers(shard),), (namespace, limit)) for shard in shards]
            )
            entries = (zip(map(int, page[1::2]), page[::2], strict=True) for page in pages)
            members = [member.decode() for _, member in islice(heapq.merge(*entries), limit)]
            places = [(member, *parse_timer(member, namespace)) for member in members]
            found = self._connections.calls([self._read_timer(*place) for place in places])
            due = [
                DueTimer(wire.header_of(pair[0]), wire.activation_of(path, pair[1]))
                for (_, _, path), pair in zip(places, found, strict=True)
                if pair
            ]
            if len(due) == len(places) or len(places) < limit:
                return due

    def _read_timer(self, member: str, run_id: str, path: str, wanted: str = "due") -> _Call:
        keys = self._keys.run(run_id)
        return "read_timer.lua", (keys.header, keys.activations, keys.timers), (member, path, wanted)

    def renew(self, refs: Sequence[LeaseRef], lease: int) -> dict[LeaseRef, str]:
        of: dict[str, list[LeaseRef]] = {}
        for ref in refs:
            of.setdefault(ref.run_id, []).append(ref)
        answers = self._connections.calls([self._renewal(run_id, mine, lease) for run_id, mine in of.items()])
        pairs = (
            pair for mine, reasons in zip(of.values(), answers, strict=True) for pair in zip(mine, reasons, strict=True)
        )
        return {ref: reason.decode() for ref, reason in pairs if reason}

    def _renewal(self, run_id: str, refs: list[LeaseRef], lease: int) -> _Call:
        keys = self._keys.run(run_id)
        words = [word for ref in refs for word in (ref.path, ref.token)]
        return "renew.lua", (keys.header, keys.activations, keys.timers), (run_id, lease, *words)

    def runs(self, query: RunQuery) -> RunPageOf:
        """Return one page of headers.

        The index does not know `before`, nor a resource together with something else. A query for those reads the
        headers of all runs that the index finds, and compares them one by one.
        """
        prefix, exact = index_prefix(query)
        if not exact:
            matching = [header for page in self._pages(prefix, query) for header in page if matches(header, query)]
            return RunPageOf(matching[query.offset : query.offset + query.limit], len(matching))
        low, high = f"[{prefix}0", f"({prefix};"
        shards = [self._keys.index(shard) for shard in range(self._keys.shards)]
        last = query.offset + query.limit
        counts = [("ZLEXCOUNT", key, low, high) for key in shards]
        found = self._connections.calls(
            [*counts, *(("ZREVRANGEBYLEX", key, high, low, "LIMIT", 0, last) for key in shards)]
        )
        members = islice(heapq.merge(*found[len(shards) :], reverse=True), query.offset, last)
        return RunPageOf(self._headers(prefix, list(members)), sum(found[: len(shards)]))

    def _pages(self, prefix: str, query: RunQuery) -> Iterator[list[RunHeader]]:
        """Give all runs below an index prefix, newest first. A run created after `before` was also written after it."""
        high = f"({prefix};" if query.before is None else f"({prefix}{query.before:015d}"
        keys = [self._keys.index(shard) for shard in range(self._keys.shards)]
        found = self._connections.calls([("ZREVRANGEBYLEX", key, high, f"[{prefix}0") for key in keys])
        members = heapq.merge(*found, reverse=True)
        while page := list(islice(members, _PAGE)):
            yield self._headers(prefix, page)

    def _headers(self, prefix: str, members: list[bytes]) -> list[RunHeader]:
        skip = len(prefix.encode()) + 16  # digits of the moment and a colon
        texts = self._connections.calls([("GET", self._keys.run(member[skip:].decode()).header) for member in members])
        return [wire.header_of(text) for text in texts if text]

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
        found: list[DueTimer] = []
        for shard in range(self._keys.shards):
            found += self._stranded(namespace, shard, ahead, limit - len(found))
        return found

    def _stranded(self, namespace: str, shard: int, ahead: int, limit: int) -> Iterator[DueTimer]:
        """One page after the other is read, the farthest first: the entries do not say what they are."""
        offset = 0
        while limit > 0:
            words = (namespace, ahead, offset, _PAGE)
            size, *members = self._connections.script("timers_ahead", (self._keys.timers(shard),), words)
            places = [(member, *parse_timer(member, namespace)) for member in map(bytes.decode, members)]
            pairs = self._connections.calls([self._read_timer(*place, "stranded") for place in places])
            found = [
                DueTimer(wire.header_of(pair[0]), wire.activation_of(path, pair[1]))
                for (_, _, path), pair in zip(places, pairs, strict=True)
                if pair
            ][:limit]
            yield from found
            limit, offset = limit - len(found), offset + _PAGE
            if size < _PAGE:
                return

    def acquire_sweep(self, namespace: str, holder: str, lease: int, pause: int) -> SweepGrant | None:
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
        seconds, micros = self._connections.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        self._connections.close()


def _in_path_order(found: Mapping[str, bytes | None]) -> list[Activation]:
    return [wire.activation_of(path, text) for path in sorted(found, key=parse_path) if (text := found[path])]


def _cursor(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise ValueError(f"{text!r} is no cursor of this store")
    return text


class _RedisConnections:
    """Connections of this process to one server, checked at first use.

    After a fork the child opens its own and leaves the parent's alone. A request that got no answer is sent again a few
    times, because every script answers a repeat as it answered first.
    """

    def __init__(self, url: str, keys: Layout, *, strict: bool, timeout: float, retries: int) -> None:
        self._url = client_url(url)
        self._shown = shown_url(url)
        self._keys = keys
        self._strict = strict
        self._timeout = timeout
        self._retries = retries
        # Replaced as a whole and never locked: a lock held by another thread at a fork would stay locked in the child.
        self._connected: tuple[int, _Client, _Client] | None = None

    def call(self, *call: Any, blocking: bool = False) -> Any:
        """Run one command, in one round trip."""
        return self._ask(lambda client: client.execute_command(*call), blocking=blocking)

    def script(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        """Run one script, in one round trip unless the server has forgotten it."""
        return self._ask(lambda client: self._run(client, name, keys, words))

    def calls(self, calls: Sequence[_Call]) -> list[Any]:
        """Run commands and scripts in one round trip, not as one transaction."""
        return self._ask(lambda client: self._pipe(client, calls)) if calls else []

    def close(self) -> None:
        """Close the connections that this process made."""
        made, self._connected = self._connected, None
        if made and made[0] == os.getpid():
            made[1].close()
            made[2].close()

    def _run(self, client: _Client, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        script = wire.script(name)
        call = ("EVALSHA", script.sha, len(keys), *keys, *words)
        try:
            return client.execute_command(*call)
        except NoScriptError:  # a server that was restarted, or another one
            client.execute_command("SCRIPT LOAD", script.text)
            return client.execute_command(*call)

    def _pipe(self, client: _Client, calls: Sequence[_Call]) -> list[Any]:
        names = {call[0].removesuffix(".lua") for call in calls if call[0].endswith(".lua")}
        for last in (False, True):
            with client.pipeline(transaction=False) as pipe:
                for name, *rest in calls:
                    if name.endswith(".lua"):
                        keys, words = rest
                        pipe.execute_command("EVALSHA", wire.script(name[:-4]).sha, len(keys), *keys, *words)
                    else:
                        pipe.execute_command(name, *rest)
                try:
                    answers: list[Any] = pipe.execute()
                    return answers
                except NoScriptError:
                    if last:
                        raise
            for name in sorted(names):
                client.execute_command("SCRIPT LOAD", wire.script(name).text)
        raise AssertionError("unreachable")

    def _ask(self, ask: Callable[[_Client], Any], *, blocking: bool = False) -> Any:
        try:
            _, client, patient = self._clients()
            return ask(patient if blocking else client)
        except ResponseError as error:
            if found := _ILLEGAL.match(str(error)):
                raise IllegalTransition(found[1]) from None  # a bug, which no repetition mends
            raise self._unavailable(str(error)) from error
        except RedisError as error:
            raise self._unavailable(str(error)) from error

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"The store at {self._shown} cannot be used: {why}", url=self._shown)

    def _clients(self) -> tuple[int, _Client, _Client]:
        made = self._connected
        if made is None or made[0] != os.getpid():
            made = os.getpid(), self._client(self._timeout), self._client(self._timeout + _BLOCK)
            self._check(made[1])
            self._connected = made
        return made

    def _client(self, timeout: float) -> _Client:
        return Redis.from_url(
            self._url,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=self._timeout,
            max_connections=_MAX_CONNECTIONS,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), self._retries),
            health_check_interval=0,
        )

    def _check(self, client: _Client) -> None:
        """Compare format and shards with those of the first use, and look at how the server keeps its data."""
        mine = json.dumps({"format": FORMAT, "shards": self._keys.shards})
        with client.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.format, mine, nx=True)
            pipe.get(self._keys.format)
            stored = json.loads(pipe.execute()[1])
        if stored["format"] != FORMAT:
            raise self._unavailable(
                f"its format is {stored['format']}, and this version reads format {FORMAT} alone; "
                "delete it, or use another database or prefix"
            )
        if stored["shards"] != self._keys.shards:
            raise self._unavailable(f"it has {stored['shards']} shards, this process is set to {self._keys.shards}")
        doubts = _doubts(client)
        if doubts and self._strict:
            raise self._unavailable("; ".join(doubts))
        if doubts and self._shown not in _warned:
            _warned.add(self._shown)
            logger.warning("The store at %s may lose runs: %s", self._shown, "; ".join(doubts))


def _doubts(client: _Client) -> list[str]:
    """Return the reasons against keeping runs on this server; none where it does not let us ask."""
    try:
        settings = {name: client.config_get(name).get(name, "") for name in ("maxmemory-policy", "appendonly", "save")}
    except ResponseError:
        return []
    policy = settings["maxmemory-policy"]
    evicts = [f"maxmemory-policy is {policy}, not noeviction"] if policy not in ("", "noeviction") else []
    kept = settings["appendonly"] == "yes" or settings["save"]
    return evicts if kept else [*evicts, "neither AOF nor RDB is on, so a restart of the server loses everything"]
