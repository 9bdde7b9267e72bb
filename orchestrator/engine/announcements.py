"""Announcements of workers: the queues that each listens on, told in the store for as long as it lives.

So a step that nobody will ever take can be told from one that waits for its turn: on every broker, and also where
remote control is off. An announcement is kept as the heartbeat of a name that says it, beside those of the workers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orchestrator.ports import Store

_MAX_TOGETHER = 10  # queues in one name, which is a key of the store


@dataclass(frozen=True, slots=True)
class Announcement:
    """A worker, and queues that it listens on."""

    worker: str
    queues: tuple[str, ...]


def announce_queues(store: Store, namespace: str, worker: str, queues: Collection[str], ttl: int) -> None:
    """Note for `ttl` ms that this worker listens on these queues. Raises `StoreUnavailable`."""
    known = sorted(queues)
    for at in range(0, len(known), _MAX_TOGETHER):
        name = json.dumps([worker, *known[at : at + _MAX_TOGETHER]], separators=(",", ":"))
        store.heartbeat(_place(namespace), name, ttl)


def read_announcements(store: Store, namespace: str) -> list[Announcement]:
    """Return what the living workers of a namespace announce. Raises `StoreUnavailable`."""
    return list(_parse(store.workers(_place(namespace))))


def read_queues(store: Store, namespace: str) -> frozenset[str] | None:
    """Return the queues that some worker listens on; None where that is not known, as nobody announces any.

    Raises `StoreUnavailable`.
    """
    found = read_announcements(store, namespace)
    return frozenset(queue for one in found for queue in one.queues) if found else None


def _place(namespace: str) -> str:
    return f"{namespace}/queues"


def _parse(names: Collection[str]) -> Iterator[Announcement]:
    for name in names:
        try:
            said = json.loads(name)
        except ValueError:
            continue  # a worker of an application whose namespace has the name of this place
        if isinstance(said, list) and said:
            yield Announcement(str(said[0]), tuple(map(str, said[1:])))
