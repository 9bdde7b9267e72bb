"""The Redis store on a cluster of three nodes: the contract of all stores, and what only a cluster has."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.crc import key_slot

from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_token
from orchestrator.ports import LeaseRef, RunQuery
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    CreateActivation,
    RequestGuard,
    UpdateRun,
)
from orchestrator.rules.model import Activation, RunHeader, StoredStatus
from orchestrator.stores import open_store, redis_connections
from orchestrator.stores.redis import RedisStore
from orchestrator.testing import StoreContract
from tests.servers import RedisServer
from tests.stores.topologies import PATIENCE, LocalCluster, client_of, id_of, wait_for
from tests.vendor import LocalRedis

ROUTE = '{"name":"checkout.charge","queue":"celery"}'
LONG = 10_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes for the tests of this module that kill none of them."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.teardown()


class TestRedisStoreOnACluster(StoreContract):
    @pytest.fixture
    def store(self, cluster: LocalCluster) -> Iterator[RedisStore]:
        """A store of its own prefix; the contract's run ids and namespaces are unique besides."""
        store = open_store(cluster.url())
        assert isinstance(store, RedisStore)
        yield store
        store.close()


# --- keys over the nodes ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(cluster: LocalCluster) -> Iterator[RedisStore]:
    """A store on the empty cluster."""
    cluster.flush()
    store = RedisStore(cluster.url(), prefix="own")
    yield store
    store.close()


def runs(store: RedisStore, count: int = 48) -> list[str]:
    """Create runs in all shards, each with a claimable activation that is due."""
    made = []
    for number in range(count):
        run_id = store.create(RunHeader(run_id=f"run-{number}", workflow_id="w", namespace="n")).run_id
        first = CreateActivation(Activation(path="0", step="s", component="STEP", route=ROUTE))
        began = Change(RequestGuard("a", frozenset(StoredStatus)), (UpdateRun({"status": "running"}), first))
        assert isinstance(store.commit(run_id, began), Committed)
        made.append(run_id)
    return made


def tell(store: RedisStore, run_id: str, number: int = 0) -> Committed:
    """Append one event to the log of a run."""
    answer = store.commit(run_id, _event(number))
    assert isinstance(answer, Committed)
    return answer


def _event(number: int = 0) -> Change:
    return Change(RequestGuard(new_token(), frozenset(StoredStatus)), events=({"type": "told", "number": number},))


def slot_of(store: RedisStore, run_id: str) -> int:
    """Return the slot of a run's keys."""
    return key_slot(store._keys.run(run_id).header.encode())


def runs_of(cluster: LocalCluster, store: RedisStore, made: list[str], node: LocalRedis) -> list[str]:
    """Return the runs that a node has."""
    return [run_id for run_id in made if cluster.owner(slot_of(store, run_id)) is node]


def test_runs_of_all_nodes_are_listed_swept_and_written_together(cluster: LocalCluster, store: RedisStore) -> None:
    """Each key is on the node of its shard alone."""
    made = runs(store)
    keys = cluster.keys()
    assert all(sum(":header:" in key for key in found) for found in keys.values())
    assert sum(":header:" in key for found in keys.values() for key in found) == len(made)
    assert {header.run_id for header in store.runs(RunQuery(limit=100))} == set(made)
    assert store.count_runs(RunQuery(workflow_id="w")) == len(made)
    answers = store.commit_many([(run_id, _event()) for run_id in made])
    assert [answer.header.run_id for answer in answers if isinstance(answer, Committed)] == made
    claims = {}
    for run_id in made:
        answer = store.claim(ClaimRequest(run_id, "0", store.load(run_id, ["0"])[0].seq, new_token(), LONG))
        assert isinstance(answer, Claimed)
        claims[run_id] = LeaseRef(run_id, "0", answer.activation.lease_token)
    wrong = LeaseRef(made[7], "0", "another's")
    assert store.renew([*claims.values(), wrong], 0).keys() == {wrong}
    assert {due.header.run_id for due in store.due_timers("n", 100)} == set(made)
    assert all(store.delete(run_id) for run_id in made)
    assert not [key for found in cluster.keys().values() for key in found if ":header:" in key]


def test_scripts_that_one_node_has_forgotten_are_loaded_there_again(cluster: LocalCluster, store: RedisStore) -> None:
    made = runs(store)
    for node in cluster.nodes:
        with client_of(node) as client:
            client.script_flush()
        assert all(isinstance(one, Committed) for one in store.commit_many([(run_id, _event()) for run_id in made]))
        for run_id in made[:3]:
            tell(store, run_id)


