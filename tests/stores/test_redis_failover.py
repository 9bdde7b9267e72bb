"""A failover of Redis behind one address: the old primary lives on as a replica, and old connections stay with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_run_id
from orchestrator.rules.change import Change, Committed, RequestGuard, UpdateRun
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import RunHeader, StoredStatus
from orchestrator.stores.redis import RedisStore
from tests.stores.wire import Wire
from tests.vendor import LocalRedis

PATIENCE = 15.0


@dataclass
class Pair:
    """Two servers, and the address by which the store knows the primary."""

    first: LocalRedis
    second: LocalRedis
    address: Wire
    store: RedisStore

    def client(self, server: LocalRedis) -> redis.Redis:
        """Return a client of one of them, whatever its role."""
        return redis.Redis.from_url(server.url)

    def fail_over(self) -> None:
        """Promote the second, have the address lead there, and make the first its replica."""
        with self.client(self.first) as old, self.client(self.second) as new:
            wait_for(lambda: old.info("replication").get("slave0", {}).get("lag") == 0)
            old.execute_command("WAIT", 1, 2000)
            new.execute_command("REPLICAOF", "NO", "ONE")
            self.address.points_to(port_of(self.second))
            old.execute_command("REPLICAOF", "127.0.0.1", port_of(self.second))


def port_of(server: LocalRedis) -> int:
    """Return the port of a server."""
    return int(server.url.rsplit(":", 1)[1].split("/")[0])


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary with a replica."""
    with ExitStack() as stack:
        servers = []
        for name in ("first", "second"):
            server = LocalRedis(tmp_path / name, "--repl-diskless-sync-delay", "0").start()
            stack.callback(server.teardown)
            servers.append(server)
        first, second = servers
        with redis.Redis.from_url(second.url) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", port_of(first))
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        address = stack.enter_context(Wire(port_of(first)))
        store = RedisStore(f"redis://127.0.0.1:{address.port}/0", timeout=2.0)
        stack.callback(store.close)
        yield Pair(first, second, address, store)


def a_run(store: RedisStore) -> str:
    """Create a run."""
    return store.create(RunHeader(run_id=new_run_id(), workflow_id="w", namespace="n")).run_id


def note(store: RedisStore, run_id: str, text: str) -> Change:
    """Make a change that leaves one entry in a mailbox."""
    return Change(
        RequestGuard(text, frozenset(StoredStatus)), values={text: "=1"}, mailbox=MailboxUpdate("m", push=text)
    )


def test_writes_and_reads_go_to_the_new_primary_without_a_restart(pair: Pair) -> None:
    """From one connection or many, of several threads; what was refused is written once."""
    store = pair.store
    run_id = a_run(store)
    gate = threading.Barrier(8)

    def use_a_connection() -> None:
        gate.wait(PATIENCE)
        store.header(run_id)

    threads = [threading.Thread(target=use_a_connection) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    change = note(store, run_id, "one")
    assert isinstance(store.commit(run_id, change), Committed)

    pair.fail_over()
    began = time.monotonic()
    second = note(store, run_id, "two")
    assert isinstance(store.commit(run_id, second), Committed)
    assert isinstance(store.commit_many([(run_id, note(store, run_id, "three"))])[0], Committed)
    for again in (change, second):
        assert isinstance(store.commit(run_id, again), Committed)
    assert time.monotonic() - began < 5
    assert len(store.mail(run_id, "m", 10)) == 3
    other = a_run(store)
    with pair.client(pair.second) as new:
        assert new.keys(f"*header:{other}")
        new.execute_command("CLIENT", "KILL", "TYPE", "replica")


def test_a_process_that_only_reads_does_not_stay_with_the_replica(pair: Pair) -> None:
    """Nothing is refused to it there; the replica may have lost its primary long ago."""
    store = pair.store
    run_id = a_run(store)
    assert store.header(run_id) is not None
    pair.fail_over()
    with pair.client(pair.first) as old, pair.client(pair.second) as new:
        old.execute_command("REPLICAOF", "127.0.0.1", 1)  # it hears of nothing any more
        writer = RedisStore(pair.second.url)
        change = Change(RequestGuard("c", frozenset(StoredStatus)), (UpdateRun({"status": "canceled"}),))
        assert isinstance(writer.commit(run_id, change), Committed)
        writer.close()
        assert new.ping()
    wait_for(lambda: (header := store.header(run_id)) is not None and header.status == "canceled")


def test_readers_that_wait_hear_from_the_new_primary(pair: Pair) -> None:
    """Their blocking read is ended by the failover."""
    store = pair.store
    run_id = a_run(store)
    heard: list[object] = []

    def read() -> None:
        while not heard:
            try:
                heard.extend(store.wait_for_events(run_id, "", 1.0))
            except StoreUnavailable:
                time.sleep(0.05)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    pair.fail_over()
    change = Change(RequestGuard("e", frozenset(StoredStatus)), events=({"type": "told"},))
    assert isinstance(store.commit(run_id, change), Committed)
    reader.join(PATIENCE)
    assert heard


def test_no_primary_anywhere_is_an_outage(pair: Pair) -> None:
    """It ends by itself once there is one again."""
    store = pair.store
    run_id = a_run(store)
    with pair.client(pair.first) as old:
        old.execute_command("REPLICAOF", "127.0.0.1", port_of(pair.second))
        with pytest.raises(StoreUnavailable, match="replica"):
            store.commit(run_id, note(store, run_id, "one"))
        old.execute_command("REPLICAOF", "NO", "ONE")
        assert isinstance(store.commit(run_id, note(store, run_id, "one")), Committed)


def test_a_server_that_loads_its_data_is_an_outage(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOADING` and `MASTERDOWN` are for now: the store is used again without a restart."""
    store = pair.store
    run_id = a_run(store)
    with pair.client(pair.first) as old:
        old.config_set("replica-serve-stale-data", "no")
        old.execute_command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable):
            store.header(run_id)
        old.execute_command("REPLICAOF", "NO", "ONE")
    header = store.header(run_id)
    assert header is not None
    assert header.run_id == run_id


def test_what_the_replica_had_not_heard_of_is_gone_and_can_be_done_again(pair: Pair) -> None:
    """A run goes back by as much as the replica was behind: steps run again, and the rest was never accepted."""
    called: list[int] = []

    def answer(data: int, ctx: Context[int]) -> int:
        if not ctx.resumed:
            ctx.suspend()
        called.append(ctx.resume_data)
        return ctx.resume_data

    asking = Workflow("asking").then(step(answer)).commit()
    with Orchestrator(store=pair.store, workflows=[asking]) as orchestrator:
        resumed, canceled = orchestrator.create_run(asking), orchestrator.create_run(asking)
        for run in (resumed, canceled):
            assert run.start(1).status == "suspended"
        with pair.client(pair.first) as old, pair.client(pair.second) as new:
            assert old.execute_command("WAIT", 1, 2000) == 1
            new.execute_command("REPLICAOF", "NO", "ONE")
            assert resumed.resume(7).result == 7
            assert canceled.cancel().status == "canceled"
            unheard = orchestrator.create_run(asking)
            unheard.start(1)
            pair.address.points_to(port_of(pair.second))
            old.execute_command("REPLICAOF", "127.0.0.1", port_of(pair.second))
        wait_for(lambda: orchestrator.runs.get(unheard.run_id) is None)
        assert [run.status for run in (resumed, canceled)] == ["suspended", "suspended"]
        assert resumed.resume(8).result == 8
        assert called == [7, 8]
