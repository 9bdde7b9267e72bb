"""The index of timers in Redis: one sorted set for each shard, with a part for each lane."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from orchestrator.ports import DueTimer
from orchestrator.rules.timers import LANE, Lane
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.common import in_order, read_due
from orchestrator.stores.redis_keys import SEPARATOR, Layout, parse_due

logger = logging.getLogger("orchestrator")


class Link(Protocol):
    """The way to the server."""

    def call(self, *call: Any) -> Any:
        """One command, one round trip."""
        ...

    def script(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        """One script, one round trip."""
        ...

    def calls(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands and scripts in one round trip."""
        ...


class DueIndex:
    """Finds the timers that are due. What can be nobody's is dropped; what cannot be read is kept."""

    def __init__(self, link: Link, keys: Layout) -> None:
        self._link = link
        self._keys = keys

    def timers(self, namespace: str, limit: int, newest: bool) -> list[DueTimer]:
        """The timers of all lanes: most overdue first, or newest first."""
        while True:
            lanes = self._members(namespace, limit, newest)
            members = [member for lane in lanes for member in lane]
            places = self._places(namespace, members)
            found = self._link.calls([self._peek(*place) for place in places])
            due = [
                read_due(run_id, path, lambda path=path, pair=pair: wire.due_of(path, pair))  # type: ignore[misc]
                for (_, run_id, path), pair in zip(places, found, strict=True)
                if pair
            ]
            if len(due) == len(members) or all(len(lane) < limit for lane in lanes):
                return in_order(due, newest)

    def _members(self, namespace: str, limit: int, newest: bool) -> list[list[tuple[bytes, int]]]:
        """The members of each lane, each with its shard."""
        shards = range(self._keys.shards)
        pages = iter(
            self._link.calls(
                [
                    ("due.lua", (self._keys.due(shard),), (namespace, limit, lane.offset, int(newest)))
                    for lane in Lane
                    for shard in shards
                ]
            )
        )
        return [_merge([next(pages) for _ in shards], limit, newest) for _ in Lane]

    def _places(self, namespace: str, members: Sequence[tuple[bytes, int]]) -> list[tuple[str, str, str]]:
        """Read members: the text, and the names of run and path."""
        places: list[tuple[str, str, str]] = []
        for member, shard in members:
            text = member.decode(errors="replace")
            run_id, path = parse_due(text, namespace)
            if text.encode() == member and self._keys.shard(run_id) == shard:
                places.append((text, run_id, path))
            else:
                logger.error("a timer that names no run is dropped: %r", member)
                self._link.call("ZREM", self._keys.due(shard), member)
        return places

    def _peek(self, member: str, run_id: str, path: str) -> tuple[Any, ...]:
        keys = self._keys.run(run_id)
        return "peek.lua", (keys.header, keys.records, keys.due), (member, path)

    def set_aside(self, run_id: str, path: str, namespace: str, delay: int) -> None:
        """Look at a timer again later, if it is still due."""
        member = SEPARATOR.join((namespace, run_id, path))
        self._link.script("aside", (self._keys.run(run_id).due,), (member, delay, LANE))


def _merge(pages: Sequence[Sequence[bytes]], limit: int, newest: bool) -> list[tuple[bytes, int]]:
    entries = (
        [(int(moment), member, shard) for member, moment in zip(page[::2], page[1::2], strict=True)]
        for shard, page in enumerate(pages)
    )
    return [found[1:] for found in islice(heapq.merge(*entries, reverse=newest), limit)]
