"""The waits of one process share a connection: how many there are is of no account to the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
import redis

from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_run_id, new_token
from orchestrator.rules.change import Change, Committed, RequestGuard, UpdateRun
from orchestrator.rules.model import RunHeader, StoredStatus
from orchestrator.stores.redis import RedisStore
from tests.servers import RedisServer

DB = 14
READERS = 100
BOUND = 32 + 1  # the pool of a process, and its blocking read


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Look at the server from outside."""
    redis_server.flush(DB)
    with redis.Redis.from_url(redis_server.url(DB)) as client:
        yield client


@pytest.fixture
def name() -> str:
    """The name of the connections of this test's store."""
    return f"readers-{new_token()}"


@pytest.fixture
def store(redis_server: RedisServer, client: redis.Redis, name: str) -> Iterator[RedisStore]:
    """A store whose connections have a name."""
    store = RedisStore(f"{redis_server.url(DB)}?client_name={name}")
    yield store
    store.close()


def connections(client: redis.Redis, name: str) -> list[dict[str, Any]]:
    """Return the connections of this name that the server has at the moment."""
    return [one for one in client.client_list() if one["name"] == name]


def runs(store: RedisStore, count: int) -> list[str]:
    """Create so many runs."""
    return [store.create(RunHeader(run_id=new_run_id(), workflow_id="w", namespace="n")).run_id for _ in range(count)]


def tell(store: RedisStore, run_id: str, number: int = 0) -> None:
    """Append one event to the log of a run."""
    guard = RequestGuard(new_token(), frozenset(StoredStatus))
    answer = store.commit(run_id, Change(guard, events=({"type": "told", "number": number},)))
    assert isinstance(answer, Committed)


def follow(store: RedisStore, run_id: str, count: int) -> list[int]:
    """Read so many events of a run, as they come, as a stream of the engine does."""
    read: list[int] = []
    after, end = "", time.monotonic() + 30
    while len(read) < count:
        assert time.monotonic() < end, read
        for event in store.wait_for_events(run_id, after, 1.0):
            read.append(event.doc["number"])
            after = event.id
    return read


def wait_until_one_blocks(client: redis.Redis, name: str) -> None:
    """Wait until a reader of the store waits in the server."""
    end = time.monotonic() + 10
    while not any("b" in one["flags"] for one in connections(client, name)):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("count", [1, READERS])
def test_a_hundred_readers_have_one_blocking_connection(
    store: RedisStore, client: redis.Redis, name: str, count: int
) -> None:
    """Of one run, or each of its own: all hear all, and the pool of the process stays bounded."""
    followed = runs(store, count)
    with ThreadPoolExecutor(READERS) as threads:
        reading = [threads.submit(follow, store, followed[place % count], 5) for place in range(READERS)]
        wait_until_one_blocks(client, name)
        most = blocked = 0
        for number in range(5):
            for run_id in followed:
                tell(store, run_id, number)
            found = connections(client, name)
            most, blocked = max(most, len(found)), max(blocked, sum("b" in one["flags"] for one in found))
        assert all(one.result(30) == [0, 1, 2, 3, 4] for one in reading)
    assert most <= BOUND
    assert blocked <= 1


def test_an_event_wakes_its_reader_at_once(store: RedisStore, client: redis.Redis, name: str) -> None:
    """Also one that comes while others are waiting for other runs already."""
    (early, late) = runs(store, 2)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(store.wait_for_events, early, "", 10.0)
        wait_until_one_blocks(client, name)
        second = threads.submit(store.wait_for_events, late, "", 10.0)
        time.sleep(0.1)
        began = time.monotonic()
        tell(store, late)
        assert len(second.result(5)) == 1
        assert time.monotonic() - began < 1
        tell(store, early)
        assert len(first.result(5)) == 1


def test_those_who_wait_for_runs_to_settle_share_it_too(store: RedisStore, client: redis.Redis, name: str) -> None:
    """Each is told of its own run."""
    followed = runs(store, 40)
    with ThreadPoolExecutor(40) as threads:
        waiting = [threads.submit(store.wait_until_settled, run_id, 0, 20.0) for run_id in followed]
        wait_until_one_blocks(client, name)
        assert len(connections(client, name)) <= BOUND
        for run_id in followed:
            change = Change(RequestGuard(new_token(), frozenset(StoredStatus)), (UpdateRun({"settle_count": 1}),))
            store.commit(run_id, change)
        wait(waiting, 20)
        assert {header.run_id for one in waiting if (header := one.result())} == set(followed)


def test_a_pool_that_is_in_use_is_waited_for_until_the_time_is_over(redis_server: RedisServer, name: str) -> None:
    """As long as for an answer."""
    store = RedisStore(f"{redis_server.url(DB)}?client_name={name}&max_connections=1", timeout=0.2, retries=0)
    store.header("run")
    gate = threading.Event()

    def hold() -> None:
        store._connections._ask(lambda servers: servers.of("").client.transaction(lambda _: gate.wait(10), "watched"))

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        time.sleep(0.1)
        with pytest.raises(StoreUnavailable, match="No connection available"):
            store.header("run")
    finally:
        gate.set()
        holder.join()
    assert store.header("run") is None
    store.close()


def test_closing_ends_the_blocking_read(store: RedisStore, client: redis.Redis, name: str) -> None:
    """No thread and no connection is left; the store can be used again."""
    (run_id,) = runs(store, 1)
    store.wait_for_events(run_id, "", 0.1)
    store.close()
    end = time.monotonic() + 5
    while connections(client, name):
        assert time.monotonic() < end
        time.sleep(0.02)
    tell(store, run_id)
    assert len(store.wait_for_events(run_id, "", 1.0)) == 1
