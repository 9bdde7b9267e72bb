"""The index of timers in Redis: one sorted set for each shard, with a part for each lane."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Sequence
from itertools import islice

from orchestrator.ports import DueTimer
from orchestrator.rules.timers import LANE, Lane
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.common import in_order, read_due
from orchestrator.stores.redis_connections import Call, RedisConnections
from orchestrator.stores.redis_keys import SEPARATOR, Layout, parse_timer

logger = logging.getLogger("orchestrator")

_PAGE = 500  # timers in one command: a long one would hold up the whole server


class TimerIndex:
    """Finds the timers that are due. What can be nobody's is dropped; what cannot be read is kept."""

    def __init__(self, connections: RedisConnections, keys: Layout) -> None:
        self._connections = connections
        self._keys = keys

    def due(self, namespace: str, limit: int, newest: bool) -> list[DueTimer]:
        """Return the timers of all lanes: most overdue first, or newest first."""
        while True:
            lanes = self._members(namespace, limit, newest)
            members = [member for lane in lanes for member in lane]
            due = self._read(self._places(namespace, members), "due")
            if len(due) == len(members) or all(len(lane) < limit for lane in lanes):
                return in_order(due, newest)

    def _members(self, namespace: str, limit: int, newest: bool) -> list[list[tuple[bytes, int]]]:
        """Return the members of each lane, each with its shard."""
        words = (namespace, limit, int(newest), *(lane.offset for lane in Lane))
        shards = range(self._keys.shards)
        pages = self._connections.calls([("due_timers.lua", (self._keys.timers(shard),), words) for shard in shards])
        return [_merge(of_lane, limit, newest) for of_lane in zip(*pages, strict=True)]

    def _places(self, namespace: str, members: Sequence[tuple[bytes, int]]) -> list[tuple[str, str, str]]:
        """Read members: the text, and the names of run and path."""
        places: list[tuple[str, str, str]] = []
        for member, shard in members:
            text = member.decode(errors="replace")
            run_id, path = parse_timer(text, namespace)
            if text.encode() == member and self._keys.shard(run_id) == shard:
                places.append((text, run_id, path))
            else:
                logger.error("a timer that names no run is dropped: %r", member)
                self._connections.call("ZREM", self._keys.timers(shard), member)
        return places

    def _read_timer(self, member: str, run_id: str, path: str, wanted: str = "due") -> Call:
        keys = self._keys.run(run_id)
        return "read_timer.lua", (keys.header, keys.activations, keys.timers), (member, path, wanted)

    def stranded(self, namespace: str, ahead: int, limit: int) -> list[DueTimer]:
        """Return the claims that `Timers.find_stranded` is about."""
        found: list[DueTimer] = []
        for shard in range(self._keys.shards):
            found += self._stranded(namespace, shard, ahead, limit - len(found))
        return found

    def _stranded(self, namespace: str, shard: int, ahead: int, limit: int) -> Iterator[DueTimer]:
        """One page after the other is read, the farthest first: the entries do not say what they are."""
        offset = 0
        while limit > 0:
            words = (namespace, ahead, offset, _PAGE, Lane.LEASES.offset)
            size, *members = self._connections.script("timers_ahead", (self._keys.timers(shard),), words)
            places = self._places(namespace, [(member, shard) for member in members])
            found = [one for one in self._read(places, "stranded") if not one.problem][:limit]
            yield from found
            limit, offset = limit - len(found), offset + _PAGE
            if size < _PAGE:
                return

    def _read(self, places: Sequence[tuple[str, str, str]], wanted: str) -> list[DueTimer]:
        pairs = self._connections.calls([self._read_timer(*place, wanted) for place in places])
        return [
            read_due(run_id, path, lambda path=path, pair=pair: wire.due_of(path, pair))  # type: ignore[misc]
            for (_, run_id, path), pair in zip(places, pairs, strict=True)
            if pair
        ]

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        """Look at a timer again later, if it is still due."""
        member = SEPARATOR.join((namespace, run_id, path))
        self._connections.script("aside", (self._keys.run(run_id).timers,), (member, delay, LANE))


def _merge(pages: Sequence[Sequence[bytes]], limit: int, newest: bool) -> list[tuple[bytes, int]]:
    entries = (
        [(int(moment), member, shard) for member, moment in zip(page[::2], page[1::2], strict=True)]
        for shard, page in enumerate(pages)
    )
    return [found[1:] for found in islice(heapq.merge(*entries, reverse=newest), limit)]
