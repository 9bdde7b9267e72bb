"""The plans of the statements: the store reads by a key or along an index, and throws no row away.

PostgreSQL is asked for its plans in a database with many narrow runs and a wide one, whose statistics it has taken: by
them a run has few rows, and a plan that reads all of a run's is right for nearly every run. SQLite has no statistics;
it must name an index for every table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from orchestrator.rules.model import RunHeader
from orchestrator.rules.timers import LANE
from orchestrator.stores.sql import queries as q
from orchestrator.stores.sql.sqlite import connect
from orchestrator.stores.sql.store import SqlStore
from tests.servers import PostgresServer

_RUNS = 30_000
_WIDE = 3_000
_OUTBOX = 2 * LANE
_LISTS = [
    (),
    ("status",),
    ("workflow_id",),
    ("workflow_id", "status"),
    ("resource_id",),
    ("resource_id", "status"),
]
_FEW = 10  # rows that a statement may look at in vain
# These have a row for each worker, namespace or event name, or go through what they are asked for.
_SMALL = {"workers", "schedulers", "meta", "mailboxes"}

# What the store asks for in the wide run: a few of its rows, and each of its timers.
_GIVEN: dict[str, Any] = {
    "run": "wide",
    "runs": ["wide"] * 50 + ["7"],
    "paths": [f"0.{number}" for number in range(5, 55)] + ["0"],
    "ids": [f"0@@0.{number}" for number in range(5, 55)],
    "keys": ["a", "b"],
    "name": "go",
    "id": "request",
    "value": "v",
    "namespace": "n",
    "worker": "w",
    "holder": "w",
    "limit": 100,
    "offset": 0,
    "last": 100,
    "first": 60,
    "slack": 50,
    "young": 1,
    "after": 2990,
    "old": 0,
    "ttl": 1000,
    "delay": 1000,
    "ahead": 60_000,
    "width": LANE,
    "path": "0.7",
    "before": 1_000_000 + 200,
    "moment": 1_000_000 + 50,
    "doc": "{}",
    "label": "l77",
    "workflow_id": "w3",
    "resource_id": "r3",
    "status": "tripwire",
    "awaiting": 0,
    "updated_at": 0,
    "settle_count": 0,
    "events": 3000,
    "reply": "",
    "until": 0,
    "steady_since": 0,
}


def statements() -> dict[str, str]:
    """Return all statements of the store by name."""
    found = {name: text for name, text in vars(q).items() if name.isupper() and isinstance(text, str) and "{" in text}
    found = {name: text for name, text in found.items() if not name.startswith("_")}
    found |= {f"DELETE_RUN {place}": text for place, text in enumerate(q.DELETE_RUN)}
    found |= {f"list {' '.join(filters)}": q.list_runs(filters) for filters in _LISTS}
    found |= {f"count {' '.join(filters)}": q.count_runs(filters) for filters in _LISTS if filters}
    found |= {f"list awaiting {' '.join(filters)}": q.list_runs(filters, True) for filters in _LISTS}
    return found | {f"count awaiting {' '.join(filters)}": q.count_runs(filters, True) for filters in _LISTS}


def _fill(connection: psycopg.Connection[Any]) -> None:
    """Write narrow runs and a wide one, and let PostgreSQL take statistics of them."""
    statuses = "(ARRAY['success','success','success','failed','suspended','running','canceled','success'])"
    runs = f"""INSERT INTO orchestrator_runs
        (run_id, namespace, workflow_id, resource_id, status, awaiting, created_at, updated_at, settle_count, events,
        doc) SELECT g::text, 'n', 'w' || g % 20, 'r' || g % 500, {statuses}[1 + g % 8], (g % 8 = 4)::int, 1000000 + g,
        1000000 + g, 1, 3, '{{}}' FROM generate_series(1, {_RUNS}) g"""
    connection.execute(runs)
    for table, columns, narrow, wide in (
        (
            "activations",
            "run_id, path, status, awaiting, label, doc",
            "'0', 'success', 0, '', '{}'",
            "'0.' || g, 'queued', 0, '', '{}'",
        ),
        ("values", "run_id, id, text", "'a', '=1'", "'0@@0.' || g, '=1'"),
        ("events", "run_id, number, at, doc", "1, 1, '{}'", "g, 1, '{}'"),
        ("state", "run_id, key, text", "'a', '=1'", "'k' || g, '=1'"),
        ("context", "run_id, key, text", "'a', '=1'", "'k' || g, '=1'"),
        ("requests", "run_id, id, at, reply", "'a', 1, ''", "'i' || g, 1, ''"),
        (
            "timers",
            "run_id, path, namespace, deadline",
            "'0', 'n', 9000000000000 + g",
            f"'0.' || g, 'n', {_OUTBOX} + g",
        ),
    ):
        into = f"INSERT INTO orchestrator_{table} ({columns}) SELECT"
        connection.execute(f"{into} g::text, {narrow} FROM generate_series(1, {_RUNS}) g".encode())
        connection.execute(f"{into} 'wide', {wide} FROM generate_series(1, {_WIDE}) g".encode())
    connection.execute(
        "UPDATE orchestrator_activations SET awaiting = 1, label = 'l' || substr(path, 3) "
        "WHERE run_id = 'wide' AND path LIKE '0.%7'"
    )
    for table in ("state", "context"):  # a claim brings all of it
        connection.execute(f"DELETE FROM orchestrator_{table} WHERE run_id = 'wide' AND length(key) > 3".encode())
    connection.execute("VACUUM ANALYZE")


@pytest.fixture(scope="module")
def loaded(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A connection, as the store has them, to a loaded schema."""
    url = postgres_server.new_schema()
    store = SqlStore(url)
    store.create(RunHeader(run_id="wide", status="running", namespace="n"))
    store.close()
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        _fill(connection)
        connection.execute("SET plan_cache_mode = 'force_generic_plan'")
        yield connection


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a statement has done."""

    scanned: frozenset[str]  # tables of which all was read
    in_vain: int  # rows that were read and thrown away
    read: int  # rows that were read


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _explain(connection: psycopg.Connection[Any], statement: str) -> _Plan:
    """Carry a statement out by its generic plan, undo it, and return what it did."""
    names: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", place, q.Postgres().statement(statement).decode()).replace("%%", "%")
    types = dict(re.findall(r"\$(\d+) AS (\w+)\[\]", text))
    given = [
        _GIVEN.get(name, {"text": ["new"]}.get(types.get(str(at), ""), [999_999])) for at, name in enumerate(names, 1)
    ]
    arguments = ", ".join(
        q.quoted_text("{{{}}}".format(",".join(map(str, v))) if isinstance(v, list) else str(v)) for v in given
    )
    with connection.transaction(force_rollback=True):
        connection.execute("DEALLOCATE ALL")  # what was prepared outlasts its transaction, where that has failed
        connection.execute(f"PREPARE asked AS {text}".encode())
        call = f"EXECUTE asked ({arguments})" if names else "EXECUTE asked"
        answer = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {call}".encode()).fetchone()
    assert answer is not None
    nodes = [node for tree in answer[0] for node in _nodes(tree["Plan"])]
    scanned = {node["Relation Name"].removeprefix("orchestrator_") for node in nodes if node["Node Type"] == "Seq Scan"}
    vain = sum(
        node.get(name, 0) * node["Actual Loops"]
        for node in nodes
        for name in ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    )
    read = sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes if "Scan" in node["Node Type"])
    return _Plan(frozenset(scanned - _SMALL), vain, read)


# What belongs to the whole run, or is counted, is as much as there is.
_WHOLE = {"ACTIVATIONS", "STATE", "CONTEXT", "EVENTS", "DROP_EVENTS", "DROP_LOG"}


@pytest.mark.parametrize("name", statements())
def test_postgresql_reads_by_keys(loaded: psycopg.Connection[Any], name: str) -> None:
    """No table is read as a whole, and no row is read to be thrown away, though most runs are narrow."""
    plan = _explain(loaded, statements()[name])
    assert (plan.scanned, plan.in_vain <= _FEW) == (frozenset(), True), plan
    if not name.startswith(("DELETE_RUN", "count")) and name not in _WHOLE:
        assert plan.read < 2_500, plan  # of three lanes a hundred each, in two or three tables


@pytest.mark.parametrize("name", statements())
def test_sqlite_reads_by_keys(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every table is read along an index, and nothing that is as long as a run or a list is sorted."""
    path = tmp_path_factory.getbasetemp() / "plans.db"
    if not path.exists():
        store = SqlStore(f"sqlite:///{path}")
        store.create(RunHeader(run_id="wide"))
        store.close()
    if name == "EXISTS":
        pytest.skip("PostgreSQL's own")
    connection = connect(str(path))
    try:
        text = q.Sqlite().write(statements()[name])
        parameters = dict.fromkeys(re.findall(r":(\w+)", text), "[]")
        rows = [None] * text.count("?")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", rows or parameters).fetchall()
    finally:
        connection.close()
    if "awaiting" in name:
        used = re.findall(r"INDEX (orchestrator_runs_\w+)", str(plan))
        assert used, plan
        assert all(index.endswith("_awaiting") for index in used), plan
    scans = {found[1] for *_, line in plan if (found := re.match(r"SCAN (?:orchestrator_)?(\w+)$", line))}
    assert not scans & {"runs", "activations", "values", "timers", "events", "t", "a", "u", "r"}, plan