def test_a_shard_that_moves_to_another_node_is_followed(cluster: LocalCluster, store: RedisStore) -> None:
    """By single requests and by those that concern several nodes; nothing is written twice."""
    made = runs(store)
    moving = slot_of(store, made[0])
    source = cluster.owner(moving)
    target = next(node for node in cluster.nodes if node is not source)
    before = store.header(made[0])
    cluster.move(moving, target)
    try:
        assert store.header(made[0]) == before
        assert tell(store, made[0]).header.commits == 2
        cluster.move(moving, source)
        answers = store.commit_many([(run_id, _event()) for run_id in made])
        assert all(isinstance(one, Committed) for one in answers)
        assert all(len(store.events(run_id)) == 1 + (run_id == made[0]) for run_id in made)
    finally:
        if cluster.owner(moving) is not source:
            cluster.move(moving, source)


def test_a_shard_on_its_way_is_an_outage_of_that_shard_alone(cluster: LocalCluster, store: RedisStore) -> None:
    """Its keys are on two nodes for a moment, so no script may run there."""
    made = runs(store)
    moving = slot_of(store, made[0])
    source = cluster.owner(moving)
    target = next(node for node in cluster.nodes if node is not source)
    with client_of(source) as old, client_of(target) as new:
        new.execute_command("CLUSTER", "SETSLOT", moving, "IMPORTING", id_of(source))
        old.execute_command("CLUSTER", "SETSLOT", moving, "MIGRATING", id_of(target))
        header = store._keys.run(made[0]).header
        old.execute_command("MIGRATE", "127.0.0.1", target.port, header, 0, 5000)
        try:
            with pytest.raises(StoreUnavailable, match="on their way to another node"):
                tell(store, made[0])
            elsewhere = next(run_id for run_id in made if slot_of(store, run_id) != moving)
            tell(store, elsewhere)
        finally:
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", moving, 100):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", moving, "NODE", id_of(target))
    assert tell(store, made[0]).header.commits == 2
    cluster.move(moving, source)


def test_readers_of_many_shards_wait_on_one_connection_for_each(cluster: LocalCluster) -> None:
    """They are told of their own runs, at once; and all connections of the process are bounded."""
    cluster.flush()
    name = f"readers-{new_token()}"
    store = RedisStore(f"{cluster.url()}/0?client_name={name}&max_connections=4", prefix="read")
    made = runs(store, 60)
    shards = {store._keys.shard(run_id) for run_id in made}

    def connections() -> list[dict[str, str]]:
        found = []
        for node in cluster.nodes:
            with client_of(node) as client:
                found += [one for one in client.client_list() if one["name"] == name]
        return found

    with ThreadPoolExecutor(len(made)) as threads:
        waiting = [threads.submit(store.wait_for_events, run_id, "", 20.0) for run_id in made]
        wait_for(lambda: sum("b" in one["flags"] for one in connections()) == len(shards))
        assert len(connections()) <= 3 * 4 + len(shards)
        began = time.monotonic()
        for run_id in made:
            tell(store, run_id)
        assert all(len(one.result(10)) == 1 for one in waiting)
        assert time.monotonic() - began < 5
    store.close()
    wait_for(lambda: not connections(), 10)


# --- what a node is --------------------------------------------------------------------------------------------------


def test_a_node_is_refused_as_a_single_server_by_the_name_of_the_right_scheme(cluster: LocalCluster) -> None:
    """Before anything is written there."""
    cluster.flush()
    store = RedisStore(cluster.nodes[0].url)
    with pytest.raises(StoreUnavailable, match=r"node of a Redis Cluster.*redis\+cluster://"):
        store.header("run")
    assert not any(cluster.keys().values())
    store.close()


def test_a_single_server_is_refused_as_a_cluster(redis_server: RedisServer) -> None:
    place = urlsplit(redis_server.url())
    store = RedisStore(place._replace(scheme="redis+cluster", path="/0").geturl(), retries=0)
    with pytest.raises(StoreUnavailable, match="no Redis Cluster: use redis://"):
        store.header("run")
    store.close()


def test_the_first_address_may_lead_nowhere(cluster: LocalCluster) -> None:
    """One that answers is enough; where none does, all are named, and no password."""
    there = cluster.url(1).removeprefix("redis+cluster://")
    store = RedisStore(f"redis+cluster://127.0.0.1:1,{there}", prefix="own")
    assert store.header("run") is None
    store.close()
    away = RedisStore("redis+cluster://user:hush@127.0.0.1:1,127.0.0.1:2", retries=0)
    with pytest.raises(StoreUnavailable, match=r"user:\*\*\*@127\.0\.0\.1:1,.*127\.0\.0\.1:2: ") as caught:
        away.header("run")
    assert "hush" not in str(caught.value)


