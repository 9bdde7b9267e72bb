"""What cannot be read hides nothing else: other timers are found, a list shows it as that, and it can be deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from orchestrator import Orchestrator, RunStatus, Workflow, step
from orchestrator.errors import ValueNotReadable
from orchestrator.host import new_run_id
from orchestrator.ports import UNREADABLE, RunQuery, Store
from orchestrator.rules.change import CreateActivation
from orchestrator.rules.model import ActivationStatus
from orchestrator.rules.timers import Lane
from orchestrator.stores.redis import RedisStore
from orchestrator.stores.sql import SqlStore
from orchestrator.testing.contract.kit import LEASE, Conditions, StartedRun, an_activation
from tests.servers import PostgresServer, RedisServer

DB = 7
Damage = Callable[[str], None]


class Place:
    """A store, and the ways in which one run in it can be damaged."""

    def __init__(self, store: Store, **damage: Damage) -> None:
        self.store = store
        self.damage = damage


def _on_redis(server: RedisServer) -> Iterator[Place]:
    server.flush(DB)
    store = RedisStore(server.url(DB))
    with redis.Redis.from_url(server.url(DB)) as client:

        def cut(run_id: str) -> None:
            key = store._keys.run(run_id).header
            client.set(key, client.get(key)[:50])

        def field(run_id: str) -> None:
            client.hset(store._keys.run(run_id).activations, "0", b'{"status":')

        def unknown(run_id: str) -> None:
            client.hset(store._keys.run(run_id).activations, "0", b'{"status":"dreaming","deadline":1}')

        def no_text(run_id: str) -> None:
            client.set(store._keys.run(run_id).header, b"\xff\xfe")

        def other_type(run_id: str) -> None:
            key = store._keys.run(run_id).header
            client.delete(key)
            client.rpush(key, "x")

        yield Place(store, header=cut, activation=field, status=unknown, bytes=no_text, type=other_type)
    store.close()


def _on_sql(store: SqlStore, execute: Callable[[str, tuple[Any, ...]], Any], mark: str) -> Iterator[Place]:
    def header(run_id: str) -> None:
        execute(f"UPDATE orchestrator_runs SET doc = '{{\"run' WHERE run_id = {mark}", (run_id,))

    def activation(run_id: str) -> None:
        execute(f"UPDATE orchestrator_activations SET doc = '[1]' WHERE run_id = {mark} AND path = '0'", (run_id,))

    def status(run_id: str) -> None:
        doc = '{"path":"0","status":"dreaming","deadline":1}'
        execute(f"UPDATE orchestrator_activations SET doc = '{doc}' WHERE run_id = {mark} AND path = '0'", (run_id,))

    yield Place(store, header=header, activation=activation, status=status)
    store.close()


def _on_sqlite(folder: Path) -> Iterator[Place]:
    path = folder / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        yield from _on_sql(SqlStore(f"sqlite:///{path}"), connection.execute, "?")


def _on_postgres(server: PostgresServer) -> Iterator[Place]:
    schema = f"s_{new_run_id()[:8]}"
    server.new_schema(schema)
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{schema}"')
        yield from _on_sql(SqlStore(server.url(), schema=schema), connection.execute, "%s")


@pytest.fixture(params=["redis", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A store of each kind."""
    match request.param:
        case "redis":
            yield from _on_redis(request.getfixturevalue("redis_server"))
        case "sqlite":
            yield from _on_sqlite(tmp_path)
        case _:
            yield from _on_postgres(request.getfixturevalue("postgres_server"))


class TestUnreadable(Conditions):
    """One run of several is damaged, in every way that its store can hold."""

    def begun(self, store: Store, namespace: str) -> StartedRun:
        run = StartedRun(store, namespace=namespace)
        run.commit_request(CreateActivation(an_activation("0", status=ActivationStatus.SLEEPING), delay=LEASE))
        return run

    def test_the_other_timers_are_found(self, place: Place) -> None:
        """The damaged one is among them, with its problem; set aside, it is not due for a while."""
        for name, damage in place.damage.items():
            namespace = new_run_id()
            poison, *others = (self.begun(place.store, namespace) for _ in range(4))
            damage(poison.id)
            self.advance(place.store, LEASE)
            due = place.store.due_timers(namespace)
            assert {one.header.run_id for one in due} == {poison.id, *(run.id for run in others)}, name
            (bad,) = (one for one in due if one.problem)
            assert (bad.header.run_id, bad.activation.path) == (poison.id, "0"), name
            place.store.set_aside(poison.id, "0", namespace, 60_000)
            found = place.store.due_timers(namespace)
            assert {one.header.run_id for one in found} == {run.id for run in others}, name

    def test_a_list_shows_it_as_that_and_it_can_be_deleted(self, place: Place) -> None:
        """Everything of it goes, and nothing of another run's."""
        for name in place.damage.keys() & {"header", "bytes"}:
            namespace = new_run_id()
            poison, other = self.begun(place.store, namespace), self.begun(place.store, namespace)
            place.damage[name](poison.id)
            listed = {header.run_id: header.status for header in place.store.runs(RunQuery())}
            assert (listed[poison.id], listed[other.id]) == (UNREADABLE, "running"), name
            with pytest.raises(ValueNotReadable, match=poison.id):
                place.store.header(poison.id)
            assert not place.store.delete(poison.id, frozenset({"success"}))
            assert place.store.delete(poison.id, frozenset({UNREADABLE}))
            assert place.store.header(poison.id) is None
            assert poison.id not in {header.run_id for header in place.store.runs(RunQuery())}
            self.advance(place.store, LEASE)
            assert [one.header.run_id for one in place.store.due_timers(namespace)] == [other.id]
            assert place.store.delete(other.id)

    def test_nobody_but_its_reader_sees_it(self, place: Place) -> None:
        """What users do: a list, a look, a deletion."""

        @step
        def plain(x: int) -> int:
            return x

        with Orchestrator(store=place.store, workflows=[Workflow("plain").then(plain).commit()]) as orchestrator:
            poison, other = orchestrator.create_run("plain"), orchestrator.create_run("plain")
            poison.start(1)
            other.start(2)
            place.damage["header"](poison.run_id)
            shown = {run.run_id: run.status for run in orchestrator.runs.list().runs}
            assert shown == {poison.run_id: RunStatus.UNREADABLE, other.run_id: RunStatus.SUCCESS}
            with pytest.raises(ValueNotReadable):
                orchestrator.runs.get(poison.run_id)
            orchestrator.runs.delete(poison.run_id)
            assert [run.run_id for run in orchestrator.runs.list().runs] == [other.run_id]


def test_an_entry_that_names_nobody_is_dropped(redis_server: RedisServer) -> None:
    """Bytes that are no text, and an entry in a place where it cannot stand."""
    redis_server.flush(DB)
    store = RedisStore(redis_server.url(DB))
    run = StartedRun(store, an_activation("0"), namespace="n", redelivery_delay=1)
    with redis.Redis.from_url(redis_server.url(DB)) as client:
        for shard in range(4):
            for lane in Lane:
                client.zadd(
                    store._keys.timers(shard), {b"n\x1f\xff\xfe\x1f0": lane.offset + 1, b"n\x1f": lane.offset + 2}
                )
        TestUnreadable().advance(store, 5)
        assert [one.header.run_id for one in store.due_timers("n", limit=1)] == [run.id]
        assert sum(client.zcard(store._keys.timers(shard)) for shard in range(16)) == 1
    store.close()
