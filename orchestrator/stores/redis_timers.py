"""The index of timers in Redis: one sorted set for each shard, with a part for each lane."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from orchestrator.ports import DueTimer
from orchestrator.rules.timers import LANE, Lane
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.common import in_order, read_due
from orchestrator.stores.redis_connections import Call, RedisConnections
from orchestrator.stores.redis_keys import SEPARATOR, Layout, parse_timer

logger = logging.getLogger("orchestrator")

_PAGE = 500  # timers in one command: a long one would hold up the whole server
_READ = 50  # timers that one script reads, for the same reason
_SPARE = 8  # timers that are asked of a shard beyond twice its share of a page

_Place = tuple[str, str, str]  # a timer's member, its run and its path
_Pages = dict[int, Sequence[Sequence[bytes]]]  # by shard, then by lane


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
        # Runs are spread evenly. Were each shard asked for a whole page, nearly all of the answer would be thrown away;
        # so it is asked for more than its share, and once more where the page takes all that it has given.
        count = min(limit, 2 * limit // self._keys.shards + _SPARE)
        pages = self._pages(range(self._keys.shards), namespace, count, newest)
        lanes = _lanes(pages, limit, newest)
        short = {
            shard for lane in lanes for shard, taken in Counter(shard for _, shard in lane).items() if taken >= count
        }
        if not short or count == limit:
            return lanes
        return _lanes(pages | self._pages(short, namespace, limit, newest), limit, newest)

    def _pages(self, shards: Iterable[int], namespace: str, limit: int, newest: bool) -> _Pages:
        """Return the timers of these shards, of each lane members and places by turns."""
        words = (namespace, limit, int(newest), *(lane.offset for lane in Lane))
        calls = {shard: ("due_timers.lua", (self._keys.timers(shard),), words) for shard in shards}
        return dict(zip(calls, self._connections.calls(list(calls.values())), strict=True))

    def _places(self, namespace: str, members: Sequence[tuple[bytes, int]]) -> list[_Place]:
        """Read members: the text, and the names of run and path."""
        places: list[_Place] = []
        for member, shard in members:
            text = member.decode(errors="replace")
            run_id, path = parse_timer(text, namespace)
            if text.encode() == member and self._keys.shard(run_id) == shard:
                places.append((text, run_id, path))
            else:
                logger.error("a timer that names no run is dropped: %r", member)
                self._connections.call("ZREM", self._keys.timers(shard), member)
        return places

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

    def _read(self, places: Sequence[_Place], wanted: str) -> list[DueTimer]:
        """Read those timers that are wanted, in no order."""
        of_shards: dict[int, list[_Place]] = {}
        for place in places:
            of_shards.setdefault(self._keys.shard(place[1]), []).append(place)
        parts = [
            (shard, mine[at : at + _READ]) for shard, mine in of_shards.items() for at in range(0, len(mine), _READ)
        ]
        answers = self._connections.calls([self._reading(shard, part, wanted) for shard, part in parts])
        return [
            read_due(run_id, path, lambda path=path, pair=pair: wire.due_of(path, pair))  # type: ignore[misc]
            for (_, part), pairs in zip(parts, answers, strict=True)
            for (_, run_id, path), pair in zip(part, pairs, strict=True)
            if pair
        ]

    def _reading(self, shard: int, places: Sequence[_Place], wanted: str) -> Call:
        keys, words = [self._keys.timers(shard)], [wanted]
        for member, run_id, path in places:
            run = self._keys.run(run_id)
            keys += (run.header, run.activations)
            words += (member, path)
        return "read_timers.lua", keys, words

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        """Look at a timer again later, if it is still due."""
        member = SEPARATOR.join((namespace, run_id, path))
        self._connections.script("aside", (self._keys.run(run_id).timers,), (member, delay, LANE))


def _lanes(pages: _Pages, limit: int, newest: bool) -> list[list[tuple[bytes, int]]]:
    """Return the first members of each lane, each with its shard."""
    return [
        _merge(dict(zip(pages, of_lane, strict=True)), limit, newest) for of_lane in zip(*pages.values(), strict=True)
    ]


def _merge(pages: Mapping[int, Sequence[bytes]], limit: int, newest: bool) -> list[tuple[bytes, int]]:
    entries = (
        [(int(moment), member, shard) for member, moment in zip(page[::2], page[1::2], strict=True)]
        for shard, page in pages.items()
    )
    return [found[1:] for found in islice(heapq.merge(*entries, reverse=newest), limit)]