def test_each_node_is_asked_how_it_keeps_its_data(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning names the node; a strict store refuses what is on it."""
    monkeypatch.setattr(redis_connections, "_warned", set())
    node = cluster.nodes[1]
    with client_of(node) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            store = RedisStore(cluster.url(), prefix="own")
            strict = RedisStore(cluster.url(), prefix="own", strict=True)
            with caplog.at_level(logging.WARNING, logger="orchestrator"):
                store.count_runs(RunQuery())
            with pytest.raises(StoreUnavailable, match=f":{node.port}: maxmemory-policy is allkeys-lru"):
                strict.count_runs(RunQuery())
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert [record.getMessage().partition("lose runs: ")[2] for record in caplog.records] == [
        f"127.0.0.1:{node.port}: maxmemory-policy is allkeys-lru, not noeviction"
    ]
    store.close()
    strict.close()


# --- failures of a node ----------------------------------------------------------------------------------------------


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster whose first primary has a replica."""
    cluster = LocalCluster(tmp_path, replicas=1)
    try:
        yield cluster.start()
    finally:
        cluster.teardown()


def test_a_node_that_dies_is_an_outage_of_its_shards_until_its_replica_is_there(mortal: LocalCluster) -> None:
    """Nobody restarts anything. Runs on other nodes go on meanwhile; so do their leases, and no scheduler sweeps."""
    store = RedisStore(mortal.url(3), timeout=2.0)
    made = runs(store)
    dead, replica = mortal.nodes[0], mortal.nodes[3]
    theirs = runs_of(mortal, store, made, dead)
    others = [run_id for run_id in made if run_id not in theirs]
    refs = []
    for run_id in (theirs[0], others[0]):
        answer = store.claim(ClaimRequest(run_id, "0", store.load(run_id, ["0"])[0].seq, new_token(), LONG))
        assert isinstance(answer, Claimed)
        refs.append(LeaseRef(run_id, "0", answer.activation.lease_token))
    assert store.acquire_sweep("n", "me", 1, LONG) is not None
    change = _event(1)
    assert isinstance(store.commit(theirs[0], change), Committed)
    with client_of(dead) as client:
        assert client.execute_command("WAIT", 1, 5000) == 1
    reader: list[object] = []
    follower = threading.Thread(target=_follow, args=(store, theirs[1], reader), daemon=True)
    follower.start()
    with client_of(dead) as client:
        wait_for(lambda: any("b" in one["flags"] for one in client.client_list()))

    dead.process.kill("SIGKILL")
    with pytest.raises(StoreUnavailable):
        store.commit(theirs[0], change)
    before = store.load(others[0], ["0"])[0].deadline
    with pytest.raises(StoreUnavailable):
        store.renew(refs, 2 * LONG)
    assert store.load(others[0], ["0"])[0].deadline > before
    with pytest.raises(StoreUnavailable):
        store.acquire_sweep("n", "me", 1, LONG)

    def is_back() -> bool:
        try:
            return isinstance(store.commit(theirs[0], change), Committed)
        except StoreUnavailable:
            tell(store, others[1])  # a node that lives answers all the time
            return False

    wait_for(is_back)
    told = [event.doc["number"] for event in store.events(theirs[0]) if event.doc["type"] == "told"]
    assert told == [1]  # once, though repeated
    with client_of(replica) as client:
        assert client.info("replication")["role"] == "master"
    tell(store, theirs[1])
    follower.join(PATIENCE)
    assert reader
    assert store.acquire_sweep("n", "me", 1, LONG) is not None
    assert store.renew(refs, LONG) == {}
    assert store.count_runs(RunQuery()) == len(made)
    store.close()


def _follow(store: RedisStore, run_id: str, heard: list[object]) -> None:
    while not heard:
        try:
            heard.extend(store.wait_for_events(run_id, "", 1.0))
        except StoreUnavailable:
            time.sleep(0.05)


def test_a_process_that_starts_while_a_node_is_away_uses_the_others(mortal: LocalCluster) -> None:
    """Each node is looked at when it is first used."""
    store = RedisStore(mortal.url(3))
    made = runs(store)
    home = mortal.owner(key_slot(store._keys.format.encode()))
    dead = next(node for node in mortal.nodes[1:3] if node is not home)
    others = [run_id for run_id in made if run_id not in runs_of(mortal, store, made, dead)]
    dead.process.kill("SIGKILL")
    late = RedisStore(mortal.url(3), retries=1)
    for run_id in others:
        tell(late, run_id)
    with pytest.raises(StoreUnavailable):
        late.count_runs(RunQuery())
    store.close()
    late.close()
