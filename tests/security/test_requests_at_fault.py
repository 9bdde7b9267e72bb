"""An error of the request is no `StoreUnavailable`, in any store; damaged data are an error of their own."""

from __future__ import annotations

import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestrator import Orchestrator, RunNotFound, StoreRefused, StoreUnavailable, Workflow, step
from orchestrator.errors import ValueNotReadable
from orchestrator.host import new_run_id
from orchestrator.ports import LeaseRef, RunQuery
from orchestrator.rules.change import ClaimRequest
from orchestrator.stores.redis import RedisStore
from orchestrator.stores.sql import SqlStore
from orchestrator.testing.contract.kit import StartedRun, an_activation
from tests.servers import PostgresServer, RedisServer

DB = 9


@step
def plain(x: int) -> int:
    return x


one = Workflow("one").then(plain).commit()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store of each kind that has a server or a file."""
    made: Any
    match request.param:
        case "sqlite":
            made = SqlStore(f"sqlite:///{tmp_path / 'runs.db'}")
        case "postgres":
            made = SqlStore(request.getfixturevalue("postgres_server").url(), schema=f"s_{new_run_id()[:8]}")
        case _:
            server: RedisServer = request.getfixturevalue("redis_server")
            server.flush(DB)
            made = RedisStore(server.url(DB))
    yield made
    made.close()


def test_a_number_that_has_no_place_is_refused(store: Any) -> None:
    """Whatever has let it through further up."""
    begun = time.monotonic()
    with pytest.raises(StoreRefused, match="does not take the request"):
        store.runs(RunQuery(limit=10**30))
    with pytest.raises(StoreRefused) as refused:
        store.runs(RunQuery(limit=10, offset=2**70))
    assert not isinstance(refused.value, StoreUnavailable)
    assert time.monotonic() - begun < 5
    assert store.runs(RunQuery()) == []  # it works as before


def damage(store: Any, run_id: str, path: str = "") -> None:
    """Cut the header of a run, or one of its activations, in the middle."""
    if isinstance(store, RedisStore):
        keys = store._keys.run(run_id)
        if path:
            store._connections.call("HSET", keys.activations, path, '{"path":"0')
        else:
            store._connections.call("SET", keys.header, '{"run_id":"')
        return
    table, where = ("activations", f" AND path = '{path}'") if path else ("runs", "")
    query = f"UPDATE {{{table}}} SET doc = '{{\"pa' WHERE run_id = :run{where}"

    def work(tx: Any) -> Any:
        tx.send(query, run=run_id)
        return lambda: None

    store._connections.change(work)


@pytest.mark.parametrize("path", ["", "0"], ids=["header", "activation"])
def test_a_damaged_run_holds_no_worker(store: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its message is dropped at once, with a line that names it; a lease beside it is renewed."""
    with Orchestrator(store=store, workflows=[one]) as orchestrator:
        poison, other = StartedRun(store, an_activation("0")), StartedRun(store, an_activation("0"))
        token = other.claim("0").activation.lease_token
        damage(store, poison.id, path)
        begun = time.monotonic()
        assert orchestrator.executor.claim(poison.id, "0", 1) is None
        assert time.monotonic() - begun < 5
        assert f"message for 0 of run {poison.id} dropped, because the run cannot be read" in caplog.text
        refs = [LeaseRef(poison.id, "0", "any"), LeaseRef(other.id, "0", token)]
        assert set(store.renew(refs, 30_000)) == {refs[0]}
        with pytest.raises((ValueNotReadable, StoreRefused)):
            store.claim(ClaimRequest(poison.id, "0", 1, "token"))


def test_the_sqlite_file_is_for_its_owner(tmp_path: Path) -> None:
    """With the files that SQLite puts beside it; a mode that somebody has chosen stays."""
    path = tmp_path / "runs.db"
    with closing(SqlStore(f"sqlite:///{path}")) as store:
        store.runs(RunQuery())
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert modes.keys() >= {"runs.db", "runs.db-wal", "runs.db-shm"}
    assert set(modes.values()) == {0o600}
    path.chmod(0o660)
    with closing(SqlStore(f"sqlite:///{path}")) as store:
        store.runs(RunQuery())
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM orchestrator_runs").fetchone() == (0,)


@pytest.mark.parametrize(
    "schema",
    [
        "o'k",
        'q"q',
        "a:run",
        "per%cent %(x)s",
        "br{runs}ace",
        "x'||(SELECT current_setting('port'))||'",
        "ж-1",
    ],
)
def test_a_schemas_name_is_a_name_and_nothing_else(postgres_server: PostgresServer, schema: str) -> None:
    """Names of tenants become names of schemas."""
    url = postgres_server.url()
    with closing(SqlStore(url, schema=schema)) as store:
        run = StartedRun(store, an_activation("0"))
        assert store.header(run.id).status == "running"
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            found = connection.execute(
                "SELECT table_schema FROM information_schema.tables WHERE table_name = 'orchestrator_runs'"
            ).fetchall()
            assert (schema,) in found
            quoted = '"{}"'.format(schema.replace('"', '""'))
            connection.execute(f"DROP SCHEMA {quoted} CASCADE".encode())


@pytest.mark.parametrize("schema", ["x" * 64, "nul\0"])
def test_a_schemas_name_that_postgresql_would_change_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="a schema's name has 63 bytes at most"):
        SqlStore("postgresql://localhost/db", schema=schema)


@pytest.mark.parametrize("prefix", ["", "a}b", "{tag}"])
def test_a_prefix_has_no_braces(prefix: str) -> None:
    """They would say on which node of a cluster a key is."""
    with pytest.raises(ValueError, match="no braces"):
        RedisStore("redis://localhost/0", prefix=prefix)


def test_a_resource_with_a_nul_is_found(store: Any) -> None:
    with Orchestrator(store=store, workflows=[one]) as orchestrator:
        run = orchestrator.create_run(one, resource_id="a\0b")
        assert orchestrator.runs.list(resource_id="a\0b").total == 1
        run.start(1)
        assert orchestrator.runs.list(resource_id="a\0b", status="success").total == 1
        orchestrator.runs.delete(run.run_id)
        assert orchestrator.runs.list(resource_id="a\0b").total == 0


def test_an_id_that_is_no_text_is_nobodys(store: Any) -> None:
    with Orchestrator(store=store) as orchestrator, pytest.raises((StoreRefused, RunNotFound)):
        orchestrator.get_run("\ud800")
