"""The Redis store behind sentinels: they name the primary, and after a failover another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_run_id
from orchestrator.rules.change import Change, Committed, RequestGuard
from orchestrator.rules.model import RunHeader, StoredStatus
from orchestrator.stores import open_store
from orchestrator.stores.redis import RedisStore
from orchestrator.testing import StoreContract
from tests.stores.topologies import PATIENCE, Watched, wait_for


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary that nobody kills, with passwords on the servers and another on the sentinel."""
    watched = Watched(tmp_path_factory.mktemp("sentinel"), password="of-servers", sentinel_password="of-sentinels")
    try:
        yield watched.start()
    finally:
        watched.teardown()


class TestRedisStoreBehindASentinel(StoreContract):
    @pytest.fixture
    def store(self, watched: Watched) -> Iterator[RedisStore]:
        """A store of its own prefix; the contract's run ids and namespaces are unique besides."""
        store = open_store(watched.url())
        assert isinstance(store, RedisStore)
        yield store
        store.close()


def told(number: int) -> Change:
    """Append one event to the log of a run; repeated, it is the same change."""
    return Change(RequestGuard(f"told {number}", frozenset(StoredStatus)), events=({"type": "told", "number": number},))


def a_run(store: RedisStore) -> str:
    """Create a run."""
    return store.create(RunHeader(run_id=new_run_id(), workflow_id="w", namespace="n")).run_id


def test_a_failover_needs_no_restart(tmp_path: Path) -> None:
    """Three sentinels, as Celery writes their URL: writers, processes that only read, and readers that wait go on."""
    watched = Watched(tmp_path, sentinels=3, password="hush")
    stores: list[RedisStore] = []
    try:
        watched.start()
        stores = [RedisStore(watched.url("sentinel", db=3), timeout=2.0) for _ in range(3)]
        writer, looker, reader = stores
        run_id, late = a_run(writer), a_run(writer)
        assert isinstance(writer.commit(run_id, told(1)), Committed)
        assert looker.header(run_id) is not None
        heard: list[object] = []
        follower = threading.Thread(target=_follow, args=(reader, late, heard), daemon=True)
        follower.start()
        old = watched.primary()
        with watched.client(old) as client:
            wait_for(lambda: any("b" in one["flags"] for one in client.client_list()))
            assert client.execute_command("WAIT", 1, 5000) == 1
            assert client.info("keyspace").keys() == {"db3"}

        old.process.kill("SIGKILL")
        watched.processes[0].kill("SIGKILL")  # two are a majority
        with pytest.raises(StoreUnavailable, match=r"sentinel://:\*\*\*@127"):
            writer.commit(run_id, told(2))

        wait_for(lambda: _goes_on(writer, run_id))
        assert [event.doc["number"] for event in writer.events(run_id)] == [1, 2]
        wait_for(lambda: _sees(looker, run_id, 2))
        writer.commit(late, told(1))
        follower.join(PATIENCE)
        assert heard
        old.start()  # it comes back, and is made a replica
        with watched.client(old) as client:
            wait_for(lambda: client.info("replication")["role"] == "slave")
        assert isinstance(writer.commit(run_id, told(3)), Committed)
        wait_for(lambda: _sees(looker, run_id, 3))
    finally:
        for store in stores:
            store.close()
        watched.teardown()


def _goes_on(store: RedisStore, run_id: str) -> bool:
    try:
        return isinstance(store.commit(run_id, told(2)), Committed)
    except StoreUnavailable:
        return False


def _sees(store: RedisStore, run_id: str, commits: int) -> bool:
    try:
        header = store.header(run_id)
    except StoreUnavailable:
        return False
    return header is not None and header.commits == commits


def _follow(store: RedisStore, run_id: str, heard: list[object]) -> None:
    while not heard:
        try:
            heard.extend(store.wait_for_events(run_id, "", 1.0))
        except StoreUnavailable:
            time.sleep(0.05)


def test_a_sentinel_that_is_away_is_passed_over(watched: Watched) -> None:
    place = watched.url().replace("@", "@127.0.0.1:1,")
    store = RedisStore(place)
    for _ in range(3):
        assert store.header("run") is None
        store.close()


def test_connections_are_bounded_and_waited_for(watched: Watched) -> None:
    """As on a single server."""
    store = RedisStore(f"{watched.url()}&client_name=bounded&max_connections=1", timeout=0.3, retries=0)
    store.header("run")
    gate = threading.Event()

    def hold() -> None:
        store._connections._ask(lambda servers: servers.of("").client.transaction(lambda _: gate.wait(10), "watched"))

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        with watched.client(watched.primary()) as client:
            wait_for(lambda: any(one["name"] == "bounded" and one["cmd"] == "watch" for one in client.client_list()))
        with pytest.raises(StoreUnavailable, match="No connection available"):
            store.header("run")
    finally:
        gate.set()
        holder.join()
    assert store.header("run") is None
    store.close()


@pytest.mark.parametrize(
    "change, said",
    [
        (("mymaster", "another"), "No master found for 'another'"),
        (("of-sentinels", "wrong-one"), "No master found for 'mymaster'"),
        ((":of-servers@", ":wrong-one@"), "invalid (username-password pair|password)|WRONGPASS"),
    ],
)
def test_what_is_wrong_in_the_url_is_said_without_its_passwords(
    watched: Watched, change: tuple[str, str], said: str
) -> None:
    store = RedisStore(watched.url().replace(*change), retries=0)
    with pytest.raises(StoreUnavailable, match=said) as caught:
        store.header("run")
    assert not [word for word in ("of-servers", "of-sentinels", "wrong-one") if word in str(caught.value)]
    store.close()
